"""FLOPs of real forward passes by part, and a model of them that is fitted to the first ones."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from omnihuman.build import PART_GROUPS
from omnihuman.model.omni import OmniModel
from omnihuman.types import IGNORE_INDEX, Batch

CONVENTION = (
    "useful FLOPs of forward and backward passes (2, 4 and 6 x the multiplications of frozen, passed and trained "
    "products; causal attention by half; nothing recomputed, no padding) / seconds of training with the waiting / peak "
    "of dense bf16"
)
"""Definition of MFU."""

aten = torch.ops.aten

FACTORS = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2), aten.convolution: (0, 1)}
"""Places of the two factors among the arguments of a product."""

VARLEN = "torch_attn::_varlen_attn"
"""Name of the kernel of packed attention, whose arguments are queries, keys, values and the starts of the samples."""


@dataclass
class PartFlops:
    """FLOPs of one part in a forward pass and in the backward pass that will follow it.

    Attributes:
        forward: of products and attention; a product of n multiplications has 2 n.
        backward: one product for each factor that has a gradient, two for each of attention.
    """

    forward: float = 0.0
    backward: float = 0.0

    @property
    def training(self) -> float:
        """FLOPs of both passes, without what is recomputed."""
        return self.forward + self.backward


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of a model while its forward pass runs, on any device, sharded or not.

    Blocks that are compiled run as they are while it counts. What is recomputed in a backward pass is not counted.

    Attributes:
        parts: FLOPs by part, those outside of any under the empty name.
    """

    def __init__(self, model: OmniModel) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts: dict[str, PartFlops] = {}
        self._modules = dict(list_parts(model))
        self._part = ""
        self._is_in_attention = False

    @contextmanager
    def count(self) -> Iterator[None]:
        """Count everything within."""
        handles = []
        for name, module in self._modules.items():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
            handles.append(module.register_forward_hook(lambda *_: self._enter(""), always_call=True))
        try:
            with ExitStack() as stack:
                # torch compiles nothing under a mode, and refuses to run blocks that must be one graph
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(_AttentionCalls(self))
                stack.enter_context(self)
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> None:
        self._part = name

    def add(self, forward: float, backward: float) -> None:
        """Add FLOPs to the part that runs."""
        entry = self.parts.setdefault(self._part, PartFlops())
        entry.forward += forward
        entry.backward += backward

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Count nothing within, where an attention computes its products in its own way."""
        self._is_in_attention = True
        try:
            yield
        finally:
            self._is_in_attention = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self._is_in_attention:
            return output
        if func.overloadpacket in FACTORS:
            flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
            has_graph = torch.is_grad_enabled()
            factors = sum(args[place].requires_grad for place in FACTORS[func.overloadpacket])
            self.add(flops, flops * factors * has_graph)
        elif func._schema.name == VARLEN:
            query, _, value, starts = args[:4]
            squares = starts.diff().double().square().sum().item()
            self._add_attention(args[:3], squares * query.shape[1] * (query.shape[-1] + value.shape[-1]))
        return output

    def _add_attention(self, heads: Sequence[Tensor], flops: float) -> None:
        # inside of an operation with a backward pass of its own, as the kernel is, no graph seems to be recorded
        has_gradient = any(tensor.requires_grad for tensor in heads)
        self.add(flops, 2 * flops * has_gradient)


class _AttentionCalls(TorchFunctionMode):
    """Counts the attention by the shapes of its inputs: its kernels differ in what they say about causality."""

    def __init__(self, counter: FlopCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        inputs = dict(zip(names, args, strict=False)) | kwargs
        query, key, value = inputs["query"], inputs["key"], inputs["value"]
        flops = 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        if inputs.get("is_causal"):
            flops /= 2
        self.counter._add_attention((query, key, value), flops)
        with self.counter.pause():
            return func(*args, **kwargs)


def list_parts(model: OmniModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a model by their names, such as ``projectors.face``."""
    for group in PART_GROUPS:
        for name, part in getattr(model, group).items():
            yield f"{group}.{name}", part
    yield "llm", model.llm


def describe_batch(batch: Batch) -> dict[str, float]:
    """Return the amounts that the FLOPs of a batch depend on; the batch is on the host.

    Returns:
        For each signal the sums over its samples of the valid time steps, of their squares and of their presence,
        cached ones apart, and whether none is valid; for the text those of the positions, and the supervised tokens.
    """
    steps = {name: signal.mask for name, signal in batch.signals.items()}
    steps |= {f"{name} cached": stream.mask.any(dim=-1) for name, stream in batch.features.items()}
    amounts: dict[str, float] = {}
    for name, mask in steps.items():
        lengths = mask.sum(dim=1).double()
        amounts[f"{name} steps"] = float(lengths.sum())
        amounts[f"{name} squares"] = float(lengths.square().sum())
        amounts[f"{name} samples"] = float((lengths > 0).sum())
        amounts[f"{name} {BLANK}"] = float(not lengths.any())
    amounts["positions"] = float(sum(batch.lengths))
    amounts["position squares"] = float(sum(length**2 for length in batch.lengths))
    amounts["targets"] = float((batch.labels != IGNORE_INDEX).sum())
    return amounts


BLANK = "blank"
"""End of the name of an amount that is no useful work: of a part that runs because other ranks need it to."""


@dataclass
class FlopModel:
    """FLOPs of batches, linear in their amounts: counted for the first batches, computed for the others.

    It is fitted by least squares to the batches that were counted, and settled when it has foretold several in a row.

    Args:
        tolerance: relative error of the sum of all parts of a batch that was foretold.
        num_right: batches in a row that must be foretold.
        max_counted: batches after which it is settled in any case.
    """

    tolerance: float = 0.01
    num_right: int = 3
    max_counted: int = 64
    is_settled: bool = False
    _amounts: list[Mapping[str, float]] = field(default_factory=list)
    _counts: list[Mapping[str, PartFlops]] = field(default_factory=list)
    _right: int = 0
    _fit: tuple[list[str], list[str], Any] | None = None

    def observe(self, amounts: Mapping[str, float], counts: Mapping[str, PartFlops]) -> None:
        """Add a batch that was counted."""
        total = sum(entry.training for entry in counts.values())
        if self._amounts:
            foretold = sum(self._compute(amounts).values())
            is_right = abs(foretold - total) <= self.tolerance * total
            self._right = self._right + 1 if is_right else 0
        self._amounts.append(dict(amounts))
        self._counts.append(dict(counts))
        self._fit = None
        self.is_settled = self._right >= self.num_right or len(self._amounts) >= self.max_counted

    def compute(self, amounts: Mapping[str, float]) -> dict[str, float]:
        """Return the useful FLOPs of forward and backward pass by part."""
        useful = {name: 0.0 if name.endswith(BLANK) else value for name, value in amounts.items()}
        return {name: max(0.0, value) for name, value in self._compute(useful).items()}

    def _compute(self, amounts: Mapping[str, float]) -> dict[str, float]:
        if self._fit is None:
            self._fit = self._solve()
        names, parts, weights = self._fit
        row = np.array([amounts.get(name, 0.0) for name in names])
        return dict(zip(parts, (row @ weights).tolist(), strict=True))

    def _solve(self) -> tuple[list[str], list[str], Any]:
        names, parts = sorted(set().union(*self._amounts)), sorted(set().union(*self._counts))
        rows = np.zeros((len(self._amounts), len(names)))
        values = np.zeros((len(self._counts), len(parts)))
        for number, (amounts, counts) in enumerate(zip(self._amounts, self._counts, strict=True)):
            rows[number] = [amounts.get(name, 0.0) for name in names]
            for column, part in enumerate(parts):
                values[number, column] = counts[part].training if part in counts else 0.0
        scales = np.maximum(np.abs(rows).max(axis=0), 1e-30)
        weights = np.linalg.lstsq(rows / scales, values, rcond=1e-9)[0] / scales[:, None]
        return names, parts, weights
