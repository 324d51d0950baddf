"""Options of speed on one GPU, each switched by itself, on samples without content and a model with random weights."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from omnihuman.benching.compare import build_table, measure_parts, measure_ways
from omnihuman.benching.table import Table
from omnihuman.benching.ways import TrainingStep, Way
from omnihuman.build import compose_config
from omnihuman.cost.flops import CONVENTION
from omnihuman.cost.forecast import build_meta_model, build_sample, compute_state_bytes
from omnihuman.data.collate import Packable, pack
from omnihuman.llm.blocks import check_share
from omnihuman.model.dtypes import select_dtype
from omnihuman.model.omni import OmniModel
from omnihuman.model.sharding import iterate_blocks
from omnihuman.model.trainable import set_trainable
from omnihuman.overrides import select_keys, without_keys
from omnihuman.training.assembly import read_trainable
from omnihuman.training.warm import select_device
from omnihuman.types import Batch

SIZES = ("0_5b", "7b")
STATE_SHARE = 0.75
"""Share of the free memory for weights, gradients and optimizer states; activations need the rest."""

OFFICIAL, OURS, CLIPS = "official style", "ours", "ours, the clips alone"
CLIP_SECONDS, SOUND_SECONDS = 10.0, (2.0, 10.0)
"""Of the audio of a clip; the shortest and the longest sample without frames."""

CLIP_TEXT, SOUND_TEXT, ANSWER = 64, (16, 160), 32
"""Tokens of text."""


def measure(config: DictConfig, overrides: Sequence[str]) -> Iterator[Table]:
    """Yield two tables for every size: the ways, and the parts of the step.

    Raises:
        ValueError: there is no GPU for a size that needs one.
    """
    sizes = [str(config.size)] if select_keys(overrides, "size") else SIZES
    device = select_device(config)
    for size in sizes:
        if size != "nano" and device.type != "cuda":
            raise ValueError(f"size={size} needs a GPU, and torch sees none; size=nano is the same program on a CPU.")
    for size in sizes:
        sized = compose_config([*without_keys(overrides, "size", "mode"), f"size={size}"], "bench")
        yield from measure_size(sized, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    yield Table(f"MFU: {CONVENTION}", ())


def measure_size(config: DictConfig, device: torch.device) -> Iterator[Table]:
    """Yield the tables of one size."""
    deadline = time.monotonic() + float(config.seconds)
    layers = select_layers(config, device)
    step = TrainingStep(config, device)
    clips, sounds = draw_batches(step.model, config)
    share = check_share(config.model.llm.activation_checkpointing)
    base = Way(precision=str(config.trainer.precision), checkpointing=share)
    title = f"{config.name}, size={config.size}, {layers}, precision={base.precision}, {share:.0%} recomputed"
    step.load([clips])
    alone = measure_ways(step, {CLIPS: base}, int(config.repeats), deadline)
    step.use(base)
    yield build_table(f"{title}: {len(clips.bounds) - 1} clips", step, alone, CLIPS)
    yield measure_parts(f"{title}: parts, each alone, of the clips", step, step.batches[0])
    step.load([clips, sounds])
    results = measure_ways(step, list_ways(base, str(config.compiler)), int(config.repeats), deadline)
    mixed = f"{len(clips.bounds) - 1} clips and {len(sounds.bounds) - 1} sounds"
    yield build_table(f"{title}: {mixed}", step, results, OFFICIAL, OURS)


def list_ways(base: Way, compiler: str) -> dict[str, Way]:
    """Return our way, one with every option switched, and the official style."""
    recomputed = 0.0 if base.checkpointing else 1.0
    other = {"bf16": "bf16-mixed", "bf16-mixed": "bf16"}.get(base.precision, "bf16")
    return {
        OFFICIAL: replace(base, packing=False, checkpointing=1.0, fused=False),
        OURS: base,
        "without packing": replace(base, packing=False),
        "without the attention kernel": replace(base, kernel=False),
        f"precision={other}": replace(base, precision=other),
        f"{recomputed:.0%} recomputed": replace(base, checkpointing=recomputed),
        "50% recomputed": replace(base, checkpointing=0.5),
        f"compile={compiler}": replace(base, compiler=compiler),
        "without the fused optimizer": replace(base, fused=False),
        "with cached features": replace(base, cache=True),
    }


def select_layers(config: DictConfig, device: torch.device) -> str:
    """Set the layers of the language model to those whose states fit into the memory, and return them as text.

    Raises:
        ValueError: ``layers`` is set, but the weights of this size have as many as they have.
    """
    architecture = config.model.llm.architecture
    if architecture is None:
        if config.layers is not None:
            raise ValueError(f"layers={config.layers}: size={config.size} has weights of its own; leave it out.")
        return "all layers"
    config.random_weights, config.init_from, config.base = True, [], None
    total = int(architecture.num_hidden_layers)
    count = total
    if config.layers is not None:
        count = int(config.layers)
    elif device.type == "cuda":
        count = fit_layers(config, total, torch.cuda.mem_get_info(device)[0] * STATE_SHARE)
    architecture.num_hidden_layers = count
    return f"{count} of {total} layers"


def fit_layers(config: DictConfig, total: int, num_bytes: float) -> int:
    """Return the layers of the language model, at least 1, with which the states of the model take so many bytes."""
    model, precision = build_meta_model(config), str(config.trainer.precision)
    set_trainable(model, read_trainable(config))
    block = 0
    for parameter in next(iterate_blocks(model.llm)).parameters():
        copies = 4 if parameter.requires_grad else 1  # weights, gradients, two moments
        block += parameter.numel() * select_dtype(precision, parameter).itemsize * copies
    rest = sum(compute_state_bytes(model, precision).values()) - total * block
    return max(1, min(total, int((num_bytes - rest) / block)))


def draw_batches(model: OmniModel, config: DictConfig) -> tuple[Batch, Batch]:
    """Return a micro-batch of clips, as many as it holds, and one of sounds of several lengths, about as long."""
    generator = torch.Generator().manual_seed(0)
    draw_clip = partial(draw_sample, model, int(config.frames), CLIP_SECONDS, CLIP_TEXT, generator)
    clips = [draw_clip()]
    size = len(clips[0].input_ids)
    num_clips = max(1, min(int(config.data.max_tokens) // size, int(config.data.batch_size)))
    clips += [draw_clip() for _ in range(num_clips - 1)]
    sounds, length = list[Packable](), 0
    while length < num_clips * size:
        share = len(sounds) % 8 / 7
        seconds = SOUND_SECONDS[0] + share * (SOUND_SECONDS[1] - SOUND_SECONDS[0])
        text = SOUND_TEXT[0] + round((len(sounds) % 5 / 4) * (SOUND_TEXT[1] - SOUND_TEXT[0]))
        sounds.append(draw_sample(model, 0, seconds, text, generator))
        length += len(sounds[-1].input_ids)
    blanks = {name: torch.zeros_like(values[:1]) for name, values in clips[0].signals.items()}
    return pack(clips, blanks, 1), pack(sounds, blanks, 1)


def draw_sample(model: OmniModel, frames: int, seconds: float, text: int, generator: torch.Generator) -> Packable:
    """Return a sample with random frames and spectrograms."""
    batch = build_sample(model, frames, seconds, text, ANSWER)
    signals = {}
    for name, signal in batch.signals.items():
        if bool(signal.mask.any()):
            signals[name] = draw_values(signal.values[0], generator)
    return Packable(signals, batch.input_ids[0].tolist(), batch.labels[0].tolist())


def draw_values(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return a tensor of this shape and dtype: random pixels or numbers, zeros as ids."""
    options: dict[str, Any] = {"dtype": values.dtype}
    if values.dtype == torch.uint8:
        return torch.randint(0, 256, values.shape, generator=generator, **options)
    if values.is_floating_point():
        return torch.randn(values.shape, generator=generator, **options)
    return torch.zeros(values.shape, **options)
