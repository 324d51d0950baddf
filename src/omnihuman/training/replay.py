"""Replay of a bad step's batches: the first module and the gradients that are not finite."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor, nn

from omnihuman.build import build
from omnihuman.model.trainable import set_trainable, strip_wrappers
from omnihuman.nn.finite import is_finite
from omnihuman.objective.base import Objective
from omnihuman.training.assembly import build_initial_model, read_trainable
from omnihuman.training.attempt import find_attempt
from omnihuman.training.bad_loss import load_batches
from omnihuman.training.chain import Chain
from omnihuman.training.checkpoint import SHARDS, checkpoint_step
from omnihuman.training.precision import build_precision
from omnihuman.training.sharded import load_parameters
from omnihuman.training.state import read_state
from omnihuman.types import Batch


def replay_batches(config: DictConfig, chain: Chain, console: Console) -> None:
    """Compute loss and gradients of the batches in the file ``config.replay``, and print where they are not finite.

    The model has the weights of the run's newest checkpoint, or those that the run starts from; nothing is written.

    Raises:
        ValueError: the file or the config is invalid.
    """
    batches = load_batches(Path(str(config.replay)))
    precision = build_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    model, _ = build_initial_model(config, chain)
    groups = set_trainable(model, read_trainable(config))
    precision.convert_module(model)
    checkpoint = find_attempt(chain.run).find_checkpoint()
    source = "the initial weights"
    if checkpoint is not None:
        _load_trainable(model, checkpoint)
        source = f"the weights of step {checkpoint_step(checkpoint)}"
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimizer, scheduler = build(config.optimizer), build(config.scheduler)  # never called
    objective = build(config.objective)(model, groups, optimizer=optimizer, scheduler=scheduler, total_steps=1)
    for batch in batches:
        ids = ", ".join(str(meta.get("id")) for meta in batch.meta)
        with precision.forward_context():
            loss, cause = _find_cause(objective, batch)
        console.print(f"samples {ids} with {source}: loss {loss}; {cause}", markup=False)


def _find_cause(objective: Objective, batch: Batch) -> tuple[float, str]:
    """Return the loss of a batch, and what is not finite first."""
    model = objective.model
    batch = batch.to(next(model.parameters()).device)
    with _record_bad_outputs(model) as names:
        loss = objective.compute_loss(model(batch), batch) / max(1, batch.step_targets)
    value = float(loss.detach())
    if names:
        return value, f"the output of {names[0]} is not finite"
    model.zero_grad()
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not is_finite(parameter.grad):
            return value, f"the gradient of {strip_wrappers(name)} is not finite"
    if not is_finite(loss):
        return value, "the outputs of all modules are finite"
    return value, "all gradients are finite: not the data but later weights are the cause"


@contextmanager
def _record_bad_outputs(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of modules whose output is not finite, in the order in which they return."""
    names: list[str] = []
    hooks = []
    for name, module in model.named_modules():

        def record(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            if not all(map(is_finite, _tensors(output))):
                names.append(name or "the model")

        hooks.append(module.register_forward_hook(record))
    try:
        yield names
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an output: a tensor, a container, or a dataclass."""
    if isinstance(value, Tensor):
        yield value
        return
    children: Sequence[Any] = ()
    if isinstance(value, Mapping):
        children = list(value.values())
    elif is_dataclass(value):
        children = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, list | tuple):
        children = value
    for child in children:
        yield from _tensors(child)


def _load_trainable(model: nn.Module, checkpoint: Path) -> None:
    """Load the trainable parameters of a checkpoint, of shards if the run is sharded."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    targets = {f"model.{strip_wrappers(name)}": parameter.data for name, parameter in trainable.items()}
    if (checkpoint / SHARDS).is_dir():
        load_parameters(checkpoint, targets)
        return
    content = read_state(checkpoint)
    state = content.get("current_model_state") or content["state_dict"]  # beside an average: the trained parameters
    for name, value in state.items():
        targets[strip_wrappers(name)].copy_(value)
