"""Writes the built-in corpus: clips as mp4, stills as png, sound as m4a or wav, and the records of each split."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import wave
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from omnihuman.data.sample.closeup import closeups
from omnihuman.data.sample.draw import face_box, frames
from omnihuman.data.sample.language import conversations
from omnihuman.data.sample.voice import SAMPLE_RATE, waveform
from omnihuman.data.sample.world import Scene, scenes

VERSION = 2  # raised whenever the same seed gives other clips or records
MARKER = "complete.json"
log = logging.getLogger(__name__)


def is_complete(out: Path | str, seed: int = 0) -> bool:
    """A folder and a seed; whether the whole corpus of that seed stands there, every file at its full size."""
    marker = Path(out) / MARKER
    if not marker.is_file():
        return False
    try:
        told = json.loads(marker.read_text())
        sizes = dict(told["files"])
        same = told["seed"] == seed and told["version"] == VERSION
    except (ValueError, KeyError, TypeError):
        return False
    return same and all(
        (path := Path(out) / name).is_file() and path.stat().st_size == size for name, size in sizes.items()
    )


def write(out: Path | str, seed: int = 0, workers: int | None = None) -> Path:
    """A folder, a seed and a number of processes; that folder, holding the corpus. Returns at once if it is there.

    The corpus is made in a folder beside ``out`` that takes its name when all is written, so that an interrupted
    run leaves nothing that looks complete.
    """
    out = Path(out)
    if is_complete(out, seed):
        return out
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; the corpus needs a folder: name another one or remove the file")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise ValueError(f"out={out} holds other files and no corpus; name an empty or a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _fill(made, seed, workers or os.cpu_count() or 1)
        made.chmod(0o755)
        if out.exists():  # an older or damaged corpus
            shutil.rmtree(out)
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return out


def _fill(out: Path, seed: int, workers: int) -> None:
    """An empty folder, a seed and a number of processes; writes all clips, the records and, last, the marker."""
    everything = scenes(seed)
    (out / "media").mkdir()
    jobs = [(scene, str(out), seed) for scene in everything]
    if workers == 1:
        records = [write_scene(*job) for job in jobs]
    else:
        # forked children of a process that runs threads (torch) can hang; spawned ones cannot
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            records = list(pool.map(write_scene, *zip(*jobs, strict=True), chunksize=16))
    for split in ("train", "val", "test"):
        rows = [r for scene, some in zip(everything, records, strict=True) if scene.split == split for r in some]
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        (out / f"{split}.json").write_text(text + "\n")
        log.info("%s: %d records", split, len(rows))
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()}
    (out / MARKER).write_text(json.dumps({"seed": seed, "version": VERSION, "files": sizes}, indent=1) + "\n")


def write_scene(scene: Scene, out: str, seed: int) -> list[dict[str, Any]]:
    """A scene, the corpus folder and its seed; writes the scene's file and gives its records."""
    path = Path(out) / _media_name(scene)[1]
    if scene.is_still:
        Image.fromarray(frames(scene)[0]).save(path)
    elif not scene.has_video and path.suffix == ".wav":
        _write_wav(path, waveform(scene))
    else:
        _write_av(
            path, frames(scene) if scene.has_video else None, waveform(scene) if scene.has_audio else None, scene.fps
        )
    return records_of(scene, seed)


def records_of(scene: Scene, seed: int) -> list[dict[str, Any]]:
    """A scene and the corpus' seed; the scene's records, those of faces looked at closely after all others.

    >>> records_of(scenes(0)[0], 0)[0]["id"]
    'train_talk_000_0_emotion'
    """
    key, name = _media_name(scene)
    # the words depend on the scene alone, not on the order in which processes take scenes
    said = conversations(scene, np.random.default_rng((seed, 3, scene.seed)))
    said += closeups(scene, np.random.default_rng((seed, 4, scene.seed)))
    faces = _faces(scene)
    return [
        {"id": f"{scene.id}_{index}_{record['task']}", key: name, **record, **({"faces": faces} if faces else {})}
        for index, record in enumerate(said)
    ]


def _media_name(scene: Scene) -> tuple[str, str]:
    """A scene; the record key that names its file and the file's path below the corpus folder."""
    if scene.is_still:
        return "image", f"media/{scene.id}.png"
    if scene.has_video:
        return "video", f"media/{scene.id}.mp4"
    return "audio", f"media/{scene.id}.{'wav' if scene.seed % 2 else 'm4a'}"


def _faces(scene: Scene) -> list[dict[str, Any]]:
    """A scene; the main person's face box twice a second, where it is seen."""
    if not scene.has_video:
        return []
    times = [0.0] if scene.is_still else [step / 2 for step in range(int(scene.duration * 2))]
    cuts = {shot.duration for shot in scene.shots[:-1]}
    times = sorted({*times, *cuts, *(cut - 1 / scene.fps for cut in cuts)})  # no box moves across a cut
    boxes = [(t, face_box(scene, scene.duration / 2 if scene.is_still else t)) for t in times]
    return [{"time": t, "box": list(box)} for t, box in boxes if box is not None]


def _write_wav(path: Path, samples: Float32[np.ndarray, " S"]) -> None:
    """A path and a waveform [samples]; writes 16-bit mono wav."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def _write_av(
    path: Path,
    pictures: UInt8[np.ndarray, "T H W 3"] | None,
    samples: Float32[np.ndarray, " S"] | None,
    fps: int,
) -> None:
    """A path, pictures [T H W 3] and a waveform [samples], either may be missing; writes h264 and aac.

    One thread and bit-exact flags: the same scene gives the same bytes, whatever the machine is doing.
    """
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as file:
        if pictures is not None:
            video = file.add_stream("libx264", rate=fps)
            video.height, video.width = pictures.shape[1:3]
            # with the macroblock tree x264's bytes differ from run to run at widths such as 160 (measured); and
            # without "cpu-independent" they may differ between processors
            exact = {"x264-params": "mbtree=0:cpu-independent=1"}
            video.pix_fmt, video.options = "yuv420p", {"crf": "20", "preset": "veryfast", **exact}
            video.codec_context.thread_count = 1
            video.codec_context.flags |= av.codec.context.Flags.bitexact
        if samples is not None:
            audio = file.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            audio.bit_rate = 64000
            audio.codec_context.flags |= av.codec.context.Flags.bitexact
        if pictures is not None:
            for picture in pictures:
                file.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            file.mux(video.encode(None))
        if samples is not None:
            for start in range(0, len(samples), 1024):
                block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
                file.mux(audio.encode(block))
            file.mux(audio.encode(None))
