"""Projector: Features of an encoder -> Features of the language model's width."""

from abc import ABC, abstractmethod

from torch import nn

from omnihuman.types import Features, Layout


class Projector(nn.Module, ABC):
    """Project one stream to the width of the language model: ``[B T N in_dim]`` -> ``[B T' N' out_dim]``.

    Args:
        in_dim: width of the stream that it reads.
        out_dim: width of the language model.

    Attributes:
        condition_dim: width of the stream that steers the projector; ``forward`` then has a second parameter
            ``condition``, see ``OmniModel.conditions``. ``None`` for a projector without a condition.
    """

    condition_dim: int | None = None

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim

    @abstractmethod
    def layout(self, layout: Layout) -> Layout:
        """Return the layout of the projected tokens.

        Raises:
            ValueError: the projector cannot read a stream of this layout.
        """

    @abstractmethod
    def forward(self, features: Features) -> Features: ...
