"""Forecast of the cost of a run from its config alone."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from omnihuman.build import build, prune
from omnihuman.cost.meter import CallCost, MetaCounter, iterate_tensors, measure_call
from omnihuman.data.media import SAMPLE_RATE
from omnihuman.data.packing import check_lengths
from omnihuman.fusion.base import Fusion
from omnihuman.modality import BY_FIELD, INSTRUCTION, SLOTS
from omnihuman.model.dtypes import AUTOCAST, DTYPES, select_dtype
from omnihuman.model.omni import OmniModel
from omnihuman.model.sharding import iterate_blocks, replicated_parameters, sharded_units
from omnihuman.model.trainable import set_trainable
from omnihuman.types import IGNORE_INDEX, Batch, Features, Signal

AUTOCAST_MODULES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules whose weights autocast copies."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class PartCost:
    """Cost of a part of the model for one sample.

    Attributes:
        name: as in the model, ``projectors.face``.
        class_name: of its module.
        parameters: number of all its parameters.
        trained: number of its trainable parameters.
        stream: name of its output.
        shape: ``[T N D]`` of its output, or ``[L D]`` of the sequence of the language model.
        forward: FLOPs of one forward pass.
        training: FLOPs of forward and backward pass, see ``CallCost.training``.
        activations: bytes that are saved for the backward pass.
        block: bytes of the largest block that is recomputed.
    """

    name: str
    class_name: str
    parameters: int
    trained: int
    stream: str
    shape: tuple[int, ...]
    forward: int
    training: float
    activations: int
    block: int

    @property
    def tokens(self) -> int:
        """Number of tokens of its output."""
        return math.prod(self.shape[:-1])


@dataclass(frozen=True, slots=True)
class Forecast:
    """Cost of one cell of a sweep.

    Attributes:
        slots: number of tokens by slot.
        length: positions of a sample.
        packed: number of samples in a packed sequence.
        parts: in the order of the forward pass.
        memory: bytes on a device, by purpose.
        hours: of the whole run.
        basis: assumptions behind the hours.
    """

    slots: Mapping[str, int]
    length: int
    packed: int
    parts: tuple[PartCost, ...]
    memory: Mapping[str, float]
    hours: float
    basis: str

    @property
    def parameters(self) -> int:
        """Number of parameters of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        """Number of trainable parameters."""
        return sum(part.trained for part in self.parts)

    @property
    def training(self) -> float:
        """FLOPs of training on one sample."""
        return sum(part.training for part in self.parts)

    @property
    def gib(self) -> float:
        """Memory of a device in GiB."""
        return sum(self.memory.values()) / GIB

    def to_json(self) -> dict[str, Any]:
        """Return all numbers in types of JSON."""
        return {**asdict(self), "training": self.training, "gib": self.gib}


class Forecaster:
    """Computes forecasts of configs; configs share the parts that they have in common.

    Only tokenizers are read and, at nano size, the package's own weights. The model is on the meta device, where
    tensors have a shape and no values. Its real forward pass runs there, so parts that do not fit together raise.
    """

    def __init__(self) -> None:
        self._meter = MetaCounter()
        self._parts: dict[str, nn.Module] = {}
        self._keys: dict[nn.Module, str] = {}
        self._costs: dict[tuple[Any, ...], CallCost] = {}

    def __call__(self, config: DictConfig) -> Forecast:
        """Return the forecast of a composed root config ``plan``.

        Raises:
            ValueError: the parts do not fit together, or a sample does not fit into a packed sequence.
        """
        model = self.build_model(_read_model(config))
        set_trainable(model, _to_plain(config.trainable))
        batch = build_sample(
            model, int(config.frames), float(config.audio_seconds), int(config.text_tokens), int(config.answer_tokens)
        )
        length, max_tokens, devices = batch.input_ids.shape[1], int(config.data.max_tokens), int(config.devices)
        check_lengths([length], max_tokens)  # raises where training would
        packed = min(max_tokens // length, math.ceil(config.data.batch_size / devices))
        parts = self.run_parts(model, batch)
        precision, shards = str(config.trainer.precision), 1
        if config.trainer.strategy == "fsdp2":
            shards, rest = divmod(devices, int(config.trainer.replicate))
            if rest:
                raise ValueError(f"trainer.replicate={config.trainer.replicate}: expected a divisor of {devices=}.")
        memory = compute_state_bytes(model, precision, shards, reduces_each=bool(config.trainer.reduce_each))
        if shards == 1 and precision in AUTOCAST:  # a sharded model gathers its parameters in the narrower dtype
            memory["16-bit copies"] = count_copies(model, precision, parts) * 2.0
        memory.update(_activation_bytes(parts, packed, AUTOCAST.get(precision)))
        flops = sum(part.training for part in parts)
        return Forecast(
            slots={slot: int((batch.input_ids == slot_id).sum()) for slot, slot_id in SLOTS.items()},
            length=length,
            packed=packed,
            parts=tuple(parts),
            memory=memory,
            hours=flops * config.num_samples / (config.tflops * 1e12 * devices) / 3600,
            basis=f"hours for {config.num_samples:,} samples with devices={devices} tflops={config.tflops:g}",
        )

    def build_model(self, config: Mapping[str, Any]) -> OmniModel:
        """Return the model of a pruned config; equal parts of earlier models are reused."""
        kwargs = {key: value for key, value in config.items() if not key.startswith("_")}
        for group in ("projectors", "early_fusions", "fusions"):
            parts = {}
            for name, part in (kwargs.get(group) or {}).items():
                parts[name] = partial(self._build_part, f"{group}.{name}", part)
            kwargs[group] = parts
        encoders = {}
        for name, part in config["encoders"].items():
            encoders[name] = self._build_part(f"encoders.{name}", part)
        kwargs["encoders"] = encoders
        kwargs["llm"] = self._build_part("llm", config["llm"])
        try:
            return OmniModel(**kwargs)
        except TypeError as error:
            raise ValueError(f"{error}: the config has an option of the part that this one has replaced.") from error

    def run_parts(self, model: OmniModel, batch: Batch) -> list[PartCost]:
        """Run the forward pass of the model and return the cost of every part, in order."""
        parts = {name: part for name, part in model.named_modules() if part in self._keys}
        costs: dict[str, CallCost] = {}

        def run(name: str, *args: Any, **kwargs: Any) -> Any:
            costs[name] = self._measure_part(parts[name], *args, **kwargs)
            return costs[name].output

        with _replaced_forwards(parts, run), self._meter:
            model(batch)
        sequence = (batch.input_ids.shape[1], model.llm.hidden_size)
        return [_build_part_cost(name, parts[name], cost, sequence) for name, cost in costs.items()]

    def _measure_part(self, part: nn.Module, *args: Any, **kwargs: Any) -> CallCost:
        """Return the cost of a call, from an earlier equal call if there is one."""
        trainable = tuple(parameter.requires_grad for parameter in part.parameters())
        inputs = [_tensor_key(tensor) for tensor in iterate_tensors([args, kwargs])]
        key = (self._keys[part], trainable, part.training, *inputs, *_iterate_grids(args))
        if key not in self._costs:
            call = partial(type(part).forward, part, *args, **kwargs)
            self._costs[key] = measure_call(self._meter, part, call, [args, kwargs])
        return self._costs[key]

    def _build_part(self, name: str, config: Mapping[str, Any], **kwargs: Any) -> Any:
        """Return a part on the meta device, one for every name, config and widths around it."""
        levels = [getattr(width, "levels", ()) for width in kwargs.get("dims", {}).values()]
        key = json.dumps([name, config, kwargs, levels])
        if key not in self._parts:
            with torch.device("meta"):
                part = build(config)
                if kwargs:
                    part = part(**kwargs)
            self._parts[key] = part.to("meta")
            self._keys[part] = key
        return self._parts[key]


def build_meta_model(config: DictConfig) -> OmniModel:
    """Return the model of a composed root config on the meta device; of the hub, only tokenizers are read."""
    return Forecaster().build_model(_read_model(config))


def _read_model(config: DictConfig) -> dict[str, Any]:
    """Return the config of the model, without weights of the hub."""
    config = config.copy()
    config.random_weights = config.size != "nano"
    return prune(_to_plain(config.model))


@contextmanager
def _replaced_forwards(parts: Mapping[str, nn.Module], run: Callable[..., Any]) -> Iterator[None]:
    """Let every part call ``run`` with its name and its inputs instead of its own forward pass."""
    try:
        for name, part in parts.items():
            vars(part)["forward"] = partial(run, name)
        yield
    finally:
        for part in parts.values():
            vars(part).pop("forward", None)


def _tensor_key(tensor: Tensor) -> tuple[Any, ...]:
    """Return all that a cost depends on: of masks and labels also their sum, since values decide what is computed."""
    total = None if tensor.is_meta else tensor.sum().item()
    return tuple(tensor.shape), tensor.requires_grad, total


def _iterate_grids(args: tuple[Any, ...]) -> Iterator[tuple[int, ...] | None]:
    """Yield the grids of all streams among the arguments."""
    for argument in args:
        streams = argument.values() if isinstance(argument, dict) else [argument]
        for stream in streams:
            if isinstance(stream, Features):
                yield stream.grid


def build_sample(model: OmniModel, frames: int, audio_seconds: float, text_tokens: int, answer_tokens: int) -> Batch:
    """Return a packed batch of one sample with all modalities; its signals have no values, its masks and ids do."""
    amounts = {"frames": frames, "waveform": round(audio_seconds * SAMPLE_RATE)}
    signals = {}
    for name, (field, transform) in model.transforms.items():
        amount = text_tokens
        if field != INSTRUCTION:
            amount = amounts[BY_FIELD[field].planned_from]
        values = _transform_blank(transform, field, amount)
        signals[name] = Signal(values[None], torch.full((1, len(values)), amount > 0))
    ids = []
    for slot, count in model.count_tokens(amounts).items():
        ids += [SLOTS[slot]] * count
    ids += [0] * (text_tokens + answer_tokens)
    labels = [IGNORE_INDEX] * (len(ids) - answer_tokens) + [0] * answer_tokens
    return Batch(
        signals=signals,
        input_ids=torch.tensor([ids]),
        labels=torch.tensor([labels]),
        position_ids=torch.arange(len(ids))[None],
        bounds=(0, len(ids)),
        step_targets=answer_tokens,
    )


@lru_cache(maxsize=64)  # cells share encoders
def _transform_blank(transform: Callable[[Any], Tensor], field: str, amount: int) -> Tensor:
    """Return the time steps that a transform makes of a blank input, on the meta device; one step if it is empty."""
    if field == INSTRUCTION:
        values = transform("word " * amount)
    elif BY_FIELD[field].is_image:
        values = transform(BY_FIELD[field].blank()).expand(max(1, amount), -1, -1, -1)
    else:
        values = transform(BY_FIELD[field].blank(amount))
    if not amount:
        values = values[:1]
    return values.to("meta")


def compute_state_bytes(
    model: OmniModel, precision: str, shards: int = 1, *, reduces_each: bool = True
) -> dict[str, float]:
    """Return the bytes on a device that do not depend on the batch, by purpose.

    With ``shards`` above 1 the model is sharded as by ``shard_model``. Then units are gathered: the one that has no
    module of its own for the whole step, and beside it two others, since the next one is prefetched. Before they are
    reduced, the gradients of a unit exist as a whole, in the dtype of the operations and in that of the reduction.

    Args:
        model: on the meta device, its trainable parameters set.
        precision: of the trainer.
        shards: devices over which a model is sharded.
        reduces_each: gradients are reduced after every micro-batch.
    """
    replicated = replicated_parameters(model)
    weights = trained = 0.0
    for parameter in model.parameters():
        size = float(parameter.numel() * select_dtype(precision, parameter).itemsize)
        if parameter not in replicated:
            size /= shards
        weights += size
        trained += size * parameter.requires_grad
    memory = {"weights": weights, "gradients": trained, "AdamW": 2 * trained}
    if shards > 1:
        dtype = AUTOCAST.get(precision) or DTYPES[precision]
        units = [count_parameters(unit) for unit in _own_parameters(model, replicated)]
        largest = sorted(units[:-1], reverse=True)[:2]
        gathered = units[-1][0] + sum(total for total, _ in largest)
        memory["gathered"] = gathered * dtype.itemsize * (1 - 1 / shards)
        reduced = max(trainable for _, trainable in units)
        memory["reduced"] = reduced * (dtype.itemsize + max(4, dtype.itemsize))
        if not reduces_each:
            memory["gradients"] = trained * shards
    return memory


def _own_parameters(model: OmniModel, replicated: set[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters of every unit of a sharded model, at last those that belong to none."""
    assigned = set(replicated)
    for module in [*sharded_units(model), model]:
        parameters = [parameter for parameter in module.parameters() if parameter not in assigned]
        assigned.update(parameters)
        yield parameters


def count_copies(model: OmniModel, precision: str, parts: Iterable[PartCost]) -> int:
    """Return the number of float32 weights of which autocast's copies exist at the same time.

    The backward pass needs the copies. Of blocks that are recomputed, only those of one exist.
    """
    copies = 0
    for cost in parts:
        part = model.get_submodule(cost.name)
        if not cost.activations:
            continue
        total = _count_cast(part, precision)
        if cost.block:
            blocks = [_count_cast(block, precision) for block in iterate_blocks(part)]
            total += max(blocks, default=0) - sum(blocks)
        copies += total
    return copies


def _count_cast(module: nn.Module, precision: str) -> int:
    """Return the number of weights of a module that autocast casts."""
    count = 0
    for layer in module.modules():
        if isinstance(layer, AUTOCAST_MODULES) and select_dtype(precision, layer.weight) == torch.float32:
            count += layer.weight.numel()
    return count


def _activation_bytes(parts: list[PartCost], packed: int, dtype: torch.dtype | None) -> dict[str, float]:
    """Return the bytes on a device for a packed sequence; operations in a 16-bit dtype halve them."""
    share = packed if dtype is None else packed / 2
    return {
        "activations": share * sum(part.activations for part in parts),
        "recomputed block": share * max(part.block for part in parts),
    }


def _build_part_cost(name: str, part: nn.Module, cost: CallCost, sequence: tuple[int, int]) -> PartCost:
    parameters, trained = count_parameters(part.parameters())
    stream, output = name.rpartition(".")[2], cost.output
    if isinstance(part, Fusion):
        stream, output = part.output, cost.output[part.output]
    return PartCost(
        name=name,
        class_name=type(part).__name__,
        parameters=parameters,
        trained=trained,
        stream=stream,
        shape=tuple(output.tokens.shape[1:]) if isinstance(output, Features) else sequence,
        forward=cost.forward,
        training=cost.training(trained / max(1, parameters)),
        activations=cost.saved,
        block=cost.block,
    )


def count_parameters(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    """Return the number of values of parameters, and of those that are trainable."""
    total = trainable = 0
    for parameter in parameters:
        total += parameter.numel()
        if parameter.requires_grad:
            trainable += parameter.numel()
    return total, trainable


def _to_plain(node: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return dict(plain)
