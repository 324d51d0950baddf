"""Small tensors on a device whose values the host has as well, so that it need not wait for the device to read them."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

READS = (
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.equal,
    Tensor.item,
    Tensor.nonzero,
    Tensor.repeat_interleave,
    Tensor.tolist,
    torch.equal,
    torch.nonzero,
    torch.repeat_interleave,
)
"""Functions whose result, or its size, depends on values: on a device they wait for all of its work."""

MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)
IN_PLACE = ("__setitem__", "__iadd__", "__isub__", "__imul__", "__iand__", "__ior__", "__ixor__")


class Mirror(Tensor):
    """A tensor of masks or ids on a device, with its copy on the host.

    A function of mirrors alone runs on both and returns mirrors. Reads are answered by the host, and so is an index by
    a mask of mirrors. A function of other tensors as well returns an ordinary tensor.

    Attributes:
        host: the same values on the CPU.

    >>> mask = Mirror.of(torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
    >>> type(mask.any(dim=1)), type(mask * torch.zeros(3)), bool(mask.all())
    (<class 'omnihuman.mirror.Mirror'>, <class 'torch.Tensor'>, True)
    """

    host: Tensor

    @classmethod
    def of(cls, tensor: Tensor, host: Tensor) -> "Mirror":
        """Return a tensor with its copy on the host."""
        mirror = tensor.as_subclass(cls)
        mirror.host = host
        return mirror

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, spec = tree_flatten((args, kwargs or {}))
        is_known = all(isinstance(leaf, Mirror) for leaf in leaves if isinstance(leaf, Tensor))
        with torch._C.DisableTorchFunctionSubclass():
            if func in (Tensor.__getitem__, Tensor.__setitem__) and not is_known:
                leaves, spec = tree_flatten(((args[0], _expand_masks(args[1]), *args[2:]), {}))
            args, kwargs = tree_unflatten(list(map(_unwrap, leaves)), spec)
            if not is_known:
                output = func(*args, **kwargs)
                if isinstance(leaves[0], Mirror) and _is_in_place(func):
                    leaves[0].host.copy_(args[0])
                return output
            host_args, host_kwargs = tree_unflatten(list(map(_select_host, leaves)), spec)
            if func in READS:
                output = run_on_host(func, host_args, host_kwargs)
                return tree_map(lambda value: _send(value, args[0].device), output)
            output = func(*args, **kwargs)
            if _is_in_place(func):
                run_on_host(func, host_args, host_kwargs)
                return leaves[0]
            if not any(isinstance(value, Tensor) for value in tree_flatten(output)[0]):
                return output
            if func in MOVES:
                return cls.of(output, leaves[0].host.to(output.dtype))
            return tree_map(_pair, output, run_on_host(func, host_args, host_kwargs))


def run_on_host(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a function on the copies."""
    return func(*args, **kwargs)


def strip(value: Any) -> Any:
    """Return an ordinary tensor in place of a mirror, any other value as it is."""
    with torch._C.DisableTorchFunctionSubclass():
        return _unwrap(value)


def range_like(length: int, tensor: Tensor) -> Tensor:
    """Return ``arange(length)`` on the device of a tensor, a mirror if that is one.

    >>> range_like(3, torch.zeros(2))
    tensor([0, 1, 2])
    """
    return tensor.new_ones(length, dtype=torch.long).cumsum(0) - 1


def _is_in_place(func: Any) -> bool:
    name = func.__name__
    return name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _unwrap(leaf: Any) -> Any:
    return leaf.as_subclass(Tensor) if isinstance(leaf, Mirror) else leaf


def _select_host(leaf: Any) -> Any:
    return leaf.host if isinstance(leaf, Mirror) else leaf


def _send(value: Any, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    return Mirror.of(value.to(device, non_blocking=True), value)


def _pair(output: Any, host: Any) -> Any:
    return Mirror.of(output, host) if isinstance(output, Tensor) else output


def _expand_masks(index: Any) -> Any:
    """Return an index with the positions of its masks instead of them."""
    if isinstance(index, tuple):
        return tuple(chain.from_iterable(map(_list_positions, index)))
    positions = tuple(_list_positions(index))
    return positions[0] if len(positions) == 1 else positions


def _list_positions(part: Any) -> Iterator[Any]:
    if not isinstance(part, Mirror) or part.host.dtype != torch.bool:
        yield part
        return
    for positions in run_on_host(torch.nonzero, (part.host,), {"as_tuple": True}):
        yield positions.to(part.as_subclass(Tensor).device, non_blocking=True)
