"""What one call of a part costs, counted on tensors without values."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Reading:
    """One call of one part.

    Attributes:
        output: what the part returned.
        products: FLOPs of its matrix products and convolutions, 2 a multiplication with its addition.
        attention: FLOPs of its attention, half of them where it is causal.
        saved: bytes of floating-point numbers that it keeps for the backward pass, its parameters not among them.
        recomputed: FLOPs of what is computed a second time instead (activation checkpointing).
        block: bytes of the largest piece of that, which are there while it is computed again.
        flows: gradients reach what it read.
        learns: gradients reach its own parameters.
    """

    output: Any
    products: int
    attention: int
    saved: int
    recomputed: int
    block: int
    flows: bool
    learns: bool

    @property
    def forward(self) -> int:
        """FLOPs of one forward pass."""
        return self.products + self.attention

    def training(self, share: float) -> float:
        """FLOPs of one forward and backward pass, where ``share`` of the parameters train.

        A product costs as much again for the gradient of what it reads, and once more for that of its weights:
        2 x, 4 x and 6 x the multiplications where a part is frozen, where gradients pass through it, and where it
        trains. Attention has no weights; both factors of its products have gradients. Checkpointing adds what is done
        twice.
        """
        if not (self.flows or self.learns):
            return float(self.forward)
        return self.products * (2 + share) + self.attention * 3 + self.recomputed


class OnMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a model on the meta device on masks and ids that are real, and counts what it does.

    Where a tensor on the CPU meets one without values, what comes out has none; until then it keeps them, also where it
    is moved to the other's device: parts and transformers look into masks.

    Attributes:
        flops: of all matrix products and convolutions so far, by PyTorch's own formulas.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and being ready for it costs more than most calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, spec = tree_flatten((args, kwargs))
        devices = {each.device.type for each in flat if isinstance(each, Tensor)}
        if devices == {"cpu", "meta"}:
            if func.overloadpacket is aten.index:  # how many a mask chooses depends on its values
                args = (args[0], [index for each in args[1] for index in _numbers(each)])
                flat, spec = tree_flatten((args, kwargs))
            args, kwargs = tree_unflatten(
                [each.to("meta") if isinstance(each, Tensor) else each for each in flat], spec
            )
        elif devices == {"cpu"} and func is aten._to_copy.default and not args[0].is_floating_point():
            kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        made = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=made)
        return made


def _numbers(index: Tensor | None) -> list[Tensor | None]:
    """A mask as the numbers of what it chooses."""
    return list(index.nonzero(as_tuple=True)) if index is not None and index.dtype == torch.bool else [index]


class _Attention(TorchFunctionMode):
    """Counts attention and keeps of it what a kernel would that never holds the scores."""

    flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or args[0].device.type != "meta":
            return func(*args, **kwargs)
        query, key, value = args[:3]
        products = query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        self.flops += products if kwargs.get("is_causal") else 2 * products
        return _Kernel.apply(query, key, value)


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, made, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return made


class _Kept:
    """Bytes of what a graph keeps, each storage once and parameters not at all."""

    def __init__(self, parameters: set[int]) -> None:
        self.parameters = parameters
        self.storages: dict[int, torch.UntypedStorage] = {}  # held, so that none takes the place of another

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage._cdata not in self.parameters:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def measure(meter: OnMeta, part: nn.Module, call: Callable[[], Any], given: Any) -> Reading:
    """Count what ``call`` does, which runs ``part`` on ``given``; with the meter running."""
    own = {parameter.untyped_storage()._cdata for parameter in part.parameters()}
    kept, attention, start = _Kept(own), _Attention(), meter.flops
    flops, blocks = [0], [0]

    def total() -> int:
        return meter.flops - start + attention.flops

    class Region(saved_tensors_hooks):
        """In the place of the hooks with which a checkpoint drops what its piece would have kept."""

        def __init__(self, frame: Any) -> None:
            self.kept = _Kept(own)
            super().__init__(self.kept, _same)

        def __enter__(self) -> None:
            self.before = total()
            super().__enter__()

        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            flops.append(total() - self.before)
            blocks.append(self.kept.bytes)

    with _checkpoints_by(Region), attention, saved_tensors_hooks(kept, _same):
        output = call()
    return Reading(
        output=output,
        products=total() - attention.flops,
        attention=attention.flops,
        saved=kept.bytes,
        recomputed=sum(flops),
        block=max(blocks),
        flows=any(tensor.requires_grad for tensor in tensors(given)),
        learns=any(parameter.requires_grad for parameter in part.parameters()),
    )


@contextmanager
def _checkpoints_by(hooks: type) -> Iterator[None]:
    usual = torch.utils.checkpoint._checkpoint_hook
    torch.utils.checkpoint._checkpoint_hook = hooks  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.utils.checkpoint._checkpoint_hook = usual  # type: ignore[misc]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in containers of ours and of Python."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        yield from tensors([getattr(value, each.name) for each in fields(value)])
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from tensors(each)
