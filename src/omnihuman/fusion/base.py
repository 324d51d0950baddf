"""Fusion: several named streams -> one named stream."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from omnihuman.types import Features, Layout, Streams

_T = TypeVar("_T")


class Fusion(nn.Module, ABC):
    """Merge the streams ``inputs`` into the stream ``output``; leave all others alone.

    A projector takes one stream to the language model's width; everything else done to streams is a fusion.

    Args:
        dims: width of every stream that is there when the fusion runs.
        inputs: names of the streams to merge, in order; all of one width. The merge uses them up.
        output: name of the merged stream.
        condition: a stream of any width that steers the merge and stays.

    Attributes:
        out_dim: width of the merged stream.
        weights: what the last merge gave to each input, ``[B K]``, where the fusion weighs at all; for reports.

    Raises:
        ValueError: an input or the condition is not there, or the inputs differ in width.
    """

    weights: Tensor | None = None

    def __init__(
        self, dims: Mapping[str, int], inputs: Sequence[str], output: str, condition: str | None = None
    ) -> None:
        super().__init__()
        self.inputs, self.output, self.condition = tuple(inputs), output, condition
        name = type(self).__name__
        if not self.inputs:
            raise ValueError(f"{name} needs at least one stream in `inputs`; the streams here are {dict(dims)}.")
        if missing := sorted({*inputs, condition or inputs[0]} - set(dims)):
            raise ValueError(f"{name} reads {missing}, but the streams here are {dict(dims)}.")
        widths = {stream: dims[stream] for stream in inputs}
        if len(set(widths.values())) > 1:
            raise ValueError(f"{name} merges streams of one width, got {widths}: is a projector missing?")
        self.out_dim = int(widths[self.inputs[0]])  # a merge hands no levels on

    def forward(self, streams: Streams) -> Streams:
        condition = streams[self.condition] if self.condition else None
        merged = self.merge([streams[name] for name in self.inputs], condition)
        return self.without_inputs(streams) | {self.output: merged}

    def without_inputs(self, streams: Mapping[str, _T]) -> dict[str, _T]:
        """The streams (or their widths, or layouts) that the merge does not use up."""
        return {name: stream for name, stream in streams.items() if name not in self.inputs}

    @abstractmethod
    def layout(self, layouts: Sequence[Layout]) -> Layout:
        """Tokens that come out where ``layouts`` go in, in the order of ``inputs``.

        Raises:
            ValueError: the inputs cannot be merged.
        """

    @abstractmethod
    def merge(self, streams: list[Features], condition: Features | None) -> Features: ...
