"""Small datasets in the official layouts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from omnihuman.benchmark.base import Prediction, Question


def write_clip(path: Path, frames: int, seconds: float) -> Path:
    """Write a file with video and audio streams, encoded by its suffix."""
    with av.open(str(path), "w") as out:
        video = audio = None
        if frames:
            video = out.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        if seconds:
            audio = out.add_stream("aac" if frames else "pcm_s16le", rate=16000, layout="mono")
        if video is not None:
            for number in range(frames):
                pixels = np.full((24, 32, 3), 9 * number % 256, np.uint8)
                out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux(video.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(round(seconds * 16000)) / 9)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate = 16000
            resampler = av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=16000, frame_size=1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of video and audio."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 25, 1.0)


@pytest.fixture(scope="session")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of video without audio."""
    return write_clip(tmp_path_factory.mktemp("mute") / "mute.mp4", 25, 0)


@pytest.fixture(scope="session")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of audio."""
    return write_clip(tmp_path_factory.mktemp("tone") / "tone.wav", 0, 1.0)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Path]:
    """Return a function that writes a folder of numbered frames."""

    def write(folder: Path, names: Sequence[str]) -> Path:
        folder.mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(np.full((12, 16, 3), number, np.uint8)).save(folder / name)
        return folder

    return write


@pytest.fixture(scope="session")
def answered() -> Callable[..., list[Prediction]]:
    """Return a function: questions and answers -> predictions."""

    def build(questions: Sequence[Question], answers: Sequence[str | None], benchmark: str = "") -> list[Prediction]:
        return [
            Prediction(benchmark, q.id, q.group, "", q.reference, answer, options=q.options, meta=q.meta)
            for q, answer in zip(questions, answers, strict=True)
        ]

    return build
