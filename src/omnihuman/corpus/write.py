"""Write the built-in corpus: clips as mp4, stills as png, audio as m4a or wav, and the records of each split."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from omnihuman.corpus.annotation import list_times
from omnihuman.corpus.closeup import build_closeups
from omnihuman.corpus.conversation import Record, build_conversations
from omnihuman.corpus.draw import compute_face_box, render_frames
from omnihuman.corpus.progress import track
from omnihuman.corpus.voice import SAMPLE_RATE, synthesize_waveform
from omnihuman.corpus.world import Scene, build_scenes

VERSION = 2  # increases whenever the same seed gives other clips or records
MARKER = "complete.json"
log = logging.getLogger(__name__)


def is_complete(out: Path | str, seed: int | str = 0) -> bool:
    """Return True if a folder holds the complete corpus of a seed, every file at its full size."""
    marker = Path(out) / MARKER
    if not marker.is_file():
        return False
    try:
        content = json.loads(marker.read_text())
        sizes = dict(content["files"])
        if content["seed"] != seed or content["version"] != VERSION:
            return False
    except (ValueError, KeyError, TypeError):
        return False
    for name, size in sizes.items():
        path = Path(out) / name
        if not path.is_file() or path.stat().st_size != size:
            return False
    return True


def write_corpus(out: Path | str, seed: int = 0, workers: int | None = None) -> Path:
    """Write the corpus of a seed to a folder and return the folder; a complete corpus is not written again.

    Raises:
        ValueError: ``out`` is a file, or a folder with other files.
    """
    return write_folder(Path(out), seed, lambda folder: _write_files(folder, seed, workers or os.cpu_count() or 1))


def write_folder(out: Path, seed: int | str, write: Callable[[Path], None]) -> Path:
    """Write the files of a corpus to a folder, unless it is complete, and return the folder.

    The files are written to a temporary folder beside ``out``, which takes its name at the end. An interrupted run
    therefore leaves nothing that looks complete.

    Args:
        out: the folder.
        seed: of the corpus, with all that its files depend on.
        write: writes the files to a folder.

    Raises:
        ValueError: ``out`` is a file, or a folder with other files.
    """
    if is_complete(out, seed):
        return out
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file, but the corpus needs a folder; name another one or remove the file.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise ValueError(f"out={out} holds other files and no corpus; name an empty or a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        (partial / "media").mkdir()
        write(partial)
        _write_marker(partial, seed)
        partial.chmod(0o755)
        if out.exists():  # an older or damaged corpus
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write_files(out: Path, seed: int, workers: int) -> None:
    """Write all clips and the records to an empty folder."""
    scenes = build_scenes(seed)
    records: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    written = track(_write_scenes(scenes, str(out), seed, workers), len(scenes), "built-in corpus, clips written")
    for scene, scene_records in zip(scenes, written, strict=True):
        records[scene.split] += scene_records
    for split, split_records in records.items():
        write_records(out / f"{split}.json", split_records)
        log.info("%s: %d records", split, len(split_records))


def write_records(file: Path, records: Sequence[Record]) -> None:
    """Write the records of a split."""
    file.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_marker(out: Path, seed: int | str) -> None:
    """Write the sizes of all files, by which a corpus is known to be complete."""
    sizes: dict[str, int] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            sizes[path.relative_to(out).as_posix()] = path.stat().st_size
    (out / MARKER).write_text(json.dumps({"seed": seed, "version": VERSION, "files": sizes}, indent=1) + "\n")


def _write_scenes(scenes: list[Scene], out: str, seed: int, workers: int) -> Iterator[list[Record]]:
    """Write the file of every scene, in ``workers`` processes, and yield the records of each scene."""
    if workers == 1:
        for scene in scenes:
            yield write_scene(scene, out, seed)
        return
    # a forked child of a process with threads (torch) may hang, a spawned one does not
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write_scene, scenes, repeat(out), repeat(seed), chunksize=16)


def write_scene(scene: Scene, out: str, seed: int) -> list[Record]:
    """Write the file of a scene to the corpus folder and return its records."""
    path = Path(out) / _name_media(scene)[1]
    if scene.is_still:
        Image.fromarray(render_frames(scene)[0]).save(path)
    elif path.suffix == ".wav":
        write_wav(path, synthesize_waveform(scene))
    else:
        frames = render_frames(scene) if scene.has_video else None
        waveform = synthesize_waveform(scene) if scene.has_audio else None
        _write_av(path, frames, waveform, scene.fps)
    return build_records(scene, seed)


def build_records(scene: Scene, seed: int) -> list[Record]:
    """Build the records of a scene; detailed questions about faces come last.

    >>> build_records(build_scenes(0)[0], 0)[0]["id"]
    'train_talk_000_0_emotion'
    """
    # the generators depend on the scene alone, not on the order of the processes
    texts = build_conversations(scene, np.random.default_rng((seed, 3, scene.seed)))
    texts += build_closeups(scene, np.random.default_rng((seed, 4, scene.seed)))
    return add_media(scene, texts)


def add_media(scene: Scene, texts: Sequence[Record]) -> list[Record]:
    """Return the records of a scene with ids, the name of its file and the boxes of its face.

    Args:
        scene: the clip.
        texts: see ``build_record``.
    """
    key, name = _name_media(scene)
    faces = _list_face_boxes(scene)
    records: list[Record] = []
    for index, text in enumerate(texts):
        record = {"id": f"{scene.id}_{index}_{text['task']}", key: name, **text}
        if faces:
            record["faces"] = faces
        records.append(record)
    return records


def _name_media(scene: Scene) -> tuple[str, str]:
    """Return the record key of a scene's file, and the file's path relative to the corpus folder."""
    if scene.is_still:
        return "image", f"media/{scene.id}.png"
    if scene.has_video:
        return "video", f"media/{scene.id}.mp4"
    return "audio", f"media/{scene.id}.{'wav' if scene.seed % 2 else 'm4a'}"


def _list_face_boxes(scene: Scene) -> list[dict[str, Any]]:
    """List the bounding boxes of the main face twice a second, without times at which it is not visible."""
    boxes: list[dict[str, Any]] = []
    for t in list_times(scene):
        box = compute_face_box(scene, scene.duration / 2 if scene.is_still else t)
        if box is not None:
            boxes.append({"time": t, "box": list(box)})
    return boxes


def write_wav(path: Path, samples: Float32[np.ndarray, " S"]) -> None:
    """Write a waveform `[samples]` as 16-bit mono wav."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def _write_av(
    path: Path,
    frames: UInt8[np.ndarray, "T H W 3"] | None,
    samples: Float32[np.ndarray, " S"] | None,
    fps: int,
) -> None:
    """Write frames `[T H W 3]` as h264 and a waveform `[samples]` as aac; either may be missing.

    One thread and bit-exact flags: the same scene gives the same bytes, whatever the machine is doing.
    """
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as file:
        # both streams must exist before the first packet is written
        video = None if frames is None else _add_video_stream(file, frames, fps)
        audio = None if samples is None else _add_audio_stream(file)
        if video is not None and frames is not None:
            for frame in frames:
                file.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            file.mux(video.encode(None))
        if audio is not None and samples is not None:
            for start in range(0, len(samples), 1024):
                block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
                file.mux(audio.encode(block))
            file.mux(audio.encode(None))


def _add_video_stream(file: Any, frames: UInt8[np.ndarray, "T H W 3"], fps: int) -> Any:
    stream = file.add_stream("libx264", rate=fps)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuv420p"
    # with the macroblock tree x264's bytes differ from run to run at widths such as 160 (measured); without
    # "cpu-independent" they may differ between processors
    exact = {"x264-params": "mbtree=0:cpu-independent=1"}
    stream.options = {"crf": "20", "preset": "veryfast", **exact}
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream


def _add_audio_stream(file: Any) -> Any:
    stream = file.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
    stream.bit_rate = 64000
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream
