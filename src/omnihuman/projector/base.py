"""Projector: Features of an encoder -> Features of the language model's width."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from omnihuman.types import Features, Layout


class Projector(nn.Module, ABC):
    """Take one stream to the width of the language model; may change T and N.

    Args:
        in_dim: width of the stream it reads.
        out_dim: width of the language model.

    Attributes:
        takes_condition: ``forward`` has a second parameter ``condition``, a stream that steers it; see
            ``OmniModel.conditions``.
    """

    takes_condition: ClassVar[bool] = False

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Tokens that come out where ``layout`` goes in."""

    @abstractmethod
    def forward(self, features: Features) -> Features: ...
