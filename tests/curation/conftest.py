"""A folder of records about tiny clips, and pipelines that run on it in this process."""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_part
from omnihuman.curation.backend import run_pipeline
from omnihuman.curation.listing import list_source
from omnihuman.curation.pipeline import Pipeline, build_pipeline
from omnihuman.curation.store import read_partition
from omnihuman.operator.base import Row
from omnihuman.source.records import RecordsSource
from tests.data.conftest import write_clip

BOX = [8.0, 6.0, 56.0, 42.0]
"""3/4 of 64 x 48 pixels on every side: 9/16 of the area."""

NUM_CLIPS = 6
"""Clips of the folder; the last one is a copy of the first, the one before it is cut off."""


def write_scenes(path: Path, num_frames: int = 15) -> Path:
    """Write a clip of two scenes without sound: a dark one and a bright one."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"g": "12", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(2 * num_frames):
            pixels = np.full((48, 64, 3), 20 if number < num_frames else 220, dtype=np.uint8)
            pixels[:, number : number + 4] = 128
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(video.encode(None))
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a records folder of six clips: three good ones, one of two scenes, one cut off, and one copy."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        write_clip(folder / f"{number}.mp4", num_frames=25 + 5 * number, seconds=1.0, size=(64, 48 + 16 * number))
    write_scenes(folder / "3.mp4")
    content = (folder / "1.mp4").read_bytes()
    (folder / "4.mp4").write_bytes(content[: len(content) // 2])
    shutil.copy(folder / "0.mp4", folder / "5.mp4")
    records = []
    for number in range(NUM_CLIPS):
        for task, answer in (("emotion", "happy"), ("body", "She waves.")):
            chat = [{"from": "human", "value": "<video>\nWhat is it?"}, {"from": "gpt", "value": answer}]
            faces = [{"time": time, "box": BOX} for time in (0.0, 0.5)]
            persons = [{"time": 0.0, "box": BOX}]
            words = [{"word": "yes", "start": 0.2, "end": 0.4, "box": BOX}]
            record = {"id": f"{number}_{task}", "video": f"{number}.mp4", "task": task, "conversations": chat}
            annotation = {"faces": faces, "persons": persons, "words": words}
            records.append(record | annotation | {"meta": {"person": number}})
    (folder / "train.json").write_text(json.dumps(records))
    return folder


def compose_operator(part: str, **options: Any) -> dict[str, Any]:
    """Return the config of an operator at nano size, with options of a test."""
    node: Any = OmegaConf.to_container(compose_part("operator", part), resolve=True)
    return {**node, **options}


def build_on(
    source: Path, nodes: Mapping[str, Mapping[str, Any]], out: Path, partition_size: int = 4, **options: Any
) -> Pipeline:
    """Return a pipeline on a records folder, in which any share of the rows may fail."""
    listing = list_source(partial(RecordsSource), source, None, partition_size)
    return build_pipeline("test", nodes, listing, out, **{"max_failed": 1.0, **options})


def run_here(pipeline: Pipeline, parts: Sequence[int] | None = None) -> Pipeline:
    """Run a pipeline in this process, and return it."""
    run_pipeline(pipeline, range(pipeline.num_parts) if parts is None else parts, 0, 0.0)
    return pipeline


def read_rows(pipeline: Pipeline, *columns: str) -> list[Row]:
    """Return the rows of the last level, in the order of their ids."""
    rows: list[Row] = []
    for part in range(pipeline.num_parts):
        rows += read_partition(pipeline.files(len(pipeline.levels) - 1, part), columns).to_pylist()
    for row in rows:
        del row["parent"]  # which depends on the partitions
    return sorted(rows, key=lambda row: (row["id"], row["source"], row["start"]))
