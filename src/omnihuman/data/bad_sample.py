"""The error of a sample."""

from typing import Any


class BadSample(ValueError):
    """A sample that cannot be used.

    Attributes:
        reason: a short code that is counted: ``missing_file``, ``truncated``, ``unknown_role`` ...
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))  # exceptions of two arguments do not unpickle by themselves
