"""FSDP2 over all devices, with checkpoints of shards that any number of devices reads."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh

from omnihuman.pl import pl
from omnihuman.training.checkpoint import SHARDS, Background, compute_checksum, open_partial
from omnihuman.training.state import complete, encode, explain_failure, read_state

MODEL, OPTIMIZER = "state_dict", "optimizer"
"""Beginnings of the names of tensors in shards."""


class ShardedStrategy(pl.strategies.ModelParallelStrategy):
    """Lightning's strategy with checkpoints of safetensors, written while the training goes on.

    Every rank writes its shards, and rank 0 the rest. A checkpoint has no frozen parameters.

    Differs from Lightning's: that one writes pickles in place, stops the training meanwhile, and expects every
    parameter of the model in a checkpoint, even with ``strict_loading = False``.

    Args:
        num_kept: checkpoints that stay.
        background: in which they are written.
        reduces_each: gradients are reduced after every micro-batch, so that a rank stores its shard of them alone;
            otherwise after the last one of a step, with all gradients in full on every rank until then.
        num_replicas: groups of ranks, each of which shards a whole model; it divides the number of ranks.
        options: of Lightning's.
    """

    def __init__(
        self,
        num_kept: int,
        background: Background,
        *,
        reduces_each: bool = True,
        num_replicas: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_kept, self.background = num_kept, background
        self.reduces_each, self.num_replicas = reduces_each, num_replicas

    def setup_environment(self) -> None:
        super().setup_environment()
        sizes: tuple[int, ...] = (self.world_size,)
        names: tuple[str, ...] = ("shard",)
        if self.num_replicas > 1:  # consecutive ranks share a model: those of a node
            sizes, names = (self.num_replicas, self.world_size // self.num_replicas), ("replicate", "shard")
        # Lightning's mesh is of data and tensor parallelism
        self._device_mesh = init_device_mesh(self.root_device.type, sizes, mesh_dim_names=names)
        self.lightning_module._device_mesh = self._device_mesh
        # collectives of the thread that writes must not mix with those of the training
        self.writers: Any = dist.new_group(backend="gloo")

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Surround the backward passes of a step before its last one, as Lightning does for DDP."""
        if self.reduces_each:
            yield
            return
        self.lightning_module.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.lightning_module.model.set_requires_gradient_sync(True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Copy the shards of this rank, and write them with those of the others."""
        folder = Path(self.broadcast(filepath))
        self.background.wait()
        tensors = dict(_name_tensors(checkpoint.pop("state_dict"), MODEL))
        states = checkpoint.pop("optimizer_states")
        checkpoint["param_groups"] = [state["param_groups"] for state in states]
        for number, state in enumerate(states):
            tensors |= _name_tensors(state["state"], f"{OPTIMIZER}.{number}")
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        rest: dict[str, Tensor] = {}
        plain = encode(checkpoint, rest)
        place = open_partial(folder) if self.is_global_zero else None
        place = Path(self.broadcast(place))  # which exists now
        self.background.submit(partial(self._write, place, folder, copies, plain, rest))

    def _write(
        self, place: Path, folder: Path, shards: dict[str, Any], plain: Any, tensors: Mapping[str, Tensor]
    ) -> None:
        with explain_failure(folder):
            self._write_all(place, folder, shards, plain, tensors)

    def _write_all(
        self, place: Path, folder: Path, shards: dict[str, Any], plain: Any, tensors: Mapping[str, Tensor]
    ) -> None:
        writer = HuggingFaceStorageWriter(str(place / SHARDS), save_distributed=True)
        save(shards, storage_writer=writer, process_group=self.writers)
        shards_here = (place / SHARDS).glob(f"shard-{self.global_rank + 1:05d}-*")
        checksums = {f"{SHARDS}/{path.name}": compute_checksum(path) for path in shards_here}
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, checksums, group=self.writers)
        if self.is_global_zero:
            for more in gathered:
                checksums |= more
            complete(place, folder, plain, tensors, self.num_kept, checksums)
        dist.barrier(group=self.writers)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the parameters that the checkpoint has, and the optimizers; return the rest of the checkpoint.

        It may be one of a training without shards.
        """
        folder = Path(self.broadcast(checkpoint_path))
        state = read_state(folder)
        if not (folder / SHARDS).is_dir():
            return self._load_whole(state)
        reader = HuggingFaceStorageReader(str(folder / SHARDS))
        saved = reader.read_metadata().state_dict_metadata
        parameters = get_model_state_dict(self.model)
        optimizers: list[Any] = [get_optimizer_state_dict(self.model, optimizer) for optimizer in self.optimizers]
        tensors = dict(_name_tensors(parameters, MODEL))
        for number, optimizer in enumerate(optimizers):
            tensors |= _name_tensors(optimizer["state"], f"{OPTIMIZER}.{number}")
        load({name: tensor for name, tensor in tensors.items() if name in saved}, storage_reader=reader)
        names = [name for name in parameters if f"{MODEL}.{name}" in saved]
        self.model.load_state_dict({name: parameters[name] for name in names}, strict=False)
        for number, optimizer in enumerate(self.optimizers):
            entry = {"state": optimizers[number]["state"], "param_groups": state["param_groups"][number]}
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=entry)
        return state | {"state_dict": dict.fromkeys(names)}  # the objective compares the names with its own

    def _load_whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Load parameters and optimizers that every rank has read in full, and keep the shards of this one."""
        options = StateDictOptions(full_state_dict=True, strict=False)
        names = list(state["state_dict"])
        set_model_state_dict(self.model, state.pop("state_dict"), options=options)
        for optimizer, saved in zip(self.optimizers, state.pop("optimizer_states"), strict=True):
            groups: Any = get_optimizer_state_dict(self.model, optimizer)["param_groups"]
            names_of = _list_parameters(groups)
            entry: Any = {
                "state": {names_of[number]: tensors for number, tensors in saved["state"].items()},
                "param_groups": _replace_parameters(saved["param_groups"], names_of),
            }
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=entry, options=options)
        return state | {"state_dict": dict.fromkeys(names)}

    def teardown(self) -> None:
        """Wait for the last checkpoint."""
        self.background.wait()
        super().teardown()


def build_sharded_strategy(
    num_kept: int, background: Background, num_ranks: int, *, reduce_each: bool, replicate: int
) -> ShardedStrategy:
    """Return the strategy of ``trainer=fsdp`` and ``trainer=hsdp`` from the values of the trainer.

    Args:
        num_kept: checkpoints that stay.
        background: in which they are written.
        num_ranks: over all nodes.
        reduce_each: value of ``trainer.reduce_each``.
        replicate: value of ``trainer.replicate``.

    Raises:
        ValueError: the ranks cannot be divided into so many replicas.
    """
    if type(replicate) is not int or replicate < 1 or num_ranks % replicate:
        raise ValueError(
            f"trainer.replicate={replicate}: expected a divisor of the number of devices on all nodes, {num_ranks}."
        )
    # Lightning's default would use the devices of a node for tensor parallelism
    sizes = {"data_parallel_size": num_ranks, "tensor_parallel_size": 1}
    return ShardedStrategy(num_kept, background, reduces_each=reduce_each, num_replicas=replicate, **sizes)


def check_not_sharded(strategy: str, *, reduce_each: bool, replicate: int) -> None:
    """Check that the options of a sharded model are not set for another strategy.

    Raises:
        ValueError: one is set.
    """
    if replicate != 1 or not reduce_each:
        raise ValueError(
            f"trainer.replicate={replicate} trainer.reduce_each={reduce_each}: trainer.strategy={strategy} shards no "
            "model; choose trainer=fsdp or trainer=hsdp, or leave them out."
        )


def load_parameters(folder: Path, targets: Mapping[str, Tensor]) -> None:
    """Load parameters of a sharded checkpoint in one process.

    Args:
        folder: of the checkpoint.
        targets: name in the objective -> tensor that gets the value.
    """
    reader = HuggingFaceStorageReader(str(folder / SHARDS))
    _load_alone(dict(_name_tensors(targets, MODEL)), reader)


def _load_alone(tensors: dict[str, Tensor], reader: HuggingFaceStorageReader) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"torch\.distributed is disabled")  # that is meant
        load(tensors, storage_reader=reader, no_dist=True)


def read_shards(folder: Path) -> dict[str, Any]:
    """Return a sharded checkpoint as that of a training without shards: all tensors in full, optimizers by numbers.

    Raises:
        ValueError: it cannot be read.
    """
    state = read_state(folder)
    reader = HuggingFaceStorageReader(str(folder / SHARDS))
    tensors: dict[str, Tensor] = {}
    for name, entry in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    _load_alone(dict(tensors), reader)
    state["state_dict"] = _select(tensors, MODEL)
    state["optimizer_states"] = []
    for number, groups in enumerate(state.pop("param_groups")):
        state["optimizer_states"].append(_number_parameters(_select(tensors, f"{OPTIMIZER}.{number}"), groups))
    return state


def _select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _number_parameters(tensors: Mapping[str, Tensor], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state of an optimizer by the numbers of its parameters, in the order of its groups."""
    numbers = {name: number for number, name in enumerate(_list_parameters(groups))}
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition(".")
        states.setdefault(numbers[parameter], {})[key] = tensor
    return {"state": states, "param_groups": _replace_parameters(groups, numbers)}


def _list_parameters(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the parameters of an optimizer, in the order in which torch numbers them."""
    names: list[str] = []
    for group in groups:
        names += group["params"]
    return names


def _replace_parameters(groups: Sequence[Mapping[str, Any]], replacements: Any) -> list[dict[str, Any]]:
    """Return the groups of an optimizer with numbers in place of names, or names in place of numbers."""
    replaced = []
    for group in groups:
        replaced.append({**group, "params": [replacements[parameter] for parameter in group["params"]]})
    return replaced


def _name_tensors(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nested mapping with their full names."""
    for name, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{prefix}.{name}", value
        elif isinstance(value, Mapping):
            yield from _name_tensors(value, f"{prefix}.{name}")
