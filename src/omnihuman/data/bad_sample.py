"""The error of a sample."""

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class BadSample(ValueError):
    """A sample that cannot be used.

    Attributes:
        reason: a short code that is counted: ``missing_file``, ``truncated``, ``unknown_role`` ...
        file: that is missing, where the record could not be built for it.
    """

    def __init__(self, reason: str, message: str, file: Path | None = None) -> None:
        super().__init__(message)
        self.reason, self.file = reason, file

    def __reduce__(self) -> tuple[Any, ...]:
        # exceptions of several arguments do not unpickle by themselves
        return type(self), (self.reason, str(self), self.file)


def explain_unexpected(error: Exception, place: str, policy: str) -> Exception:
    """Return what an error that is no ``BadSample`` becomes, named with its place.

    A sample that a library or an encoder's transform cannot cope with is skipped like any other. The policy ``raise``
    shows the traceback.
    """
    message = f"{place}: {type(error).__name__}: {error}"
    if policy == "raise":
        return RuntimeError(message)
    log.error("%s", message, exc_info=error)
    return BadSample("unexpected_error", message)
