"""Requests of an operator on disk: each is noted before it is sent, and the model that replies is remembered."""

import errno
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from omnihuman.operator.base import SetupError

LINE_LENGTH = len("2026-11-28T11:00:00Z\n")
MODEL = "model.txt"


class CallLog:
    """Appends a line to a file of this process before every request, which no kill can take back.

    Args:
        folder: of the operator's partitions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def note(self) -> None:
        """Note that a request is about to be sent; safe in threads.

        Raises:
            SetupError: the disk is full, or the folder cannot be written.
        """
        line = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ\n").encode()
        try:
            if self._descriptor is None:
                path = self.folder / f"calls-{os.getpid()}-{secrets.token_hex(4)}.log"  # processes of several machines
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC, 0o644)
            os.write(self._descriptor, line)
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            raise SetupError(f"{self.folder}: no call can be noted: {reason}; make room, and try again.") from error


def count_calls(folder: Path) -> int:
    """Return the requests of an operator since its folder is there, those that a kill has interrupted included."""
    return sum(file.stat().st_size // LINE_LENGTH for file in folder.glob("calls-*.log"))


def check_model(folder: Path, name: str, model: str, alias: str) -> None:
    """Check that all replies of an operator are of one model; the first one decides.

    Args:
        folder: of the operator's partitions.
        name: of the operator.
        model: that has replied, as the endpoint reports it.
        alias: that was requested.

    Raises:
        SetupError: an earlier reply was of another model.
    """
    file = folder / MODEL
    if not file.is_file():
        temporary = file.with_name(f".{MODEL}.{secrets.token_hex(4)}.tmp")
        temporary.write_text(model, encoding="utf-8")
        try:
            os.link(temporary, file)
        except FileExistsError:  # another worker was first
            pass
        finally:
            temporary.unlink()
    first = file.read_text(encoding="utf-8")
    if first != model:
        raise SetupError(
            f"{name}: {alias} is the model {model} now, and was {first} before: the replies of {folder} would be of "
            f"two models. Name one version of it (captioner.model=), or accept both: "
            f"pipeline.operators.{name}.one_model=false."
        )
