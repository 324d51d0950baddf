"""A pipeline whose rows wait for people, and whose command composes to it again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import compose_config
from omnihuman.curate import prepare
from omnihuman.curation.backend import run_pipeline
from omnihuman.curation.folder import write_state
from omnihuman.curation.pipeline import Pipeline
from omnihuman.operator.base import Row, SetupError
from omnihuman.reviewing.queue import Queue, load_waiting
from tests.curation.conftest import clips as clips
from tests.curation.conftest import read_rows

OPTIONS = "pipeline.operators.review"


def build_command(clips: Path, out: Path, **options: Any) -> list[str]:
    settings = {"show": "{people: num_faces}", "edit": "{speech: text}", "hide": "{share: face_share}", "share": 0}
    return [
        "pipeline=records",
        "source=records",
        f"path={clips}",
        f"out={out}",
        "max_failed=1",
        "+operator@pipeline.operators.transcribe=transcribe",
        "+operator@pipeline.operators.review=review",
        "pipeline.operators.transcribe.words=truth",
        *(f"{OPTIONS}.{key}={value}" for key, value in {**settings, **options}.items()),
        "pipeline.operators.write.faces=false",
        "pipeline.order=[probe,faces,transcribe,review,write]",
    ]


def run(clips: Path, out: Path, **options: Any) -> Pipeline:
    """Run the pipeline as its command does; it stops where rows wait."""
    command = build_command(clips, out, **options)
    pipeline = prepare(compose_config(command, "curate"), out)
    write_state(pipeline, command)
    run_pipeline(pipeline, range(pipeline.num_parts), 0, 0.0)
    return pipeline


def list_ends(pipeline: Pipeline) -> list[tuple[str, str | None]]:
    rows: list[Row] = read_rows(pipeline)
    return sorted((row["status"], row["why"]) for row in rows if row["operator"] != "probe")


@pytest.fixture
def queue(clips: Path, tmp_path: Path) -> Iterator[Queue]:
    with pytest.raises(SetupError, match=r"rows wait"):
        run(clips, tmp_path / "out")
    yield Queue(load_waiting(tmp_path / "out"))
