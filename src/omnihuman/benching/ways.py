"""A training step that runs in several ways, on the same weights and samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omnihuman.build import build
from omnihuman.cost.flops import FlopCounter, list_parts
from omnihuman.cost.meter import iterate_tensors
from omnihuman.llm import packed
from omnihuman.llm.blocks import check_share, set_blocks
from omnihuman.model.materialize import materialize
from omnihuman.model.omni import OmniModel
from omnihuman.model.splice import drop_positions
from omnihuman.model.trainable import set_trainable
from omnihuman.nn.deferred import Recording
from omnihuman.objective.base import Objective
from omnihuman.training.assembly import read_trainable
from omnihuman.training.precision import build_precision
from omnihuman.types import IGNORE_INDEX, Batch, Features

MAX_NORM = 1.0
"""Of the gradient, as in ``conf/trainer/auto.yaml``."""


@dataclass(frozen=True)
class Way:
    """Options of a training step.

    Attributes:
        packing: the samples of a micro-batch are packed; false: padded to the longest, with logits at every position,
            as in the official code.
        kernel: on a GPU one kernel attends to all samples of a packed sequence; false: one call for each sample.
        precision: of the run.
        checkpointing: share of the blocks of the language model that are recomputed.
        compiler: backend of the compiled blocks, ``None`` compiles nothing.
        fused: the optimizer is one kernel.
        cache: features of the frozen encoders are there already.
    """

    packing: bool = True
    kernel: bool = True
    precision: str = "32-true"
    checkpointing: float = 0.0
    compiler: str | None = None
    fused: bool = True
    cache: bool = False

    @property
    def attention(self) -> str:
        """Name of the language model's attention."""
        if not self.packing:
            return "sdpa"
        return packed.NAME if self.kernel else packed.NAME_WITHOUT_KERNEL


class TrainingStep:
    """An optimizer step of a model on micro-batches, which are on its device.

    Args:
        config: composed root config with ``model``, ``trainable``, ``objective``, ``optimizer`` and ``scheduler``.
        device: of the model, whose weights are drawn or read there.

    Attributes:
        batches: micro-batches of a step, set by ``load``.
    """

    def __init__(self, config: DictConfig, device: torch.device) -> None:
        self.device, self.way = device, Way()
        recording = Recording(draws_on_device=True)
        with recording:
            self.model: OmniModel = build(config.model)
        recording.finish(self.model)
        groups = set_trainable(self.model, read_trainable(config))
        self.precision = build_precision(str(config.trainer.precision), device.type)
        self.precision.convert_module(self.model)
        materialize(self.model, recording, device)
        self.model.to(device).train()
        optimizer, scheduler = build(config.optimizer), build(config.scheduler)
        objective: Objective = build(config.objective)(
            self.model, groups, optimizer=optimizer, scheduler=scheduler, total_steps=1000
        )
        self.optimizer: torch.optim.Optimizer = objective.configure_optimizers()["optimizer"]
        self.batches: list[Batch] = []
        self._cached: list[Batch] = []

    def load(self, batches: Sequence[Batch]) -> None:
        """Take the micro-batches of a step, and compute the features of their frozen encoders."""
        self.batches = [batch.to(self.device) for batch in batches]
        with torch.no_grad(), self.precision.forward_context():
            self._cached = [cache_features(self.model, batch) for batch in self.batches]

    def use(self, way: Way) -> None:
        """Let the next steps run in a way."""
        if way == self.way:
            return
        self.way, llm = way, self.model.llm.model
        set_blocks(llm, check_share(way.checkpointing), way.compiler)
        llm.set_attn_implementation(way.attention)
        if way.precision != self.precision.precision:
            self.precision = build_precision(way.precision, self.device.type)
            self.precision.convert_module(self.model)
        for group in self.optimizer.param_groups:
            group["fused"] = way.fused
        for state in self.optimizer.state.values():
            state["step"] = state["step"].to(self.device if way.fused else "cpu")

    def run(self, batches: Sequence[Batch] | None = None) -> float:
        """Run an optimizer step on these micro-batches, or on those of ``load``; return the loss on the device."""
        if batches is None:
            batches = self._cached if self.way.cache else self.batches
        compute = compute_packed_loss if self.way.packing else compute_padded_loss
        targets = sum(int((batch.labels != IGNORE_INDEX).sum()) for batch in batches)
        total: Any = 0.0
        self.optimizer.zero_grad()
        for batch in batches:
            with self.precision.forward_context():
                loss = compute(self.model, batch) / targets
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, MAX_NORM)
        self.optimizer.step()
        return total  # type: ignore[no-any-return]

    def free(self) -> None:
        """Drop the gradients, also those of a step that has failed."""
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def count_flops(self) -> dict[str, float]:
        """Return the useful FLOPs of a step by part: those without padding."""
        flops: dict[str, float] = {}
        self.model.llm.model.set_attn_implementation(packed.NAME)
        for batch in self._cached if self.way.cache else self.batches:
            counter = FlopCounter(self.model)
            with self.precision.forward_context(), counter.count():
                self.model(batch)
            for name, part in counter.parts.items():
                flops[name] = flops.get(name, 0.0) + part.training
        self.model.llm.model.set_attn_implementation(self.way.attention)
        return flops

    def list_calls(self, batch: Batch) -> dict[str, Callable[[], None]]:
        """Return a forward and backward pass of every part alone, on what it gets in a step."""
        inputs: dict[str, tuple[Any, Any]] = {}
        modules, handles = dict(list_parts(self.model)), []

        def note(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs[name] = (detach(args), detach(kwargs))

        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(partial(note, name), with_kwargs=True))
        with self.precision.forward_context():
            self.model(batch)
        for handle in handles:
            handle.remove()
        return {name: partial(self._run_part, modules[name], *inputs[name]) for name in inputs}

    def _run_part(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        with self.precision.forward_context():
            output = module(*args, **kwargs)
        results = [tensor for tensor in iterate_tensors(output) if tensor.requires_grad]
        if results:
            torch.autograd.backward(results, [torch.ones_like(tensor) for tensor in results])
        self.optimizer.zero_grad()


def count_tokens(batches: Sequence[Batch]) -> int:
    """Return the positions of all samples."""
    return sum(batch.input_ids.shape[1] for batch in batches)


def cache_features(model: OmniModel, batch: Batch) -> Batch:
    """Return a batch with the features of its frozen encoders in place of their signals."""
    signals, features, has_gaps = dict(batch.signals), dict(batch.features), batch.may_drop
    for name, (encoder, reads_levels) in model.frozen_encoders.items():
        if name in signals:
            output: Features = encoder(signals.pop(name))
            features[name] = output if reads_levels else replace(output, levels=())
    return replace(batch, signals=signals, features=features, has_gaps=has_gaps)


def compute_packed_loss(model: OmniModel, batch: Batch) -> Tensor:
    """Return the summed loss of a micro-batch as in training."""
    loss: Tensor = model(batch).loss
    return loss


def compute_padded_loss(model: OmniModel, batch: Batch) -> Tensor:
    """Return the same loss by samples that are padded on the right, with logits at every position.

    The attention of the language model is that of transformers, also in the backward pass that follows.

    Reference: HumanOmni ``humanomni_arch.py``, ``prepare_inputs_labels_for_multimodal``, and the loss of Qwen2.
    """
    embeds, mask, _ = model.embed(batch)
    bounds, _, (embeds, labels) = drop_positions(mask, batch.bounds, embeds, batch.labels)
    lengths = [end - start for start, end in pairwise(bounds)]
    rows = pad_sequence(list(torch.split(embeds[0], lengths)), batch_first=True)
    targets = pad_sequence(list(torch.split(labels[0], lengths)), batch_first=True, padding_value=IGNORE_INDEX)
    longest = torch.arange(max(lengths), device=rows.device)
    valid = longest < torch.tensor(lengths, device=rows.device)[:, None]
    logits = model.llm.model(inputs_embeds=rows, attention_mask=valid.long(), use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten(), reduction="sum")


def detach(value: Any) -> Any:
    """Return arguments whose tensors are leaves; each has a gradient if it had one."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{entry.name: detach(getattr(value, entry.name)) for entry in fields(value)})
    if isinstance(value, Mapping):
        return {key: detach(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(detach(child) for child in value)
    return value
