"""Small media of every kind, written with PyAV, and a model's side of the data plane without a model."""

import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

RATE = 25


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A frame that no other number gives: a bright bar that walks, on noise."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    pixels[:, (3 * number) % width :][:, :4] = (255, 5 * number % 256, 128)
    return pixels


def write_clip(
    path: Path,
    frames: int = 50,
    seconds: float = 2.0,
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    audio: str = "aac",
    rate: int = 48000,
    layout: str = "stereo",
    delay: float = 0.0,
    pts: Callable[[int], int] | None = None,
    container: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """A clip of ``frames`` pictures and ``seconds`` of sound (0: none); the sound begins ``delay`` seconds later."""
    with av.open(str(path), "w", options=dict(container or {})) as out:
        video = sound = None
        if frames:
            x264 = {"g": "12", "bf": "2", "preset": "ultrafast", "b-adapt": "0"} if "26" in codec else {}
            video = out.add_stream(codec, rate=RATE, options=x264 | dict(options or {}))
            video.width, video.height, video.pix_fmt, video.thread_type = *size, pix_fmt, "NONE"
        if seconds:
            sound = out.add_stream(audio, rate=rate, layout=layout)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = number if pts is None else pts(number)
            out.mux(video.encode(frame))
        if video is not None:
            out.mux(video.encode(None))
        if sound is not None:
            t = np.arange(round(seconds * rate)) / rate
            tone = (0.4 * np.sin(2 * np.pi * (200 + 150 * t) * t)).astype(np.float32)
            tone = np.stack([tone] * len(av.AudioLayout(layout).channels))
            step = 1024
            resampler = av.AudioResampler(format=sound.codec_context.format, layout=layout, rate=rate, frame_size=step)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                piece.pts += round(delay * rate)
                out.mux(sound.encode(piece))
            out.mux(sound.encode(None))
    return path


def plain_frames(path: Path) -> list[tuple[float, Tensor]]:
    """Every frame in the order of a plain decode, with the second at which it is shown."""
    with av.open(str(path)) as container:
        zero = (container.start_time or 0) / av.time_base
        return [
            (frame.time - zero, torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
            for frame in container.decode(video=0)
        ]


def plain_sound(path: Path) -> Tensor:
    """All sound at 16 kHz mono, decoded from the beginning, every block where its time stamp says."""
    mono = av.AudioResampler(format="fltp", layout="mono")
    with av.open(str(path)) as container:
        blocks = [(frame.time, piece) for frame in container.decode(audio=0) for piece in mono.resample(frame)]
    rate, zero = blocks[0][1].sample_rate, blocks[0][0]
    places = [round((time - zero) * rate) for time, _ in blocks]
    native = np.zeros((1, places[-1] + blocks[-1][1].samples), np.float32)
    for place, (_, piece) in zip(places, blocks, strict=True):
        native[0, place : place + piece.samples] = piece.to_ndarray()[0]
    frame = av.AudioFrame.from_ndarray(native, format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
    pieces = [piece.to_ndarray()[0] for given in (frame, None) for piece in resampler.resample(given)]
    return torch.from_numpy(np.concatenate(pieces))


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad files; nothing in it is ever changed."""
    root = tmp_path_factory.mktemp("media")
    front, back = {"movflags": "+faststart"}, {}
    talk = write_clip(root / "talk.mp4", container=front)
    late = write_clip(root / "late.mp4", container=back)
    write_clip(root / "silent.mp4", seconds=0)
    write_clip(root / "one.mp4", frames=1, seconds=0)
    write_clip(root / "sound.wav", frames=0, audio="pcm_s16le", rate=16000, layout="mono")
    write_clip(root / "sound.m4a", frames=0)
    with wave.open(str(root / "nothing.wav"), "wb") as nothing:
        nothing.setparams((1, 2, 16000, 0, "NONE", ""))
    Image.fromarray(picture(1, 40, 30)).save(root / "still.png")
    Image.fromarray(picture(2, 40, 30)).save(root / "still.jpg")
    data = talk.read_bytes()
    (root / "cut_front.mp4").write_bytes(data[: len(data) * 6 // 10])
    data = late.read_bytes()
    (root / "cut_back.mp4").write_bytes(data[: len(data) * 6 // 10])
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("not a film, only these words " * 40)
    (root.parent / "outside.mp4").write_bytes(talk.read_bytes())
    (root / "link.mp4").symlink_to(root.parent / "outside.mp4")
    return root


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: str) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_folder)


def _frames(frames: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(frames.float(), (8, 8)).to(torch.uint8)


def _mel(waveform: Tensor) -> Tensor:
    return waveform[: len(waveform) // 160 * 160].view(-1, 160)


def _words(text: str) -> Tensor:
    return torch.tensor([1, *text.encode()[:8]])


TRANSFORMS = {"video": ("frames", _frames), "audio": ("waveform", _mel), "instruction": ("instruction", _words)}


def layouts(amounts: Mapping[str, int]) -> dict[str, int]:
    """Four tokens a frame, one for each tenth of a second of sound."""
    return {"video": 4 * amounts.get("frames", 0), "audio": -(-amounts.get("waveform", 0) // 1600)}


@pytest.fixture(scope="session")
def model_side(tokenizer: Any) -> tuple[Any, Any, Any]:
    """What ``OmniData.connect`` is given."""
    return TRANSFORMS, layouts, tokenizer
