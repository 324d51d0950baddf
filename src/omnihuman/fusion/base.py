"""Fusion: several named streams -> one named stream."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from omnihuman.types import Features, Layout, Streams, Width

_T = TypeVar("_T")


class Auxiliary(NamedTuple):
    """A loss beside that of the answers.

    Attributes:
        weight: its factor in the loss that is minimized.
        values: one for each row of the inputs.
    """

    weight: float
    values: Float[Tensor, " B"]


class Fusion(nn.Module, ABC):
    """Merge the streams ``inputs`` into the stream ``output``; leave all others as they are.

    A projector takes one stream to the width of the language model; every other operation on streams is a fusion. It
    runs before the projectors (``early_fusions``) or after them (``fusions``). A subclass declares what it takes in the
    class attributes below; this class checks the wiring against them, and the contract tests derive theirs from them.

    Args:
        dims: width of every stream at this point of the model.
        inputs: names of the streams to merge, in order; all of one width. The merge removes them.
        output: name of the merged stream.
        condition: a stream of any width that steers the merge and stays. Ignored where ``condition_use`` is
            ``ignored``, so that a fusion with a condition can be swapped for one without.

    Attributes:
        min_inputs: smallest number of inputs.
        max_inputs: largest number of inputs; ``None`` for no limit.
        condition_use: ``required``, ``optional`` or ``ignored``.
        aligned_condition: the condition must have the time steps of the inputs.
        reads_levels: the first input must offer levels. Only encoders offer them: an early fusion.
        reads_tiles: it puts the tokens of an image that is cut into tiles in order.
        out_dim: width of the merged stream.
        weights: weights of the inputs in the last merge, ``[B K]``, for fusions that compute any; for reports.
        is_present: whether a row of the last merge has a token in any of the inputs, ``[B]``.
        usage: mean weights over the samples of the previous optimizer step, over all ranks, which a training sets.

    Raises:
        ValueError: a stream does not exist, the inputs differ in width, or the wiring contradicts the attributes.
    """

    min_inputs: ClassVar[int] = 1
    max_inputs: ClassVar[int | None] = None
    condition_use: ClassVar[Literal["required", "optional", "ignored"]] = "ignored"
    aligned_condition: bool = False
    reads_levels: ClassVar[bool] = False
    reads_tiles: ClassVar[bool] = False
    weights: Tensor | None = None
    is_present: Tensor | None = None
    usage: Sequence[float] | None = None

    def __init__(
        self, dims: Mapping[str, int], inputs: Sequence[str], output: str, condition: str | None = None
    ) -> None:
        super().__init__()
        self.inputs, self.output, self.condition = tuple(inputs), output, condition
        self._check_inputs(dims)
        self._check_condition(dims)
        if self.reads_levels:
            self._check_levels(dims)
        self.out_dim = int(dims[self.inputs[0]])  # a merged stream has no levels

    def forward(self, streams: Streams) -> Streams:
        condition = None
        if self.condition is not None:
            condition = streams[self.condition]
        merged = self.merge([streams[name] for name in self.inputs], condition)
        masks = [streams[name].mask.flatten(1).any(dim=1) for name in self.inputs]
        self.is_present = torch.stack(masks).any(dim=0)
        return self.replace_inputs(streams, merged)

    def replace_inputs(self, streams: Mapping[str, _T], merged: _T) -> dict[str, _T]:
        """Return the streams (or their widths, or layouts) with the merged one in place of the inputs."""
        remaining = {name: stream for name, stream in streams.items() if name not in self.inputs}
        return remaining | {self.output: merged}

    @abstractmethod
    def layout(self, layouts: Sequence[Layout]) -> Layout:
        """Return the layout of the merged stream from those of ``inputs``, in their order.

        Raises:
            ValueError: the inputs cannot be merged.
        """

    @abstractmethod
    def merge(self, streams: list[Features], condition: Features | None) -> Features: ...

    def auxiliary_losses(self, tasks: Sequence[str | None], step: int) -> dict[str, Auxiliary]:
        """Return the losses of the last merge in training by their names, once; a fusion has none unless it says so.

        Args:
            tasks: of the rows.
            step: optimizer steps before this one.
        """
        return {}

    def check_alignment(self, layouts: Sequence[Layout], condition: Layout) -> None:
        """Check that the condition has the time steps of the inputs, where the merge needs it.

        Raises:
            ValueError: they differ.
        """
        if self.aligned_condition and condition.time_steps != layouts[-1].time_steps:
            raise ValueError(
                f"{self._name} joins frame by frame, but its input {self.inputs[-1]!r} has {layouts[-1].time_steps} "
                f"time steps and its condition {self.condition!r} has {condition.time_steps}: wire streams of the same "
                "frames."
            )

    @property
    def _name(self) -> str:
        """Name of the module, as in the presets."""
        return type(self).__module__.rpartition(".")[2]

    def _check_inputs(self, dims: Mapping[str, int]) -> None:
        fewest, most = self.min_inputs, self.max_inputs
        if len(self.inputs) < fewest or (most is not None and len(self.inputs) > most):
            raise ValueError(
                f"{self._name} merges {_describe_range(fewest, most)}, got inputs={list(self.inputs)}; the streams at "
                f"this point are {dict(dims)}. Change the inputs, or choose another fusion."
            )
        if missing := sorted(set(self.inputs) - set(dims)):
            raise ValueError(f"{self._name} reads {missing}, but the streams at this point are {dict(dims)}.")
        widths = {name: dims[name] for name in self.inputs}
        if len(set(widths.values())) > 1:
            raise ValueError(f"{self._name} merges streams of one width, got {widths}: is a projector missing?")

    def _check_condition(self, dims: Mapping[str, int]) -> None:
        if self.condition_use == "required" and self.condition is None:
            raise ValueError(
                f"{self._name} merges {list(self.inputs)} by a condition, got none: name a stream as `condition`, one "
                f"of {sorted(dims)}, or choose a fusion without a condition."
            )
        if self.condition is None:
            return
        if self.condition not in dims:
            raise ValueError(
                f"{self._name} reads the condition {self.condition!r}, but the streams at this point are {dict(dims)}."
            )
        if dims[self.condition] == 1 and self.condition_use != "ignored":
            raise ValueError(
                f"{self._name} reads the features of its condition, but {self.condition!r} has width 1, token ids "
                "without an embedding: choose an encoder such as bert."
            )

    def _check_levels(self, dims: Mapping[str, int]) -> None:
        stream = self.inputs[0]
        offers = sorted(name for name, width in dims.items() if isinstance(width, Width) and width.levels)
        if stream not in offers:
            raise ValueError(
                f"{self._name} reads the levels of {stream!r}, but that stream has none; streams with levels: "
                f"{offers or 'none'}. facexformer offers them, siglip and umt by their option `levels`. A projector "
                "or a fusion removes them: make this fusion the first early fusion of its input."
            )


def _describe_range(fewest: int, most: int | None) -> str:
    if most is None:
        return f"{fewest} or more streams"
    if fewest == most == 1:
        return "exactly one stream"
    return f"{fewest} to {most} streams"
