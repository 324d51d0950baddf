"""Cost of one call of a part, counted on tensors without values."""

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
class CallCost:
    """Output and cost of one call of one part.

    Attributes:
        output: the part's output.
        products: FLOPs of matrix products and convolutions, 2 for a multiplication with its addition.
        attention: FLOPs of attention, half of them if it is causal.
        saved: bytes of floating-point activations that are saved for the backward pass, without parameters.
        recomputed: FLOPs that activation checkpointing computes a second time.
        block: bytes of the activations of the largest checkpointed block, alive while it is recomputed.
        has_input_gradient: gradients reach the inputs.
        is_trainable: gradients reach parameters of the part.
    """

    output: Any
    products: int
    attention: int
    saved: int
    recomputed: int
    block: int
    has_input_gradient: bool
    is_trainable: bool

    @property
    def forward(self) -> int:
        """FLOPs of one forward pass."""
        return self.products + self.attention

    def training(self, trained_share: float) -> float:
        """Return the FLOPs of one forward and backward pass if ``trained_share`` of the parameters is trainable.

        The gradient of a product's input costs as much as the product, and so does the gradient of its weights: in all
        2 x, 4 x and 6 x the multiplications for a frozen part, for one that gradients pass through, and for a trained
        one. Attention has no weights; both factors of its products have gradients. Checkpointing adds the recomputed
        FLOPs.
        """
        if not (self.has_input_gradient or self.is_trainable):
            return float(self.forward)
        return self.products * (2 + trained_share) + self.attention * 3 + self.recomputed


class MetaCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a model on the meta device, with masks and ids on the CPU that have values, and counts FLOPs.

    An operation on a CPU tensor and a meta tensor has a meta result. Integer and boolean CPU tensors stay on the CPU
    even if they are moved to the meta device, since parts and transformers read the values of masks.

    Attributes:
        flops: of all matrix products and convolutions so far, by PyTorch's own formulas.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the support for it costs more time than most calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = {tensor.device.type for tensor in iterate_tensors([args, kwargs])}
        if devices == {"cpu", "meta"}:
            if func.overloadpacket is aten.index:
                args = (args[0], _expand_masks(args[1]))
            args, kwargs = _move_to_meta((args, kwargs))
        elif devices == {"cpu"} and func is aten._to_copy.default and not args[0].is_floating_point():
            kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        output = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
        return output


def _move_to_meta(arguments: Any) -> Any:
    leaves, spec = tree_flatten(arguments)
    for position, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            leaves[position] = leaf.to("meta")
    return tree_unflatten(leaves, spec)


def _expand_masks(indices: Any) -> list[Tensor | None]:
    """Return masks as integer indices: the size of the result depends on a mask's values, which meta lacks."""
    expanded = list[Tensor | None]()
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            expanded += index.nonzero(as_tuple=True)
        else:
            expanded.append(index)
    return expanded


class _AttentionCounter(TorchFunctionMode):
    """Counts the FLOPs of attention, and saves the tensors that a kernel without stored scores would save."""

    flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or args[0].device.type != "meta":
            return func(*args, **kwargs)
        query, key, value = args[:3]
        products = query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        self.flops += products if kwargs.get("is_causal") else 2 * products
        return _AttentionKernel.apply(query, key, value)


class _AttentionKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        log_sum_exp = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, log_sum_exp)
        return output


class _SavedTensors:
    """Hook that counts the bytes of tensors saved for the backward pass: each storage once, parameters not at all."""

    def __init__(self, parameters: set[int]) -> None:
        self.parameters = parameters
        # the storages are referenced, so that a freed one cannot pass its address on to another
        self.storages: dict[int, torch.UntypedStorage] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage._cdata not in self.parameters:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def measure_call(meter: MetaCounter, part: nn.Module, call: Callable[[], Any], inputs: Any) -> CallCost:
    """Count the cost of ``call``, which runs ``part`` on ``inputs``; the meter must be active."""
    parameters = {parameter.untyped_storage()._cdata for parameter in part.parameters()}
    saved, attention, start = _SavedTensors(parameters), _AttentionCounter(), meter.flops
    block_flops, block_bytes = [0], [0]

    def total_flops() -> int:
        return meter.flops - start + attention.flops

    # A checkpointed block runs its forward pass inside torch.utils.checkpoint._checkpoint_hook: hooks for saved tensors
    # that drop every activation and would recompute the block in the backward pass. The outer hook `saved` therefore
    # never sees what the block saves, and nothing is left to measure. This class takes the place of that hook. It
    # counts the FLOPs between entry and exit, which the backward pass would repeat, and the bytes that the block saves,
    # which exist only while it is recomputed. The block's input is saved outside of it, and `saved` counts that.
    class BlockHooks(saved_tensors_hooks):
        def __init__(self, frame: Any) -> None:
            self.saved = _SavedTensors(parameters)
            super().__init__(self.saved, _identity)

        def __enter__(self) -> None:
            self.flops_before = total_flops()
            super().__enter__()

        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            block_flops.append(total_flops() - self.flops_before)
            block_bytes.append(self.saved.bytes)

    with _replaced_checkpoint_hook(BlockHooks), attention, saved_tensors_hooks(saved, _identity):
        output = call()
    return CallCost(
        output=output,
        products=total_flops() - attention.flops,
        attention=attention.flops,
        saved=saved.bytes,
        recomputed=sum(block_flops),
        block=max(block_bytes),
        has_input_gradient=any(tensor.requires_grad for tensor in iterate_tensors(inputs)),
        is_trainable=any(parameter.requires_grad for parameter in part.parameters()),
    )


@contextmanager
def _replaced_checkpoint_hook(hooks: type) -> Iterator[None]:
    """Let ``torch.utils.checkpoint`` enter other hooks; it looks its hook up by name at every checkpointed call."""
    original = torch.utils.checkpoint._checkpoint_hook
    torch.utils.checkpoint._checkpoint_hook = hooks  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.utils.checkpoint._checkpoint_hook = original  # type: ignore[misc]


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def iterate_tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in dataclasses, mappings, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from iterate_tensors(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from iterate_tensors(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from iterate_tensors(child)
