"""HumanOmni's instruction-driven fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnihuman.fusion.base import Auxiliary, Fusion
from omnihuman.nn.streams import require_equal_layouts
from omnihuman.types import IGNORE_INDEX, Features, Layout


class InstructionGate(Fusion):
    """Streams of one layout ``[B T N D]`` -> their sum, weighted by the instruction.

    There is one weight per sample and stream; ``weights`` holds those of the last call.

    Reference: paper §2, Eq. 1; official ``humanomni_arch.py``: Linear - GELU - Linear - softmax over [CLS], inputs in
    the order interaction, body, face.

    The options from ``temperature`` on are not of the paper. In training, ``balance`` adds K * sum_k m_k * w_k for each
    sample: w are its weights, m the mean weights of the previous optimizer step, a constant, so that the loss is a sum
    over samples and no matter of how they are packed. It is least, 1, where all streams are used alike, whatever the
    weights of a single sample. After Switch Transformers (Fedus et al. 2022, Eq. 4), where m is the share of the tokens
    that an expert gets in the same batch. ``warm_start`` adds the cross-entropy between the weights and a stream that
    is named for the sample's task, during the first steps. A sample without tokens of the streams adds nothing.

    Args:
        dims: width of every stream.
        inputs: streams to sum, in order.
        output: name of the sum.
        condition: stream whose first token summarises the instruction.
        hidden: width of the hidden layer (official: 3584 at both sizes).
        activation: ``softmax`` (official code) or ``none`` (the paper's Eq. 1 has none).
        temperature: divides the logits before the softmax, also after training.
        balance: factor of the balance loss; 0 for none.
        warm_start: task -> stream, for tasks whose weights are supervised at the start; ``None`` for none.
        warm_start_weight: factor of that loss.
        warm_start_steps: optimizer steps with it.

    Raises:
        ValueError: there is no condition, an option is invalid, or the streams differ in layout.

    >>> gate = InstructionGate({"a": 8, "b": 8, "text": 4}, ["a", "b"], "video", "text", hidden=16)
    >>> one = Features.of(torch.ones(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))
    >>> text = Features.of(torch.ones(2, 1, 1, 4), torch.ones(2, 1, dtype=torch.bool))
    >>> gate({"a": one, "b": one, "text": text})["video"].tokens.shape
    torch.Size([2, 3, 4, 8])
    """

    condition_use = "required"

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        hidden: int = 3584,
        activation: Literal["softmax", "none"] = "softmax",
        temperature: float = 1.0,
        balance: float = 0.0,
        warm_start: Mapping[str, str] | None = None,
        warm_start_weight: float = 1.0,
        warm_start_steps: int = 50,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        assert condition is not None
        self.activation, self.temperature, self.balance = activation, temperature, balance
        self.warm_start, self.warm_start_weight = dict(warm_start or {}), warm_start_weight
        self.warm_start_steps = warm_start_steps
        self._check_options()
        self._logits: Tensor | None = None  # of the last merge in training, for the losses
        self.layers = nn.Sequential(nn.Linear(dims[condition], hidden), nn.GELU(), nn.Linear(hidden, len(self.inputs)))

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return require_equal_layouts(layouts, self.inputs, "gate")

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        assert condition is not None
        self.layout([Layout(s.tokens.shape[1], s.tokens.shape[2], s.grid) for s in streams])
        # zeros in place of a missing instruction: all such samples have the same weights
        summary = condition.tokens[:, 0, 0].masked_fill(~condition.mask[:, 0, :1], 0)
        weights = self.layers(summary)
        if self.activation == "softmax":
            logits = weights / self.temperature
            weights = logits.softmax(dim=-1)
            self._logits = logits if self.training and (self.balance or self.warm_start) else None
        self.weights = weights.detach()
        tokens = torch.zeros_like(streams[0].tokens)
        for stream, weight in zip(streams, weights.unbind(dim=-1), strict=True):
            tokens = tokens + stream.tokens * weight[:, None, None, None].to(stream.tokens.dtype)
        return replace(streams[0], tokens=tokens, levels=())

    def auxiliary_losses(self, tasks: Sequence[str | None], step: int) -> dict[str, Auxiliary]:
        logits, self._logits = self._logits, None
        losses: dict[str, Auxiliary] = {}
        if logits is None:
            return losses
        num_inputs = len(self.inputs)
        if self.balance:
            usage = logits.new_tensor(self.usage or [1 / num_inputs] * num_inputs)
            losses["balance"] = Auxiliary(self.balance, num_inputs * (logits.softmax(dim=-1) * usage).sum(dim=-1))
        if self.warm_start:
            targets = [self._find_target(task) for task in tasks]
            values = F.cross_entropy(logits, torch.tensor(targets, device=logits.device), reduction="none")
            is_start = step < self.warm_start_steps  # later it is computed to be logged
            losses["warm_start"] = Auxiliary(self.warm_start_weight * is_start, values)
        return losses

    def _find_target(self, task: str | None) -> int:
        """Return the index of the stream that is named for a task, or the index that ``cross_entropy`` ignores."""
        stream = self.warm_start.get(str(task))
        return IGNORE_INDEX if stream is None else self.inputs.index(stream)

    def _check_options(self) -> None:
        if self.temperature <= 0 or min(self.balance, self.warm_start_weight, self.warm_start_steps) < 0:
            raise ValueError(
                f"gate: temperature={self.temperature} must be above 0, and balance={self.balance}, "
                f"warm_start_weight={self.warm_start_weight}, warm_start_steps={self.warm_start_steps} at least 0."
            )
        if self.activation != "softmax" and (self.temperature != 1 or self.balance or self.warm_start):
            raise ValueError(
                f"gate: activation={self.activation} has no softmax, which temperature, balance and warm_start are "
                "about: set activation=softmax, or leave them out."
            )
        if unknown := sorted(set(self.warm_start.values()) - set(self.inputs)):
            raise ValueError(f"gate: warm_start names {unknown}; expected some of the inputs {list(self.inputs)}.")
