"""Small media of every kind, written with PyAV, records of them, and stand-ins for the parts of a model."""

import json
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

from omnihuman.build import compose_part
from omnihuman.data.module import OmniData
from omnihuman.source.jsonl import JsonlSource
from omnihuman.template import parse_template

CHATML = parse_template(compose_part("llm/template", "chatml"))
FPS = 25
X264_OPTIONS = {"g": "12", "bf": "2", "preset": "ultrafast", "b-adapt": "0"}


def draw_frame(number: int, width: int, height: int) -> np.ndarray:
    """Return a frame that is different for every number: a bright moving bar on noise, `[H W 3]`."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    pixels[:, (3 * number) % width :][:, :4] = (255, 5 * number % 256, 128)
    return pixels


def write_clip(
    path: Path,
    num_frames: int = 50,
    seconds: float = 2.0,
    *,
    size: tuple[int, int] = (64, 48),
    video_codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    audio_codec: str = "aac",
    sample_rate: int = 48000,
    layout: str = "stereo",
    delay: float = 0.0,
    pts: Callable[[int], int] | None = None,
    container: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write a clip of ``num_frames`` and ``seconds`` of audio (0: no stream); audio starts ``delay`` seconds later."""
    with av.open(str(path), "w", options=dict(container or {})) as out:
        video = audio = None
        if num_frames:
            defaults = X264_OPTIONS if "26" in video_codec else {}
            video = out.add_stream(video_codec, rate=FPS, options=defaults | dict(options or {}))
            video.width, video.height = size
            video.pix_fmt = pix_fmt
            video.thread_type = "NONE"
        if seconds:
            audio = out.add_stream(audio_codec, rate=sample_rate, layout=layout)
        if video is not None:
            _write_frames(out, video, num_frames, pts)
        if audio is not None:
            tone = _synthesize(seconds, sample_rate, layout)
            _write_audio(out, audio, tone, round(delay * sample_rate))
    return path


def _write_frames(out: Any, video: Any, num_frames: int, pts: Callable[[int], int] | None) -> None:
    for number in range(num_frames):
        frame = av.VideoFrame.from_ndarray(draw_frame(number, video.width, video.height), format="rgb24")
        frame.pts = number if pts is None else pts(number)
        out.mux(video.encode(frame))
    out.mux(video.encode(None))


def _synthesize(seconds: float, sample_rate: int, layout: str) -> av.AudioFrame:
    """Return a rising tone, the same in all channels."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = (0.4 * np.sin(2 * np.pi * (200 + 150 * t) * t)).astype(np.float32)
    channels = np.stack([tone] * len(av.AudioLayout(layout).channels))
    frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
    frame.sample_rate = sample_rate
    frame.pts = 0
    return frame


def _write_audio(out: Any, audio: Any, waveform: av.AudioFrame, delay: int) -> None:
    resampler = av.AudioResampler(
        format=audio.codec_context.format, layout=waveform.layout, rate=waveform.sample_rate, frame_size=1024
    )
    for block in [*resampler.resample(waveform), *resampler.resample(None)]:
        block.pts += delay
        out.mux(audio.encode(block))
    out.mux(audio.encode(None))


def decode_frames(path: Path) -> list[tuple[float, Tensor]]:
    """Return all frames `[3 H W]` of a sequential decode, each with its time in seconds."""
    frames = []
    with av.open(str(path)) as container:
        begin = (container.start_time or 0) / av.time_base
        for frame in container.decode(video=0):
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            frames.append((frame.time - begin, pixels))
    return frames


def decode_audio(path: Path) -> Tensor:
    """Return all audio of a sequential decode as 16 kHz mono, every block at its time stamp."""
    mono = av.AudioResampler(format="fltp", layout="mono")
    times, blocks = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            for block in mono.resample(frame):
                times.append(frame.time)
                blocks.append(block)
    sample_rate = blocks[0].sample_rate
    offsets = [round((time - times[0]) * sample_rate) for time in times]
    native = np.zeros((1, offsets[-1] + blocks[-1].samples), np.float32)
    for offset, block in zip(offsets, blocks, strict=True):
        native[0, offset : offset + block.samples] = block.to_ndarray()[0]
    frame = av.AudioFrame.from_ndarray(native, format="fltp", layout="mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
    resampled = [block.to_ndarray()[0] for block in [*resampler.resample(frame), *resampler.resample(None)]]
    return torch.from_numpy(np.concatenate(resampled))


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of valid and invalid files. Tests do not change it."""
    root = tmp_path_factory.mktemp("media")
    talk = write_clip(root / "talk.mp4", container={"movflags": "+faststart"})
    late = write_clip(root / "late.mp4")
    write_clip(root / "silent.mp4", seconds=0)
    write_clip(root / "one_frame.mp4", num_frames=1, seconds=0)
    write_clip(root / "tone.wav", num_frames=0, audio_codec="pcm_s16le", sample_rate=16000, layout="mono")
    write_clip(root / "tone.m4a", num_frames=0)
    with wave.open(str(root / "no_samples.wav"), "wb") as no_samples:
        no_samples.setparams((1, 2, 16000, 0, "NONE", ""))
    Image.fromarray(draw_frame(1, 40, 30)).save(root / "image.png")
    Image.fromarray(draw_frame(2, 40, 30)).save(root / "image.jpg")
    for clip, name in ((talk, "cut_front.mp4"), (late, "cut_back.mp4")):
        data = clip.read_bytes()
        (root / name).write_bytes(data[: len(data) * 6 // 10])
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("plain text, not a video " * 40)
    (root.parent / "outside.mp4").write_bytes(talk.read_bytes())
    (root / "link.mp4").symlink_to(root.parent / "outside.mp4")
    return root


@pytest.fixture  # not shared: tests give it a chat template
def tokenizer(tokenizer_folder: str) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_folder)


def _resize(frames: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(frames.float(), (8, 8)).to(torch.uint8)


def _split_windows(waveform: Tensor) -> Tensor:
    return waveform[: len(waveform) // 160 * 160].view(-1, 160)


def _encode_text(text: str) -> Tensor:
    return torch.tensor([1, *text.encode()[:8]])


TRANSFORMS = {
    "video": ("frames", _resize),
    "audio": ("waveform", _split_windows),
    "instruction": ("instruction", _encode_text),
}
WITH_FACES = {**TRANSFORMS, "face": ("faces", _resize)}


def count_tokens(amounts: Mapping[str, int]) -> dict[str, int]:
    """Return 4 tokens per frame, and one per 0.1 s of audio."""
    return {"video": 4 * amounts.get("frames", 0), "audio": -(-amounts.get("waveform", 0) // 1600)}


@pytest.fixture
def connect_args(tokenizer: Any) -> tuple[Any, ...]:
    """Return the arguments of ``OmniData.connect``."""
    return TRANSFORMS, count_tokens, tokenizer, CHATML


def write_records(path: Path, count: int, prefix: str = "r", broken: int | None = None, **fields: Any) -> str:
    """Write ``count`` records of two clips; line ``broken`` (from 1) is no valid JSON."""
    lines = []
    for number in range(count):
        question = {"from": "human", "value": "<video>\n<audio>\nWho?" + " Well?" * (number % 4)}
        turns = [question, {"from": "gpt", "value": f"Number {number}."}]
        entry = {"id": f"{prefix}{number}", "video": ("talk.mp4", "late.mp4")[number % 2], "conversations": turns}
        lines.append(json.dumps(entry | {"start": 0.1 * (number % 5), "end": 1.0} | fields))
    if broken is not None:
        lines.insert(broken - 1, "{broken")
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def build_data(media_root: Path, tmp_path: Path, connect_args: Any) -> Callable[..., OmniData]:
    """Return a function that builds the data of a run, by default of 13 records."""
    defaults = {"num_frames": 2, "batch_size": 4, "max_tokens": 700, "num_workers": 0, "source": JsonlSource}

    def build(records: Any = None, **options: Any) -> OmniData:
        if records is None:
            records = write_records(tmp_path / "train.jsonl", 13)
        data = OmniData(records, str(media_root), **(defaults | options))
        data.connect(*connect_args)
        return data

    return build
