"""Sizes of a model from the shapes of its parameters."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a parameter -> its shape."""

HEAD_DIM = 64
"""Width of an attention head in every UMT, and in BERT, whose sizes a Q-Former has."""


def find_shape(file: Path, shapes: Shapes, name: str) -> tuple[int, ...]:
    """Return the shape of a parameter.

    Raises:
        ValueError: the checkpoint ``file`` does not have it.
    """
    if name not in shapes:
        raise ValueError(f"{file} has no key for {name}: is the download complete?")
    return shapes[name]


def count_names(names: Iterable[str], pattern: str) -> int:
    """Return how many names of the pattern exist without a gap, counted from 0."""
    names = set(names)
    return next(number for number in itertools.count() if pattern.format(number) not in names)
