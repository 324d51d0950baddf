"""What became of the keys of an official checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What became of every official key.

    Attributes:
        taken: official key -> our name.
        dropped: official key -> why nothing reads it.
    """

    taken: Mapping[str, str]
    dropped: Mapping[str, str]
