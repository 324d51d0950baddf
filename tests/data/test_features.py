"""The feature cache: keys, reuse, and broken files."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from omnihuman.data.face import FaceInput
from omnihuman.data.feature_store import FeatureStore
from omnihuman.data.features import FeatureCache, hash_weights
from omnihuman.data.module import OmniData
from omnihuman.data.packing import MicroBatch, Step
from omnihuman.data.record import BadSample
from omnihuman.encoder.base import Encoder
from omnihuman.modality import View
from omnihuman.model.streams import encode
from omnihuman.source.jsonl import JsonlSource
from omnihuman.training.precision import AutocastPrecision, ParameterPrecision, build_precision
from omnihuman.types import Batch, Batches, Features, Layout, Signal

from .conftest import CHATML, WITH_FACES, count_tokens, write_clip
from .test_module import write_records

BuildData = Callable[..., OmniData]
BOXES = [{"time": 0.0, "box": [2, 2, 40, 40]}]


class VideoEncoder(Encoder):
    """A linear layer over the pixels of a frame; the pixels themselves are a level."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(48, 5)
        self.scale = scale
        self.calls: list[int] = []  # not a number, which would be an option and part of the cache key

    def layout(self, amount: int) -> Layout:
        return Layout(amount, 4, (2, 2))

    def forward(self, signal: Signal) -> Features:
        self.calls.append(len(signal.values))
        pixels = signal.values.float().reshape(*signal.mask.shape, 4, 48) / 255
        tokens = self.scale * self.linear(pixels) * signal.mask[..., None, None]
        level = Features.of(pixels * signal.mask[..., None, None], signal.mask, (2, 2))
        return replace(Features.of(tokens, signal.mask, (2, 2)), levels=(level,))


class AudioEncoder(nn.Module):
    def forward(self, signal: Signal) -> Features:
        return Features.of(signal.values[:, :, None, :3] * signal.mask[..., None, None], signal.mask)


@pytest.fixture
def root(media_root: Path, tmp_path: Path) -> Path:
    for name in ("talk.mp4", "late.mp4", "cut_front.mp4"):
        shutil.copy(media_root / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def build_data(root: Path, tokenizer: Any) -> BuildData:
    """Return a function that builds the data of a run; its features are in the folder ``features``."""
    defaults = {
        "num_frames": 2,
        "batch_size": 6,
        "max_tokens": 999,
        "num_workers": 0,
        "face": FaceInput("whole"),
        "source": JsonlSource,
    }

    def build(
        records: Any = None,
        encoder: nn.Module | None = None,
        reads_levels: bool = True,
        use_cache: bool = True,
        trainer: Any = None,
        **options: Any,
    ) -> OmniData:
        if records is None:
            records = write_records(root / "train.jsonl", 6)
        folder = str(root / "features") if use_cache else None
        data = OmniData(records, str(root), features=folder, **(defaults | options))
        frozen = {
            "video": (encoder or VideoEncoder(), reads_levels),
            "audio": (AudioEncoder(), False),
            "face": (VideoEncoder(1), False),
        }
        data.connect(WITH_FACES, count_tokens, tokenizer, CHATML, frozen)
        data.trainer = trainer
        data.setup()
        return data

    return build


def list_keys(root: Path) -> set[str]:
    return {path.name for path in (root / "features").glob("??/*")}


def load_batch(data: OmniData) -> Batch:
    """Return all training samples as one batch."""
    return data.train_samples[MicroBatch(tuple(range(len(data.train_samples))), 1)]


def test_cached_features_equal_the_encoders_output(build_data: BuildData, root: Path) -> None:
    records = write_records(root / "train.jsonl", 6, faces=[*BOXES, {"time": 0.6, "box": None}])
    cached = load_batch(build_data(records, face=FaceInput()))
    plain = load_batch(build_data(records, use_cache=False, face=FaceInput()))
    assert set(cached.signals) == {"instruction"} and set(cached.features) == {"video", "audio", "face"}
    assert cached.meta == plain.meta and cached.meta[0]["times"]
    assert cached.has_gaps and not plain.has_gaps and plain.signals["face"].has_gaps
    for name, encoder in {"video": VideoEncoder(), "audio": AudioEncoder(), "face": VideoEncoder(1)}.items():
        expected, features = encoder(plain.signals[name]), cached.features[name]
        torch.testing.assert_close(features.tokens, expected.tokens)
        assert torch.equal(features.mask, expected.mask) and features.grid == expected.grid
    level = VideoEncoder()(plain.signals["video"]).levels[0]
    torch.testing.assert_close(cached.features["video"].levels[0].tokens, level.tokens)
    assert not cached.features["face"].levels, "no part reads them"
    moved = cached.to("meta").features["video"]
    assert moved.tokens.is_meta and moved.mask.is_meta and moved.levels[0].tokens.is_meta


def test_a_short_run_encodes_the_clips_of_its_steps_alone(build_data: BuildData, root: Path) -> None:
    files = [write_records(root / f"{name}.jsonl", 3, name, start=start) for name, start in (("a", 0.0), ("b", 0.5))]
    strategy = SimpleNamespace(precision_plugin=build_precision("32-true", "cpu"), root_device=torch.device("cpu"))
    options = {"batch_size": 1, "views": ["V"], "val_records": files[1]}
    for max_steps, limit, expected in ((1, 0, 1), (6, 0, 4), (0, 1, 1), (0, 1.0, 2), (-1, 0, 4)):
        trainer = SimpleNamespace(
            max_steps=max_steps, limit_val_batches=limit, world_size=1, global_rank=0, strategy=strategy
        )
        data = build_data(files, trainer=trainer, **options)
        assert len(list_keys(root)) == expected, (max_steps, limit)
        shutil.rmtree(root / "features")
        assert load_batch(data).signals or max_steps != 1, "what is not cached is decoded"


def test_each_clip_is_encoded_once_for_all_its_questions(build_data: BuildData, root: Path) -> None:
    records = [write_records(root / f"{name}.jsonl", 3, name, start=0.0) for name in "ab"]
    views = ["VAF", "VF", "A"]
    encoder = VideoEncoder()
    data = build_data(records, encoder, views=views)
    assert len(data.train_samples) == 18
    assert len(encoder.calls) == 2 + 2, "two files, and a blank time step for training and for validation"
    second = VideoEncoder()
    build_data(records, second, views=views)
    assert len(second.calls) == 2


def test_keys_depend_on_all_that_decides_features(build_data: BuildData, root: Path) -> None:
    def count_new(records: str | None = None, **options: Any) -> int:
        before = list_keys(root)
        build_data(records or write_records(root / "train.jsonl", 2), **options)
        return len(list_keys(root) - before)

    assert count_new() == 6 and count_new() == 0
    assert count_new(write_records(root / "other.jsonl", 2, "other", task="emotion")) == 0, "another question"
    assert count_new(encoder=VideoEncoder(seed=3)) == 2
    assert count_new(encoder=VideoEncoder(scale=2.0)) == 2
    assert count_new(reads_levels=False) == 2
    assert count_new(num_frames=3) == 4
    boxes_file = write_records(root / "boxes.jsonl", 2, faces=BOXES)
    assert count_new(boxes_file) == 2, "other boxes count even where faces are whole frames"
    assert count_new(boxes_file, face=FaceInput()) == 2
    assert count_new(boxes_file, face=FaceInput(margin=0.5)) == 2
    write_records(root / "boxes.jsonl", 2, faces=[*BOXES, {"time": 0.9, "box": None}])
    assert count_new(boxes_file, face=FaceInput()) == 2
    assert count_new(write_records(root / "train.jsonl", 2, end=0.9)) == 6
    write_clip(root / "talk.mp4", 40)
    assert count_new() == 3, "other bytes"
    os.utime(root / "talk.mp4")
    assert count_new() == 0, "the same bytes with another time stamp"


def test_the_hash_of_an_encoder_depends_on_options_weights_and_buffers() -> None:
    assert hash_weights(VideoEncoder()) == hash_weights(VideoEncoder()) == hash_weights(VideoEncoder().train())
    assert hash_weights(VideoEncoder()) != hash_weights(VideoEncoder(scale=2.0))
    changed = VideoEncoder()
    with torch.no_grad():
        changed.linear.bias[0] += 1e-6
    assert hash_weights(VideoEncoder()) != hash_weights(changed)
    norm, shifted = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    shifted.running_mean += 1
    assert hash_weights(norm) != hash_weights(shifted)


def load_plan(samples: Any, plan: Callable[[int], list[Step]]) -> list[Batches]:
    """Return the steps of epoch 0, without workers."""
    return [(samples[micro_batch],) for (micro_batch,) in plan(0)]


def test_keys_depend_on_the_precision(build_data: BuildData, root: Path) -> None:
    samples = build_data(use_cache=False).train_samples
    for precision, num_keys in (("32-true", 6), ("bf16-mixed", 12)):
        cache = FeatureCache(FeatureStore(root / "features"), {"video": (VideoEncoder(), True)}, precision=precision)
        samples.cached = None
        cache.fill(samples, load_plan)
        assert len(list_keys(root)) == num_keys


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_broken_file_is_computed_again(
    build_data: BuildData, root: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    expected = load_batch(build_data()).features
    for path in (root / "features").glob("??/*"):
        path.write_bytes(path.read_bytes()[:size])
    with caplog.at_level(logging.WARNING):
        features = load_batch(build_data()).features
    assert "is broken" in caplog.text and "computed again" in caplog.text
    for name in expected:
        assert torch.equal(features[name].tokens, expected[name].tokens)


def test_a_file_that_breaks_during_training_is_decoded_instead(build_data: BuildData, root: Path) -> None:
    data = build_data()
    intact = load_batch(data)
    index = data.train_samples.cached
    index.store._path(index.keys[1]["video"]).write_bytes(b"{")
    mixed = load_batch(data)
    assert mixed.signals["video"].mask.any(dim=1).tolist() == [number == 1 for number in range(6)]
    assert mixed.features["video"].mask.any(dim=(1, 2)).tolist() == [number != 1 for number in range(6)]
    expected = intact.features["video"]
    for batch in (intact, mixed):
        features = encode(VideoEncoder(), "video", batch)
        torch.testing.assert_close(features.tokens, expected.tokens)
        torch.testing.assert_close(features.levels[0].tokens, expected.levels[0].tokens)
        assert torch.equal(features.mask, expected.mask)


def test_samples_without_the_modality_have_blank_features(build_data: BuildData) -> None:
    samples = build_data(views=["A"]).train_samples
    blank, audio_only = samples[MicroBatch((), 1)], samples[MicroBatch((0,), 1)]
    for batch in (blank, audio_only):
        features = batch.features["video"]
        assert features.tokens.shape == (1, 1, 4, 5) and not features.mask.any()
        assert features.levels[0].tokens.shape == (1, 1, 4, 12 * 4)
        assert "video" not in batch.signals
    assert audio_only.features["audio"].mask.all() and not blank.has_gaps


def test_a_bad_sample_raises_when_it_is_used(build_data: BuildData, root: Path) -> None:
    records = write_records(root / "train.jsonl", 3)
    text = Path(records).read_text().replace("late.mp4", "cut_front.mp4").replace('"end": 1.0', '"end": 2.0')
    Path(records).write_text(text)
    data = build_data(records)
    with pytest.raises(BadSample, match="cut_front"):
        load_batch(data)
    batch = load_batch(build_data(records, on_bad_sample="skip"))
    assert len(batch.meta) == 2 and [skip["id"] for skip in batch.skipped] == ["r1"]
    assert set(batch.signals) == {"instruction"}
    assert not (root / "quarantine.jsonl").exists()


def test_ranks_share_the_clips_without_communication(build_data: BuildData, root: Path) -> None:
    samples = build_data(use_cache=False).train_samples
    for rank in (0, 1):
        encoder = VideoEncoder()
        samples.cached = None
        cache = FeatureCache(FeatureStore(root / "features"), {"video": (encoder, True)})
        cache.fill(samples, load_plan, (2, rank))
        assert len(encoder.calls) == 1 + 3
    assert len(list_keys(root)) == 6


def test_validation_prompts_use_the_cache(build_data: BuildData, root: Path) -> None:
    encoder = VideoEncoder()
    data = build_data(encoder=encoder, val_records=write_records(root / "val.jsonl", 4, "v", task="emotion"))
    num_calls = len(encoder.calls)
    prompts = list(data.prompts(["emotion"], View("VF"), limit=3, batch_size=2))
    assert [set(batch.signals) for batch in prompts] == [{"instruction"}] * 2
    assert len(encoder.calls) == num_calls + 1, "one blank time step: validation has encoded the clips"


def test_the_hash_of_a_folder_covers_all_its_files(tmp_path: Path) -> None:
    store, folder = FeatureStore(tmp_path / "features"), tmp_path / "clip"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"one")
    before = store.hash_content(folder)
    (folder / "2.png").write_bytes(b"two")
    assert store.hash_content(folder) != before
    (folder / "2.png").unlink()
    assert store.hash_content(folder) == before


def test_load_returns_saved_features(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    level = Features(torch.randn(1, 3, 4, 2), torch.rand(1, 3, 4) > 0.5, (2, 2))
    saved = Features(torch.randn(1, 3, 1, 5).bfloat16(), torch.rand(1, 3, 1) > 0.5, None, (level,))
    store.save("ab12", saved, [0.1, 1 / 3, 2.0])
    entry = store.load("ab12")
    assert entry is not None
    loaded, times = entry
    for part, expected in ((loaded, saved), (loaded.levels[0], level)):
        assert torch.equal(part.tokens, expected.tokens) and part.tokens.dtype == expected.tokens.dtype
        assert torch.equal(part.mask, expected.mask) and part.mask.dtype == expected.mask.dtype
        assert part.grid == expected.grid
    assert times == [0.1, 1 / 3, 2.0]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_features_are_stored_in_the_dtype_of_the_operations(
    build_data: BuildData, root: Path, dtype: torch.dtype | None
) -> None:
    samples = build_data(use_cache=False).train_samples
    cache = FeatureCache(FeatureStore(root / "features"), {"video": (VideoEncoder(), True)}, dtype=dtype)
    cache.fill(samples, load_plan)
    features, _ = samples.cached.load(0)
    expected = dtype or torch.float32
    assert features["video"].tokens.dtype == features["video"].levels[0].tokens.dtype == expected
    assert samples.cached.blanks["video"].tokens.dtype == expected


def test_a_cache_of_a_trainer_has_its_device_and_precision(root: Path) -> None:
    strategy = SimpleNamespace(precision_plugin=AutocastPrecision("bf16", "cpu"), root_device=torch.device("cpu"))
    frozen, trainer = {"video": (VideoEncoder().requires_grad_(False), False)}, SimpleNamespace(strategy=strategy)
    cache = FeatureCache.open(str(root / "features"), 0.5, frozen, trainer)
    assert cache.dtype == torch.bfloat16 and "bf16" in cache.conditions and cache.store.max_bytes == 5e8
    assert cache.frozen["video"][0].linear.weight.dtype == torch.bfloat16
    with cache.context():
        assert torch.is_autocast_enabled("cpu")
    strategy.precision_plugin = ParameterPrecision("32-true")
    assert FeatureCache.open("features", None, {}, trainer).dtype is None


def test_clips_that_a_full_cache_lacks_are_encoded_in_every_step(
    build_data: BuildData, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = build_data(features_gb=1e-6)
    assert "features_gb" in caplog.text and "full" in caplog.text
    batch, expected = load_batch(data), load_batch(build_data(use_cache=False))
    assert torch.equal(batch.signals["video"].mask, expected.signals["video"].mask)
    assert [meta["id"] for meta in batch.meta] == [meta["id"] for meta in expected.meta]
