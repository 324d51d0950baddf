"""Augmentation of the audio of training samples: speed, volume, and masks of the spectrogram."""

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from omnihuman.modality import SAMPLE_RATE

SPEEDS = (0.5, 2.0)
"""Slowest and fastest."""


class AudioAugment:
    """Changes waveforms ``[S]`` and spectrograms ``[T M]`` of training samples with torchaudio; by default not at all.

    Volume and masks depend on the seed, the sample and the epoch alone, so that neither the number of workers nor a
    resumed run changes them. The speed changes the length of the audio, hence the tokens of a sample, which are planned
    once, before anything is decoded: so a sample has the same speed in every epoch, another one with another seed.
    Frames keep their times.

    Reference: Ko et al., Audio Augmentation for Speech Recognition (2015), for the speed; Park et al., SpecAugment
    (2019), for the masks, with the mean as their value.

    Args:
        seed: of all choices.
        speeds: each sample has one of them; 1.1 is shorter and higher. Empty: no change.
        volume: largest change in dB, up or down.
        time_masks: masks over time steps.
        time_mask: longest of these, in time steps (10 ms in Whisper's spectrogram).
        time_share: longest of these, as a share of the spectrogram.
        bin_masks: masks over mel bins.
        bin_mask: widest of these, in bins.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(
        self,
        *,
        seed: int,
        speeds: Sequence[int | float] = (),
        volume: int | float = 0,
        time_masks: int = 0,
        time_mask: int = 0,
        time_share: int | float = 1.0,
        bin_masks: int = 0,
        bin_mask: int = 0,
    ) -> None:
        if any(not SPEEDS[0] <= speed <= SPEEDS[1] for speed in speeds):
            raise ValueError(f"data.augment.speeds={list(speeds)}: expected factors from {SPEEDS[0]} to {SPEEDS[1]}.")
        numbers = {"volume": volume, "time_masks": time_masks, "time_mask": time_mask}
        numbers |= {"time_share": time_share, "bin_masks": bin_masks, "bin_mask": bin_mask}
        for name, value in numbers.items():
            if value < 0:
                raise ValueError(f"data.augment.{name}={value}: expected 0 or more.")
        if time_share > 1:
            raise ValueError(f"data.augment.time_share={time_share}: expected a share from 0 to 1.")
        self.seed, self.speeds, self.volume = seed, tuple(speeds), volume
        self.masks = (time_masks, time_mask, bin_masks, bin_mask, time_share)
        self._place: str | None = None

    @property
    def is_enabled(self) -> bool:
        """Something is changed."""
        return bool(self.speeds or self.volume or self.masks[0] or self.masks[2])

    def start(self, name: str, epoch: int) -> None:
        """Begin a sample in an epoch; before the first one only speeds are changed, as pages of the data show them."""
        self._place = f"{self.seed}/{name}/{epoch}"

    def count_samples(self, num_samples: int, name: str) -> int:
        """Return the length of a waveform at the speed of a sample."""
        source, target = _compute_rates(self._choose_speed(name))
        return -(-num_samples * target // source)

    def change_waveform(self, waveform: Float[Tensor, " S"], name: str) -> Float[Tensor, " R"]:
        """Return the waveform of a sample at its speed, as long as ``count_samples`` says, and at another volume."""
        speed = self._choose_speed(name)
        if speed != 1:
            length = self.count_samples(len(waveform), name)
            waveform = _build_speed(speed)(waveform)[0][:length]
            waveform = F.pad(waveform, (0, length - len(waveform)))  # torchaudio rounds the length in float32
        if self.volume and self._place is not None:
            from torchaudio.transforms import Vol

            gain = random.Random(f"{self._place}/volume").uniform(-self.volume, self.volume)
            waveform = Vol(gain, "db")(waveform)
        return waveform

    def mask_spectrogram(self, spectrogram: Float[Tensor, "T M"]) -> Float[Tensor, "T M"]:
        """Return the spectrogram with masks; the global generator of random numbers stays as it is."""
        if self._place is None or not (self.masks[0] or self.masks[2]):
            return spectrogram
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.Random(f"{self._place}/masks").getrandbits(63))
            masked: Tensor = _build_masks(*self.masks)(spectrogram.T)
        return masked.T.contiguous()

    def _choose_speed(self, name: str) -> float:
        return random.Random(f"{self.seed}/{name}/speed").choice(self.speeds) if self.speeds else 1.0


def _compute_rates(speed: float) -> tuple[int, int]:
    """Return the rates between which torchaudio resamples for a speed."""
    return int(speed * SAMPLE_RATE), SAMPLE_RATE


@lru_cache
def _build_speed(speed: float) -> Any:
    from torchaudio.transforms import Speed

    return Speed(SAMPLE_RATE, speed)


@lru_cache
def _build_masks(time_masks: int, time_mask: int, bin_masks: int, bin_mask: int, time_share: float) -> Any:
    from torchaudio.transforms import SpecAugment

    return SpecAugment(time_masks, time_mask, bin_masks, bin_mask, p=time_share)


def select_augment(augment: AudioAugment | None, features: str | None, missing: str) -> AudioAugment | None:
    """Return an augmentation that changes something, ``None`` without one, and check it against options of the data.

    Raises:
        ValueError: augmented audio cannot be cached, or fillers would change their planned length.
    """
    if augment is None or not augment.is_enabled:
        return None
    if features is not None:
        raise ValueError("data.augment changes audio in every epoch: set data.features=null, or do not augment.")
    if augment.speeds and missing == "fill":
        raise ValueError("data.augment.speeds: fillers have a fixed length; set data.missing=absent.")
    return augment
