"""Time steps made frame by frame equal those of the whole clip; no frame of the file stays in memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.decode import frames as decoding
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import FaceDetection, Record
from omnihuman.nn.frames import SquareFrames
from omnihuman.nn.tiles import Tiles

from .conftest import CHATML, count_tokens, draw_frame, write_clip

SIDE = 32
CLIPS = {"wide": (92, 46), "tall": (46, 82), "odd": (62, 46), "square": (48, 48), "small": (24, 16)}
BOXES = tuple(FaceDetection(0.2 * number, ((2.0, 1.0, 20.0, 14.0 + number),)) for number in range(4))
ENCODERS = {
    "video": ("frames", SquareFrames(SIDE)),
    "same": ("frames", SquareFrames(SIDE)),
    "squash": ("frames", SquareFrames(SIDE, "squash")),
    "crop": ("frames", SquareFrames(SIDE, "crop")),
    "face": ("faces", SquareFrames(SIDE, "squash")),
    "padded": ("faces", SquareFrames(SIDE)),
}
"""Field and transform of encoders of one model."""


def double_speed(frames: Tensor) -> Tensor:
    """Transform a whole clip: the result for one frame depends on the others."""
    return (frames.flip(0) // 2)[..., :8, :8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("steps")
    for name, size in CLIPS.items():
        write_clip(root / f"{name}.mp4", 24, seconds=0, size=size, options={"g": "12", "bf": "2"})
    (root / "images").mkdir()
    for number, size in enumerate([(50, 30), (30, 50), (40, 40)]):
        Image.fromarray(draw_frame(number, *size)).save(root / "images" / f"{number}.png")
    Image.fromarray(draw_frame(5, 80, 30)).save(root / "still.png")
    return root


@pytest.fixture
def plan(folder: Path, tokenizer: Any) -> Callable[..., Samples]:
    """Return a function that plans one sample of a file."""

    def plan(name: str, kind: str = "video", transforms: Any = ENCODERS, num_frames: int = 5, **keys: Any) -> Samples:
        options = {key: keys.pop(key) for key in ("tiles", "exact") if key in keys}
        messages = (("user", f"<{kind}>\nWho?"), ("assistant", "Ann."))
        record = replace(Record("1", folder / name, kind, messages, ("video",)), **keys)
        return Samples([record], transforms, count_tokens, Chat(tokenizer, CHATML), num_frames=num_frames, **options)

    return plan


def assert_equal_to_the_whole_clip(samples: Samples) -> dict[str, Tensor]:
    """Compare a loaded sample with the transforms of all of its frames; return its signals."""
    planned = samples.planned[0]
    expected = samples.to_packable(planned, samples.sample(planned))
    loaded = samples._load(planned, 0, 0)
    for part, other in zip((loaded, *loaded.more), (expected, *expected.more), strict=True):
        assert part.signals.keys() == other.signals.keys() and part.masks.keys() == other.masks.keys()
        for name, signal in part.signals.items():
            assert torch.equal(signal, other.signals[name]), name
        for name, mask in part.masks.items():
            assert torch.equal(mask, other.masks[name]), name
    assert loaded.meta["times"] == expected.meta["times"]
    return loaded.signals


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip(name: str, plan: Any) -> None:
    signals = assert_equal_to_the_whole_clip(plan(f"{name}.mp4", faces=BOXES))
    assert signals["video"].shape == signals["face"].shape == (5, 3, SIDE, SIDE)
    assert not torch.equal(signals["video"], signals["face"])


SOURCES = {
    "folder": {"name": "images", "fps": 1.0},
    "still": {"name": "still.png", "kind": "image", "faces": BOXES[:1]},
    "tiles": {"name": "still.png", "kind": "image", "tiles": Tiles(16, ((1, 2), (2, 1))), "transforms": "video"},
    "two images": {"name": "still.png", "kind": "image", "more_images": "images/1.png"},
    "two clips": {"name": "wide.mp4", "second_clip": "tall.mp4", "faces": BOXES},
    "repeated frames": {"name": "odd.mp4", "end": 0.1, "faces": BOXES},
    "no face": {"name": "odd.mp4", "faces": ()},
    "a face for a while": {"name": "odd.mp4", "faces": (*BOXES[:2], FaceDetection(0.5, ()))},
    "faces alone": {"name": "odd.mp4", "faces": BOXES, "transforms": "face"},
    "hidden faces": {"name": "odd.mp4", "faces": BOXES, "hidden": frozenset({"faces"})},
    "hidden frames": {"name": "odd.mp4", "faces": BOXES, "hidden": frozenset({"frames"})},
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_of_frames(name: str, plan: Any, folder: Path) -> None:
    options = dict(SOURCES[name])
    if "transforms" in options:
        options["transforms"] = {options["transforms"]: ENCODERS[options["transforms"]]}
    if "second_clip" in options:
        options["second_clip"] = folder / options["second_clip"]
    if "more_images" in options:
        options["more_images"] = (folder / options["more_images"],)
        options["transforms"] = {"video": ENCODERS["video"]}
    assert assert_equal_to_the_whole_clip(plan(**options))


def test_a_transform_of_the_whole_clip_gets_all_frames(plan: Any) -> None:
    signals = assert_equal_to_the_whole_clip(plan("odd.mp4", transforms={"video": ("frames", double_speed)}))
    assert signals["video"].shape == (5, 3, 8, 8)
    frames = plan("odd.mp4").sample(plan("odd.mp4").planned[0]).frames
    assert torch.equal(signals["video"], double_speed(frames))


class Counter(TorchDispatchMode):
    """Counts the bytes that operations of torch write, and the most that one of them writes."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {value.untyped_storage().data_ptr() for value in args if isinstance(value, Tensor)}
        if not isinstance(result, Tensor):
            return result
        is_view = result.untyped_storage().data_ptr() in inputs
        if not is_view or func._schema.name in ("aten::copy_", "aten::fill_"):
            self.total += result.nbytes
            self.largest = max(self.largest, result.nbytes)
        return result


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the frames that leave the decoder, those that are converted, and the bytes of these."""
    counts = {"decoded": 0, "converted": 0, "bytes": 0}
    decode, convert = decoding._decode_needed, decoding._to_tensor

    def count_decoded(*args: Any) -> Iterator[Any]:
        for frame in decode(*args):
            counts["decoded"] += 1
            yield frame

    def count_converted(*args: Any) -> Tensor:
        pixels = convert(*args)
        counts["converted"] += 1
        counts["bytes"] += pixels.nbytes
        return pixels

    monkeypatch.setattr(decoding, "_decode_needed", count_decoded)
    monkeypatch.setattr(decoding, "_to_tensor", count_converted)
    return counts


def test_work_per_sample(plan: Any, folder: Path, decoded: dict[str, int]) -> None:
    """Guard of the loader's speed: counts instead of seconds."""
    size, num_frames = (192, 108), 8
    options = {"g": "12", "bf": "2", "b-adapt": "0", "x264-params": "scenecut=0:b-pyramid=0"}
    path = write_clip(folder / "guard.mp4", 48, seconds=0, size=size, options=options)
    samples = plan(path.name, transforms={"video": ENCODERS["video"]}, num_frames=num_frames)
    assert samples.blanks
    with Counter() as counter:
        signal = samples._load(samples.planned[0], 0, 0).signals["video"]
    native = 3 * size[0] * size[1]
    assert decoded["converted"] == num_frames and decoded["bytes"] == num_frames * native
    assert decoded["decoded"] <= 16 + num_frames, "two of three frames are skipped unless they are selected"
    assert counter.largest <= max(native, signal.nbytes), "no stack of frames of the file"
    across, padded = 3 * size[1] * SIDE, 3 * size[0] * SIDE
    assert counter.total <= num_frames * (2 * across + padded + signal[0].nbytes) + signal.nbytes


def test_nearly_exact_frames_are_scaled_while_they_are_converted(plan: Any, decoded: dict[str, int]) -> None:
    transforms = {"video": ENCODERS["video"], "crop": ENCODERS["crop"]}
    exact = plan("wide.mp4", transforms=transforms)[MicroBatch((0,), 1)].signals
    decoded.update(converted=0, bytes=0)
    nearly = plan("wide.mp4", transforms=transforms, exact=False)[MicroBatch((0,), 1)].signals
    assert decoded["bytes"] == 5 * 3 * (16 * 32 + 32 * 64), "no frame has the size of the file"
    for name, signal in nearly.items():
        difference = (signal.values.int() - exact[name].values.int()).abs()
        assert signal.values.shape == exact[name].values.shape
        assert 0 < difference.float().mean() < 10, name
    grey = (nearly["video"].values[0, 0] == 127).all(0).all(-1)
    assert grey.tolist() == [True] * 8 + [False] * 16 + [True] * 8
    assert plan("still.png", "image", exact=False)[MicroBatch((0,), 1)].signals["video"].mask.all()
    still = [plan("still.png", "image", exact=exact)[MicroBatch((0,), 1)].signals["video"].values for exact in (0, 1)]
    assert torch.equal(*still), "images are always exact"
