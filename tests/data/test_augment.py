"""Augmented audio: planned lengths, determinism, workers, resume, and nothing at all when it is off."""

import json
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.build import build, compose_part
from omnihuman.data.augment import AudioAugment
from omnihuman.data.module import OmniData
from omnihuman.encoder.whisper import LogMel
from omnihuman.source.jsonl import JsonlSource
from omnihuman.types import Batch

SPEEDS = (0.8, 1.0, 1.3)
VOLUME = {"volume": 12.0}
MASKS = {"time_masks": 1, "time_mask": 60, "time_share": 0.5, "bin_masks": 1, "bin_mask": 30}


def augment(**options: Any) -> AudioAugment:
    return AudioAugment(seed=3, **options)


@pytest.fixture
def build_data(media_root: Path, tmp_path: Path, connect_args: Any) -> Callable[..., OmniData]:
    """Return a function that builds data of eight records with audio, with whisper's spectrograms."""
    lines = []
    for number in range(8):
        turns = [{"from": "human", "value": "<video>\n<audio>\nWho?"}, {"from": "gpt", "value": f"Number {number}."}]
        lines.append(json.dumps({"id": f"r{number}", "video": "talk.mp4", "conversations": turns}))
    records = tmp_path / "train.jsonl"
    records.write_text("\n".join(lines))
    transforms = connect_args[0] | {"audio": ("waveform", LogMel(40))}

    def build(**options: Any) -> OmniData:
        defaults = {"num_frames": 2, "batch_size": 4, "max_tokens": 900, "num_workers": 0, "source": JsonlSource}
        data = OmniData(str(records), str(media_root), val_records=str(records), **(defaults | options))
        data.connect(transforms, *connect_args[1:])
        return data

    return build


def load(loader: Any, epochs: Iterable[int]) -> list[Batch]:
    batches = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        batches += chain.from_iterable(loader)
    return batches


def is_equal(batch: Batch, other: Batch) -> bool:
    signals = [(signal.values, other.signals[name].values) for name, signal in batch.signals.items()]
    pairs = [(batch.input_ids, other.input_ids), (batch.labels, other.labels), *signals]
    return batch.bounds == other.bounds and all(torch.equal(a, b) for a, b in pairs)


def select_audio(batches: Iterable[Batch]) -> dict[str, list[torch.Tensor]]:
    """Return the valid spectrogram of every sample, in the order of the epochs."""
    audio: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        signal = batch.signals["audio"]
        for meta, values, mask in zip(batch.meta, signal.values, signal.mask, strict=True):
            audio.setdefault(meta["id"], []).append(values[mask])
    return audio


def test_without_augmentation_batches_are_bit_equal(build_data: Any) -> None:
    plain = load(build_data().train_dataloader(), [0, 1])
    preset = compose_part("augment", "none")
    preset.seed = 3
    off = build(preset)
    for batch, other in zip(plain, load(build_data(augment=off).train_dataloader(), [0, 1]), strict=True):
        assert is_equal(batch, other)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_batches_depend_on_neither_workers_nor_an_interruption(build_data: Any, workers: int) -> None:
    policy = augment(speeds=SPEEDS, **VOLUME, **MASKS)
    batches = load(build_data(augment=policy).train_dataloader(), [0, 1])
    torch.manual_seed(workers)
    first = build_data(augment=policy, num_workers=workers).train_dataloader()
    (batch,) = next(iter(first))
    assert is_equal(batch, batches[0])
    resumed = build_data(augment=augment(speeds=SPEEDS, **VOLUME, **MASKS), num_workers=workers).train_dataloader()
    resumed.load_state_dict(first.state_dict())
    for batch, expected in zip(load(resumed, [0, 1]), batches[1:], strict=True):
        assert is_equal(batch, expected)


def test_the_plan_has_the_tokens_of_the_new_length(build_data: Any) -> None:
    data, plain = build_data(augment=augment(speeds=SPEEDS)), build_data()
    audio = select_audio(load(data.train_dataloader(), [0]))
    ratios = set()
    for planned, before in zip(data.train_samples.planned, plain.train_samples.planned, strict=True):
        (spectrogram,) = audio[planned.record.id]
        samples = planned.amounts["waveform"]
        assert len(spectrogram) == len(LogMel(40)(torch.zeros(samples)))
        assert planned.length - before.length == planned.counts["audio"] - before.counts["audio"]
        ratios.add(round(before.amounts["waveform"] / samples, 2))
    assert len(ratios) > 1 and ratios <= set(SPEEDS)
    assert data.val_samples.lengths.tolist() == plain.val_samples.lengths.tolist(), "validation is not augmented"


def test_volume_and_masks_change_with_the_epoch_and_speed_does_not(build_data: Any) -> None:
    for options in (VOLUME, MASKS):
        audio = select_audio(load(build_data(augment=augment(**options)).train_dataloader(), [0, 1]))
        assert all(len(first) == len(second) and not torch.equal(first, second) for first, second in audio.values())
    audio = select_audio(load(build_data(augment=augment(speeds=SPEEDS)).train_dataloader(), [0, 1]))
    assert all(torch.equal(first, second) for first, second in audio.values())


def test_a_faster_waveform_is_shorter_and_higher() -> None:
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    for speed in (0.5, 1.25):
        faster = augment(speeds=[speed]).change_waveform(tone, "a")
        assert len(faster) == round(16000 / speed)
        peak = torch.fft.rfft(faster).abs().argmax() * 16000 / len(faster)
        assert peak == pytest.approx(440 * speed, abs=2)


@pytest.mark.parametrize("num_samples", [400, 48001, 159999, 479999])
@pytest.mark.parametrize("speed", [0.5, 0.9, 1.07, 1.1, 2.0])
def test_counted_samples_are_those_of_the_waveform(num_samples: int, speed: float) -> None:
    policy = augment(speeds=[speed])
    assert len(policy.change_waveform(torch.zeros(num_samples), "a")) == policy.count_samples(num_samples, "a")


def test_masks_are_as_large_as_allowed_and_leave_the_generator(build_data: Any) -> None:
    spectrogram, state = torch.randn(200, 40), torch.get_rng_state()
    policy = augment(time_masks=1, time_mask=500, time_share=0.25)
    assert torch.equal(policy.mask_spectrogram(spectrogram), spectrogram), "no epoch has begun"
    for epoch in range(20):
        policy.start("a", epoch)
        changed = (policy.mask_spectrogram(spectrogram) != spectrogram).any(dim=1)
        assert changed.sum() <= 50
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speeds": [0.9, 3.0]}, r"speeds=.*from 0.5 to 2"),
        ({"volume": -1.0}, r"volume=-1\.0.*0 or more"),
        ({"time_masks": 1, "time_share": 1.5}, r"time_share=1\.5"),
    ],
)
def test_an_option_outside_its_range_raises(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augment(**options)


def test_options_that_contradict_augmentation_raise(build_data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.features=null"):
        build_data(augment=augment(volume=1.0), features=str(tmp_path))
    with pytest.raises(ValueError, match=r"data\.missing=absent"):
        build_data(augment=augment(speeds=SPEEDS), missing="fill")
    build_data(augment=augment(), features=str(tmp_path), missing="fill")
