"""What a run would cost, known from its config alone."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from omnihuman.build import build, prune
from omnihuman.data.media import SAMPLE_RATE
from omnihuman.data.plan import rows_per_step
from omnihuman.fusion.base import Fusion
from omnihuman.model.omni import OmniModel
from omnihuman.training.meter import OnMeta, Reading, measure, tensors
from omnihuman.training.trainable import set_trainable
from omnihuman.types import IGNORE_INDEX, SLOTS, Batch, Features, Signal

_CAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of the model costs for one sample.

    Attributes:
        name: as in the model, ``projectors.face``.
        kind: its class.
        parameters: all of its parameters.
        trained: those that train.
        weights: those of matrices and convolutions, which autocast copies.
        makes: the stream that it makes.
        shape: ``[T N D]`` of that stream, or ``[L D]`` of the row that the language model reads.
        forward: FLOPs of one forward pass.
        training: FLOPs of forward and backward, see ``Reading.training``.
        activations: bytes kept for the backward pass.
        block: bytes of the piece that is being recomputed.
    """

    name: str
    kind: str
    parameters: int
    trained: int
    weights: int
    makes: str
    shape: tuple[int, ...]
    forward: int
    training: float
    activations: int
    block: int

    @property
    def tokens(self) -> int:
        """Of the stream."""
        return math.prod(self.shape[:-1])


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one cell of a sweep would cost.

    Attributes:
        slots: tokens of each slot.
        length: positions of the sample, all in all.
        packed: such samples in a packed row.
        parts: in the order in which they run.
        memory: bytes on a device, by what they are for.
        hours: of the whole run.
        reckoned: what the hours are for.
    """

    slots: Mapping[str, int]
    length: int
    packed: int
    parts: tuple[Part, ...]
    memory: Mapping[str, float]
    hours: float
    reckoned: str

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        """Parameters that train."""
        return sum(part.trained for part in self.parts)

    @property
    def training(self) -> float:
        """FLOPs of training on one sample."""
        return sum(part.training for part in self.parts)

    @property
    def gib(self) -> float:
        """Memory of a device."""
        return sum(self.memory.values()) / GIB

    def numbers(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {**asdict(self), "training": self.training, "gib": self.gib}


class Forecaster:
    """Config -> forecast. A part is built and run once, however many configs share it.

    Nothing is read but tokenizers and, at nano size, the package's own weights. The model is on the meta device, where
    tensors have a shape and no values; its real forward pass is run, so what does not fit together is found.
    """

    def __init__(self) -> None:
        self._meter = OnMeta()
        self._built: dict[str, nn.Module] = {}
        self._keys: dict[nn.Module, str] = {}
        self._readings: dict[tuple[Any, ...], Reading] = {}

    def __call__(self, config: DictConfig) -> Forecast:
        """The forecast of a composed root config ``plan``.

        Raises:
            ValueError: the parts do not fit together, or the sample does not fit into a packed row.
        """
        config = config.copy()
        config.random_weights = config.size != "nano"
        model = self.model(prune(_plain(config.model)))
        set_trainable(model, _plain(config.trainable))
        batch = sample_of(model, int(config.frames), float(config.seconds), int(config.text), int(config.answer))
        length, room, devices = batch.input_ids.shape[1], int(config.data.max_tokens), int(config.devices)
        rows_per_step([length], [0], 1, room, 1)  # refuses what training would refuse
        packed = min(room // length, math.ceil(config.data.batch_size / devices))
        parts = self.run(model, batch)
        strategy, mixed = config.trainer.strategy, str(config.trainer.precision).endswith("mixed")
        memory = states(model, devices if strategy == "fsdp2" else 1)
        if mixed:
            memory["bf16 copies"] = 2 * sum(part.weights for part in parts if part.activations)
        memory["activations"] = packed * sum(part.activations for part in parts) / (1 + mixed)
        memory["recomputed block"] = packed * max(part.block for part in parts) / (1 + mixed)
        flops = sum(part.training for part in parts)
        hours = flops * config.samples / (config.tflops * 1e12 * devices) / 3600
        slots = {slot: int((batch.input_ids == slot_id).sum()) for slot, slot_id in SLOTS.items()}
        reckoned = f"hours for {config.samples:,} samples with devices={devices} tflops={config.tflops:g}"
        return Forecast(slots, length, packed, tuple(parts), memory, hours, reckoned)

    def model(self, node: Mapping[str, Any]) -> OmniModel:
        """The model of a pruned config; it shares its parts with the models before."""
        given = {key: value for key, value in node.items() if not key.startswith("_")}
        for group in ("projectors", "early_fusions", "fusions"):
            parts = given.get(group) or {}
            given[group] = {name: partial(self._part, f"{group}.{name}", part) for name, part in parts.items()}
        given["encoders"] = {name: self._part(f"encoders.{name}", part) for name, part in node["encoders"].items()}
        try:
            return OmniModel(**given | {"llm": self._part("llm", node["llm"])})
        except TypeError as error:
            raise ValueError(f"{error}: the config gives it what belongs to the part whose place it took.") from error

    def run(self, model: OmniModel, batch: Batch) -> list[Part]:
        """The forward pass of the model, part by part."""
        named = {name: part for name, part in model.named_modules() if part in self._keys}
        seen: dict[str, Reading] = {}

        def run(name: str, *args: Any, **kwargs: Any) -> Any:
            seen[name] = self._reading(named[name], *args, **kwargs)
            return seen[name].output

        try:
            for name, part in named.items():
                vars(part)["forward"] = partial(run, name)
            with self._meter:
                model(batch)
        finally:
            for part in named.values():
                vars(part).pop("forward", None)
        length, width = batch.input_ids.shape[1], model.llm.hidden_size
        return [_costs(name, named[name], reading, (length, width)) for name, reading in seen.items()]

    def _reading(self, part: nn.Module, *args: Any, **kwargs: Any) -> Reading:
        trained = tuple(parameter.requires_grad for parameter in part.parameters())
        # of masks and labels the values count as well, by their sum; of streams their grids
        given = [
            (tuple(each.shape), each.requires_grad, None if each.is_meta else each.sum().item())
            for each in tensors([args, kwargs])
        ]
        streams = [stream for each in args for stream in (each.values() if isinstance(each, dict) else [each])]
        grids = [stream.grid for stream in streams if isinstance(stream, Features)]
        key = (self._keys[part], trained, part.training, *given, *grids)
        if key not in self._readings:
            self._readings[key] = measure(
                self._meter, part, lambda: type(part).forward(part, *args, **kwargs), [args, kwargs]
            )
        return self._readings[key]

    def _part(self, name: str, node: Mapping[str, Any], **given: Any) -> Any:
        """A part of its own for every name, config and widths around it."""
        levels = [getattr(width, "levels", ()) for width in given.get("dims", {}).values()]
        key = json.dumps([name, node, given, levels])
        if key not in self._built:
            reads = "/foundation/" in str(node.get("weights"))  # which transformers refuses to do on meta
            with torch.device("cpu" if reads else "meta"):
                made = build(node)
                made = made(**given) if given else made
            self._built[key] = made.to("meta")
            self._keys[made] = key
        return self._built[key]


def sample_of(model: OmniModel, frames: int, seconds: float, text: int, answer: int) -> Batch:
    """A packed row of one sample that lacks nothing; its signals have no values, its masks and ids have."""
    counts = {"frames": frames, "faces": frames, "waveform": round(seconds * SAMPLE_RATE), "instruction": text}
    signals = {
        name: Signal(moments[None], torch.full((1, len(moments)), counts[reads] > 0))
        for name, (reads, transform) in model.transforms.items()
        for moments in [_moments(transform, reads, counts[reads])]
    }
    slots = model.layouts({"frames": frames, "waveform": counts["waveform"]})
    ids = [place for slot, count in slots.items() for place in [SLOTS[slot]] * count] + [0] * (text + answer)
    labels = [IGNORE_INDEX] * (len(ids) - answer) + [0] * answer
    return Batch(
        signals=signals,
        input_ids=torch.tensor([ids]),
        labels=torch.tensor([labels]),
        position_ids=torch.arange(len(ids))[None],
        bounds=torch.tensor([0, len(ids)]),
        step_targets=answer,
    )


@lru_cache(maxsize=64)  # cells share encoders
def _moments(transform: Callable[[Any], torch.Tensor], reads: str, count: int) -> torch.Tensor:
    """What becomes of so much, on the meta device; of nothing, one moment."""
    if reads in ("frames", "faces"):
        made = transform(torch.zeros(1, 3, 28, 28, dtype=torch.uint8)).expand(max(1, count), -1, -1, -1)
    else:
        made = transform("word " * count if reads == "instruction" else torch.zeros(count or SAMPLE_RATE))
    return (made if count else made[:1]).to("meta")


def states(model: OmniModel, shards: int) -> dict[str, float]:
    """Bytes on a device that do not depend on its batch, by what they are for.

    With ``shards`` above 1 as ``Supervised`` shards them: each block of a stack on its own, the rest together, frozen
    encoders not at all. What is computed is whole meanwhile: the rest, one block, and the next, which is on its way.
    """
    frozen = [each for each in model.encoders.values() if not any(p.requires_grad for p in each.parameters())]
    whole = {parameter for encoder in frozen for parameter in encoder.parameters()}
    weights = trained = 0.0
    for parameter in model.parameters():
        size = parameter.nbytes / (1 if parameter in whole else shards)
        weights += size
        trained += size * parameter.requires_grad
    memory = {"weights": weights, "gradients": trained, "AdamW": 2 * trained}
    if shards > 1:
        stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        blocks = [
            sum(parameter.nbytes for parameter in block.parameters())
            for stack in stacks
            for block in stack
            if not whole.intersection(block.parameters())
        ]
        rest = sum(parameter.nbytes for parameter in model.parameters() if parameter not in whole) - sum(blocks)
        memory["gathered"] = (rest + 2 * max(blocks, default=0)) * (1 - 1 / shards)
    return memory


def _costs(name: str, part: nn.Module, reading: Reading, row: tuple[int, int]) -> Part:
    parameters = sum(parameter.numel() for parameter in part.parameters())
    trained = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
    matrices = sum(module.weight.numel() for module in part.modules() if isinstance(module, _CAST))
    made = reading.output[part.output] if isinstance(part, Fusion) else reading.output
    shape = tuple(made.tokens.shape[1:]) if isinstance(made, Features) else row
    return Part(
        name=name,
        kind=type(part).__name__,
        parameters=parameters,
        trained=trained,
        weights=matrices,
        makes=part.output if isinstance(part, Fusion) else name.rpartition(".")[2],
        shape=shape,
        forward=reading.forward,
        training=reading.training(trained / max(1, parameters)),
        activations=reading.saved,
        block=reading.block,
    )


def _plain(node: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return dict(plain)
