"""Features on disk: what they are named after, who makes them, and what happens when they are broken."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnihuman.data.face import FaceInput
from omnihuman.data.features import FeatureCache, FeatureStore, weights_hash
from omnihuman.data.module import OmniData
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample
from omnihuman.encoder.base import Encoder
from omnihuman.model.omni import read
from omnihuman.types import Batch, Features, Layout, Signal

from .conftest import TRANSFORMS, layouts, write_clip
from .test_module import write


class Eye(Encoder):
    """Pixels of a frame through one matrix; the pixels themselves are a level."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.matrix, self.scale, self.calls = nn.Linear(48, 5), scale, [0]

    def layout(self, amount: int) -> Layout:
        return Layout(amount, 4, (2, 2))

    def forward(self, signal: Signal) -> Features:
        self.calls[0] += 1
        pixels = signal.values.float().reshape(*signal.mask.shape, 4, 48) / 255
        tokens = self.scale * self.matrix(pixels) * signal.mask[..., None, None]
        level = Features.of(pixels * signal.mask[..., None, None], signal.mask, (2, 2))
        return replace(Features.of(tokens, signal.mask, (2, 2)), levels=(level,))


class Ear(nn.Module):
    def forward(self, signal: Signal) -> Features:
        return Features.of(signal.values[:, :, None, :3] * signal.mask[..., None, None], signal.mask)


WITH_FACES = {**TRANSFORMS, "face": ("faces", TRANSFORMS["video"][1])}
Make = Callable[..., OmniData]


@pytest.fixture
def root(media_root: Path, tmp_path: Path) -> Path:
    for name in ("talk.mp4", "late.mp4", "cut_front.mp4"):
        shutil.copy(media_root / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def make(root: Path, tokenizer: Any) -> Make:
    def made(
        records: str | None = None, eye: nn.Module | None = None, levels: bool = True, on: bool = True, **options: Any
    ) -> OmniData:
        records = write(root / "train.jsonl", 6) if records is None else records
        given = {
            "num_frames": 2,
            "batch_size": 6,
            "max_tokens": 999,
            "num_workers": 0,
            "face": FaceInput("whole"),
        } | options
        data = OmniData(records, str(root), features=str(root / "kept") if on else None, **given)
        frozen = {"video": (eye or Eye(), levels), "audio": (Ear(), False)}
        data.connect(WITH_FACES, layouts, tokenizer, frozen=frozen | {"face": (Eye(1), False)})
        data.setup()
        return data

    return made


def entries(root: Path) -> set[str]:
    return {path.name for path in (root / "kept").glob("??/*")}


def first(data: OmniData) -> Batch:
    return data.train_samples[Row(tuple(range(len(data.train_samples))), 1)]


def test_a_batch_from_the_store_is_what_the_encoders_would_have_made(make: Make, root: Path) -> None:
    boxes = [{"time": 0.0, "box": [2, 2, 40, 40]}, {"time": 0.6, "box": None}]
    records = write(root / "train.jsonl", 6, faces=boxes)
    kept, plain = (first(make(records, on=on, face=FaceInput())) for on in (True, False))
    assert set(kept.signals) == {"instruction"} and set(kept.features) == {"video", "audio", "face"}
    assert kept.meta == plain.meta and kept.meta[0]["times"]
    assert kept.has_gaps and not plain.has_gaps and plain.signals["face"].has_gaps
    for name, encoder in {"video": Eye(), "audio": Ear(), "face": Eye(1)}.items():
        want, have = encoder(plain.signals[name]), kept.features[name]
        torch.testing.assert_close(have.tokens, want.tokens)
        assert torch.equal(have.mask, want.mask) and have.grid == want.grid
    torch.testing.assert_close(kept.features["video"].levels[0].tokens, Eye()(plain.signals["video"]).levels[0].tokens)
    assert not kept.features["face"].levels, "nothing reads them"
    moved = kept.to("meta").features["video"]
    assert moved.tokens.is_meta and moved.mask.is_meta and moved.levels[0].tokens.is_meta


def test_every_clip_is_encoded_once_whatever_is_asked_about_it(make: Make, root: Path) -> None:
    lines = write(root / "a.jsonl", 3, "a", start=0.0) and write(root / "b.jsonl", 3, "b", start=0.0)
    eye, views = Eye(), ["video_audio", "video", "audio"]
    data = make([str(root / "a.jsonl"), lines], eye, views=views)
    assert len(data.train_samples) == 18
    assert eye.calls[0] == 2 + 2, "two files, and a blank moment for training and for validation"
    again = Eye()
    make([str(root / "a.jsonl"), lines], again, views=views)
    assert again.calls[0] == 2


def test_what_decides_a_feature_decides_its_name(make: Make, root: Path) -> None:
    def new(records: str | None = None, **options: Any) -> int:
        before = entries(root)
        make(records or write(root / "train.jsonl", 2), **options)
        return len(entries(root) - before)

    boxes = [{"time": 0.0, "box": [2, 2, 40, 40]}]
    assert new() == 6 and new() == 0
    assert new(write(root / "other.jsonl", 2, "other", task="emotion")) == 0, "another question"
    assert new(eye=Eye(seed=3)) == 2 and new(eye=Eye(scale=2.0)) == 2 and new(levels=False) == 2
    assert new(num_frames=3) == 4
    assert new(write(root / "boxes.jsonl", 2, faces=boxes)) == 2, "other boxes, though nobody looks at them"
    assert new(str(root / "boxes.jsonl"), face=FaceInput()) == 2
    assert new(str(root / "boxes.jsonl"), face=FaceInput(margin=0.5)) == 2
    assert new(write(root / "boxes.jsonl", 2, faces=[*boxes, {"time": 0.9, "box": None}]), face=FaceInput()) == 2
    assert new(write(root / "train.jsonl", 2, end=0.9)) == 6
    write_clip(root / "talk.mp4", 40)
    assert new() == 3, "other bytes"
    os.utime(root / "talk.mp4")
    assert new() == 0, "the same bytes at another time"


def test_an_encoder_is_named_after_options_that_are_no_weights() -> None:
    assert weights_hash(Eye()) == weights_hash(Eye()) == weights_hash(Eye().train())
    assert weights_hash(Eye()) != weights_hash(Eye(scale=2.0))
    other = Eye()
    with torch.no_grad():
        other.matrix.bias[0] += 1e-6
    assert weights_hash(Eye()) != weights_hash(other)
    norm, moved = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    moved.running_mean += 1
    assert weights_hash(norm) != weights_hash(moved)


def test_precision_is_part_of_the_name(make: Make, root: Path) -> None:
    samples = make(on=False).train_samples
    for precision in ("32-true", "bf16-mixed"):
        cache = FeatureCache(FeatureStore(root / "kept"), {"video": (Eye(), True)}, precision=precision)
        samples.kept = None
        cache.keep(samples, lambda lenient, plan: [lenient[row] for row in plan(0)])
        assert len(entries(root)) == (6 if precision == "32-true" else 12)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_broken_file_is_made_again(make: Make, root: Path, caplog: pytest.LogCaptureFixture, size: int) -> None:
    want = first(make())
    for path in (root / "kept").glob("??/*"):
        path.write_bytes(path.read_bytes()[:size])
    with caplog.at_level(logging.WARNING):
        have = first(make())
    assert "is broken" in caplog.text and "made again" in caplog.text
    assert all(torch.equal(have.features[name].tokens, want.features[name].tokens) for name in want.features)


def test_what_breaks_while_training_is_decoded_instead(make: Make, root: Path) -> None:
    data = make()
    whole = first(data)
    data.train_samples.kept.store._place(data.train_samples.kept.keys[1]["video"]).write_bytes(b"{")
    mixed = first(data)
    assert mixed.signals["video"].mask.any(dim=1).tolist() == [number == 1 for number in range(6)]
    assert mixed.features["video"].mask.any(dim=(1, 2)).tolist() == [number != 1 for number in range(6)]
    for batch in (whole, mixed):
        made = read(Eye(), "video", batch)
        torch.testing.assert_close(made.tokens, whole.features["video"].tokens)
        torch.testing.assert_close(made.levels[0].tokens, whole.features["video"].levels[0].tokens)
        assert torch.equal(made.mask, whole.features["video"].mask)


def test_rows_without_the_modality_are_blank(make: Make) -> None:
    data = make(views=["audio"])
    blank, heard = data.train_samples[Row((), 1)], data.train_samples[Row((0,), 1)]
    for batch in (blank, heard):
        assert batch.features["video"].tokens.shape == (1, 1, 4, 5) and not batch.features["video"].mask.any()
        assert batch.features["video"].levels[0].tokens.shape == (1, 1, 4, 12 * 4)
        assert "video" not in batch.signals
    assert heard.features["audio"].mask.all() and not blank.has_gaps


def test_a_bad_sample_fails_in_its_own_turn(make: Make, root: Path) -> None:
    text = Path(write(root / "train.jsonl", 3)).read_text().replace("late.mp4", "cut_front.mp4")
    (root / "train.jsonl").write_text(text.replace('"end": 1.0', '"end": 2.0'))
    data = make(str(root / "train.jsonl"))
    with pytest.raises(BadSample, match="cut_front"):
        first(data)
    lenient = first(make(str(root / "train.jsonl"), on_bad_sample="skip"))
    assert len(lenient.meta) == 2 and [skip["id"] for skip in lenient.skipped] == ["r1"]
    assert set(lenient.signals) == {"instruction"}
    assert not (root / "quarantine.jsonl").exists()


def test_ranks_share_the_work_without_a_word(make: Make, root: Path) -> None:
    samples, eyes = make(on=False).train_samples, (Eye(), Eye())
    for rank, eye in enumerate(eyes):
        samples.kept = None
        cache = FeatureCache(FeatureStore(root / "kept"), {"video": (eye, True)})
        cache.keep(samples, lambda lenient, plan: [lenient[row] for row in plan(0)], (2, rank))
    assert [eye.calls[0] for eye in eyes] == [1 + 3, 1 + 3] and len(entries(root)) == 6


def test_validation_questions_read_the_store(make: Make, root: Path) -> None:
    val = write(root / "val.jsonl", 4, "v", task="emotion")
    eye = Eye()
    data = make(eye=eye, val_records=val)
    calls = eye.calls[0]
    asked = list(data.prompts(["emotion"], "video", limit=3, batch=2))
    assert [set(batch.signals) for batch in asked] == [{"instruction"}] * 2
    assert eye.calls[0] == calls + 1, "a blank moment: validation has seen the clips"


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    store, folder = FeatureStore(tmp_path / "kept"), tmp_path / "clip"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"one")
    one = store.content(folder)
    (folder / "2.png").write_bytes(b"two")
    assert store.content(folder) != one
    (folder / "2.png").unlink()
    assert store.content(folder) == one


def test_features_come_back_as_they_went(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    level = Features(torch.randn(1, 3, 4, 2), torch.rand(1, 3, 4) > 0.5, (2, 2))
    whole = Features(torch.randn(1, 3, 1, 5).bfloat16(), torch.rand(1, 3, 1) > 0.5, None, (level,))
    store.save("ab12", whole, [0.1, 1 / 3, 2.0])
    back, times = store.load("ab12") or (whole, [])
    pairs: list[tuple[Tensor, Tensor]] = [
        (back.tokens, whole.tokens), (back.mask, whole.mask), (back.levels[0].tokens, level.tokens),
        (back.levels[0].mask, level.mask),
    ]  # fmt: skip
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in pairs)
    assert times == [0.1, 1 / 3, 2.0] and (back.grid, back.levels[0].grid) == (None, (2, 2))
    assert not list(tmp_path.rglob("*.partial"))
