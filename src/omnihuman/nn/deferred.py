"""Building without memory: what initializes parameters is recorded, and replayed tensor by tensor."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

META = torch.device("meta")

FACTORIES = (torch.empty, torch.rand, torch.randn, torch.zeros, torch.ones, torch.full)
"""Functions that make the tensors of parameters, which then have no memory; integers and flags stay in it."""

IS_META = Tensor.is_meta.__get__  # type: ignore[attr-defined]

OVERWRITING = ("aten::normal_", "aten::uniform_", "aten::fill_", "aten::zero_", "aten::copy_")
"""Operations that replace all that was in a tensor."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor as a view of a storage.

    Attributes:
        storage: number of the storage.
        dtype: of the elements.
        size: shape.
        stride: in elements.
        offset: in elements.
    """

    storage: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Step:
    """An operation on tensors without memory.

    Attributes:
        function: of torch.
        args: with places instead of such tensors.
        kwargs: likewise.
        reads: storages whose values it needs.
        writes: storages that it changes.
        overwrites: those of them of which nothing stays.
        results: places of the tensors that it returns in storages of their own; ``None`` for other values.
    """

    function: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    reads: frozenset[int]
    writes: frozenset[int]
    overwrites: frozenset[int]
    results: tuple[Place | None, ...]

    @property
    def touched(self) -> frozenset[int]:
        """Storages that it needs or changes."""
        return self.reads | self.writes

    @property
    def is_random(self) -> bool:
        """It draws random numbers."""
        return not hasattr(self.function, "tags") or torch.Tag.nondeterministic_seeded in self.function.tags


@dataclass(slots=True)
class Recording:
    """The operations on parameters without memory while a model is built; ``with recording:`` goes on with it.

    Within it, parameters are on the meta device, whatever makes them, and buffers are in memory. ``finish`` ends it.

    Reference: torchdistX's deferred initialization, which had this idea for whole models.

    Attributes:
        steps: in their order.
        places: of the parameters, by name.
        files: file or folder that the value of a storage was read from.
        draws_on_device: random values are drawn on the device of the parameters, where they have other values than on
            the CPU, instead of there.
        state: of the CPU's generator when the recording began.
        seed: of the generators of other devices.
    """

    draws_on_device: bool = False
    steps: list[Step] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    files: dict[int, object] = field(default_factory=dict)
    state: Tensor = field(default_factory=torch.get_rng_state)
    seed: int = field(default_factory=torch.initial_seed)
    _storages: dict[int, tuple[int, torch.UntypedStorage]] = field(default_factory=dict)
    _stacks: list[ExitStack] = field(default_factory=list)

    def __enter__(self) -> "Recording":
        stack = ExitStack()
        if _active.get() is not self:
            stack.callback(_active.reset, _active.set(self))
            stack.enter_context(_Redirect())
            stack.enter_context(_Recorder(self))
        self._stacks.append(stack)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stacks.pop().close()

    def locate(self, tensor: Tensor) -> Place:
        """Return the place of a tensor without memory."""
        storage = tensor.untyped_storage()
        number, _ = self._storages.setdefault(storage._cdata, (len(self._storages), storage))
        return Place(number, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def record_initialization(self, frame: FrameType) -> None:
        """Record a function of ``torch.nn.init`` by its frame, in which nothing but its arguments is set."""
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
        arguments = {name: frame.f_locals[name] for name in names}
        place = self.locate(arguments["tensor"])
        arguments["tensor"] = place
        written = frozenset([place.storage])
        function = getattr(nn.init, frame.f_code.co_name)
        overwrites = written if _is_whole(frame.f_locals["tensor"]) else frozenset[int]()
        self.steps.append(Step(function, (), arguments, written - overwrites, written, overwrites, (None,)))

    def assign(self, parameter: Tensor, value: Tensor, source: object | None) -> None:
        """Record that a parameter without memory has a value, which may be a map of a file or folder."""
        with torch.no_grad(), self:
            parameter.detach().copy_(value)
        if source is not None:
            self.files[self.locate(parameter).storage] = source

    def defer(self, module: nn.Module, source: object | None, dtype: torch.dtype | None = None) -> None:
        """Take the parameters of a module out of memory; a tied one stays one.

        Args:
            module: whose parameters get no memory.
            source: file or folder that they were read from, if they were.
            dtype: that they get; ``None`` for their own.
        """
        for parameter, owners in find_owners(module).values():
            if parameter.is_meta:
                continue
            data = torch.empty_like(parameter, dtype=dtype or parameter.dtype, device=META)
            deferred = nn.Parameter(data, requires_grad=parameter.requires_grad)
            self.assign(deferred, parameter.detach(), source)
            for owner, key in owners:
                owner.register_parameter(key, deferred)

    def finish(self, module: nn.Module) -> None:
        """End the recording: note the places of all parameters, and compute the buffers that have no memory."""
        self.defer(module, None)
        self.places = {name: self.locate(parameter) for name, parameter in module.named_parameters()}
        buffers = {name: buffer for name, buffer in module.named_buffers() if buffer.is_meta}
        places = {name: self.locate(buffer) for name, buffer in buffers.items()}
        for name, value in self._replay(places, torch.device("cpu")):
            path, _, key = name.rpartition(".")
            module.get_submodule(path)._buffers[key] = value

    def forget(self, names: Collection[str]) -> None:
        """Leave out what initialized parameters that have values of files now: nothing is drawn for them."""
        live = _find_live(self.steps, {place.storage for name, place in self.places.items() if name not in names})
        steps = []
        for step, is_live in zip(self.steps, live, strict=True):
            if is_live or step.function is torch.ops.aten.copy_.default:
                steps.append(step)
        self.steps = steps

    def replay(self, names: Collection[str], device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Yield the values of parameters, one after the other; each should be used before the next one.

        Random values are drawn in the order of the recording, with its seed: those of the CPU are the values of a model
        that is built in memory, and its generator is in the same state afterwards. A value of a file is a map of it.

        Args:
            names: of the parameters.
            device: of the parameters; it has one whole random tensor at a time if they are drawn there.
        """
        direct = self._find_direct(names)
        yield from direct.items()
        places = {name: self.places[name] for name in names if name not in direct}
        if device.type == "cpu" or not self.draws_on_device:
            torch.set_rng_state(self.state)
            yield from self._replay(places, torch.device("cpu"))
        elif places:
            with torch.random.fork_rng([device], device_type=device.type):
                torch.manual_seed(self.seed)
                yield from self._replay(places, device)

    def _find_direct(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return the values that were only copied."""
        last: dict[int, Tensor | None] = {}
        for step in self.steps:
            is_copy = step.function is torch.ops.aten.copy_.default and isinstance(step.args[1], Tensor)
            for storage in step.writes:
                last[storage] = step.args[1] if is_copy and storage in step.overwrites else None
        values = {name: last.get(self.places[name].storage) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _replay(self, places: Mapping[str, Place], device: torch.device) -> Iterator[tuple[str, Tensor]]:
        names: dict[int, list[str]] = {}
        for name, place in places.items():
            names.setdefault(place.storage, []).append(name)
        live = _find_live(self.steps, {*names})
        ends: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            if live[number]:
                ends |= dict.fromkeys(step.touched, number)
        storages: dict[int, Tensor] = {}
        for number, step in enumerate(self.steps):
            if live[number]:
                _run(step, storages, device)
            elif step.is_random:  # later ones need the state of the generator
                _run(step, {}, device)
            for storage in [storage for storage in storages if ends[storage] == number]:
                value = storages.pop(storage)
                for name in names.get(storage, ()):
                    place = places[name]
                    yield name, value.as_strided(place.size, place.stride, place.offset)
                del value  # before the next one needs memory


class _Redirect(TorchFunctionMode):
    """Lets the factories make tensors without memory, and records functions of ``torch.nn.init`` that leave these out.

    Such a function asks its tensor whether it is on the meta device before it does anything.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recording = active_recording()
        if recording is not None and func == IS_META:
            caller = sys._getframe(1)
            if caller.f_globals["__name__"] == nn.init.__name__ and func(*args):
                recording.record_initialization(caller)
        kwargs = dict(kwargs or {})
        if func in FACTORIES and recording is not None:
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            if dtype.is_floating_point:
                kwargs["device"] = META
        return func(*args, **kwargs)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that change tensors without memory, or make some."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if active_recording() is None:
            return output
        inputs = [value for value in tree_flatten((args, kwargs))[0] if _is_meta(value)]
        outputs = list(output) if isinstance(output, tuple | list) else [output]
        if inputs or any(map(_is_meta, outputs)):
            self._record(func, args, kwargs, inputs, outputs)
        return output

    def _record(self, func: Any, args: Any, kwargs: Any, inputs: Sequence[Tensor], outputs: Sequence[Any]) -> None:
        locate = self.recording.locate
        read = {locate(tensor).storage for tensor in inputs}
        writes, overwrites = set[int](), set[int]()
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and _is_meta(value):
                storage = locate(value).storage
                writes.add(storage)
                if _is_whole(value) and func._schema.name in OVERWRITING:
                    overwrites.add(storage)
        results: list[Place | None] = []
        for value in outputs:
            is_new = _is_meta(value) and locate(value).storage not in read
            results.append(locate(value) if is_new else None)
        created = {place.storage for place in results if place is not None}
        is_empty = func._schema.name in ("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty")
        if is_empty or not (writes or created):
            return  # without values, or a view
        places, options = tree_map(lambda value: locate(value) if _is_meta(value) else value, (args, dict(kwargs)))
        step = Step(
            func,
            places,
            options,
            reads=frozenset(read - overwrites),
            writes=frozenset(writes | created),
            overwrites=frozenset(overwrites | created),
            results=tuple(results),
        )
        self.recording.steps.append(step)


_active: ContextVar[Recording | None] = ContextVar("active", default=None)


def active_recording() -> Recording | None:
    """Return the recording of the model that is being built, ``None`` if it is built in memory."""
    return _active.get()


def load_pretrained(load: Callable[..., Any], weights: str, dtype: torch.dtype, **options: Any) -> Any:
    """Return what a ``from_pretrained`` of transformers returns; while a model is recorded, its files are only mapped.

    On the meta device, where transformers loads nothing, the shapes of the files are all that stays of them.

    Args:
        load: the method.
        weights: folder or hub id.
        dtype: of the parameters.
        options: of the method.
    """
    recording = active_recording()
    if torch.get_default_device() == META:
        with torch.device("cpu"):
            result = load(weights, dtype="auto", **options)
        _select_model(result).to(META, dtype)
        return result
    if recording is None:
        return load(weights, dtype=dtype, **options)
    token = _active.set(None)
    try:
        result = load(weights, dtype="auto", **options)
    finally:
        _active.reset(token)
    recording.defer(_select_model(result), weights, dtype)
    return result


def _select_model(result: Any) -> nn.Module:
    """Return the model of a result that may have a report beside it."""
    model: nn.Module = result[0] if isinstance(result, tuple) else result
    return model


def find_owners(module: nn.Module) -> dict[int, tuple[nn.Parameter, list[tuple[nn.Module, str]]]]:
    """Return every parameter with the modules that have it, and its name there; a tied one has several."""
    owners: dict[int, tuple[nn.Parameter, list[tuple[nn.Module, str]]]] = {}
    for part in module.modules():
        for key, parameter in part.named_parameters(recurse=False):
            owners.setdefault(id(parameter), (parameter, []))[1].append((part, key))
    return owners


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _is_whole(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _find_live(steps: Sequence[Step], targets: set[int]) -> list[bool]:
    """Return for every step whether the final values of the target storages depend on it."""
    needed = set(targets)
    live = [False] * len(steps)
    for number in reversed(range(len(steps))):
        step = steps[number]
        if step.writes & needed:
            live[number] = True
            needed -= step.overwrites
            needed |= step.reads
    return live


def _run(step: Step, storages: dict[int, Tensor], device: torch.device) -> None:
    """Run a step on storages in memory; those that it is the first to need are added."""

    def view(value: Any) -> Any:
        if not isinstance(value, Place):
            return value
        if value.storage not in storages:
            num_elements = (
                value.offset
                + 1
                + sum((length - 1) * stride for length, stride in zip(value.size, value.stride, strict=True))
            )
            storages[value.storage] = torch.empty(max(0, num_elements), dtype=value.dtype, device=device)
        return storages[value.storage].as_strided(value.size, value.stride, value.offset)

    args, kwargs = tree_map(view, (step.args, dict(step.kwargs)))
    if "device" in kwargs:
        kwargs["device"] = device
    output = step.function(*args, **kwargs)
    outputs = output if isinstance(output, tuple | list) else [output]
    for place, value in zip(step.results, outputs, strict=True):
        if place is not None:
            storages[place.storage] = value.as_strided(
                (value.untyped_storage().nbytes() // value.element_size(),), (1,), 0
            )
