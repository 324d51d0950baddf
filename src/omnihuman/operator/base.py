"""Operators: rows of clips in, one outcome a row out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

Row = dict[str, Any]
"""Columns of a clip.

Besides the columns that an operator reads it has ``file``, ``start`` and ``end``: the media file and the span of it to
open, in seconds; ``end`` is ``None`` for the end of the file. A file that an operator has written is opened from its
beginning; ``source_start`` is then the second of its source at which it begins."""

Columns = Mapping[str, pa.DataType]
"""Name -> type. Among the columns that an operator reads, ``None`` stands for any type."""


def columns(**types: pa.DataType | None) -> Columns:
    """Return columns by their names, in order."""
    return types


IDENTITY: Columns = {
    "id": pa.string(),
    "source": pa.string(),
    "media": pa.string(),
    "digest": pa.string(),
    "start": pa.float64(),
    "end": pa.float64(),
    "track": pa.int64(),
    "split": pa.string(),
}
"""Columns of every row, which an operator may read without declaring them.

``source`` is the file relative to the root, ``start`` and ``end`` its span, and ``media`` a file that an operator has
written of it, relative to ``out``.
"""

SPAN = ("start", "end", "track")
"""Columns that make another row of a row, with an id of its own, where an operator writes them."""

BOX = pa.list_(pa.float32())
"""x0, y0, x1, y1 in pixels of the upright frame."""

TRACKS = pa.list_(
    pa.struct(
        {"track": pa.int64(), "times": pa.list_(pa.float64()), "boxes": pa.list_(BOX), "scores": pa.list_(pa.float32())}
    )
)
"""Faces or persons through time: their number, and the seconds in the file, boxes and scores of their frames."""

WORDS = pa.list_(pa.struct({"word": pa.string(), "start": pa.float64(), "end": pa.float64()}))
"""Spoken words, with their seconds in the file."""

FRAMES = pa.list_(pa.struct({"time": pa.float64(), "jpeg": pa.binary()}))
"""Frames of a clip, with their seconds in the file."""


@dataclass(frozen=True, slots=True)
class Wants:
    """Resources of a worker.

    Attributes:
        cpus: cores.
        gpus: shares of a GPU.
        calls: requests to a language model for each row.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    calls: float = 0.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """The end of a row that the pipeline does not want.

    Attributes:
        why: a code that is counted: ``too_small``.
        detail: values that decided it.
    """

    why: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of a row that could not be worked on.

    Attributes:
        why: a code that is counted: ``missing_file``, ``timeout``.
        detail: the error, in one line.
    """

    why: str
    detail: str = ""


Outcome = Row | list[Row] | Dropped | Failed
"""The columns that an operator writes; several rows in place of one, none of them being a drop; or the row's end."""


class SetupError(ValueError):
    """A mistake that every other row would meet as well: it ends the run, and no row has failed."""


class Operator(ABC):
    """A part of a pipeline.

    Its constructor only keeps its options: an operator travels to the workers before ``setup``.

    Attributes:
        reads: columns that it needs.
        writes: columns that every row of its outcomes has.
        version: raised when the meaning of its code changes, so that its rows are computed anew.
        wants: of a worker.
        modules: that it imports beyond the dependencies of the package, separated by spaces.
        opens_media: it reads the file of every row.
        is_barrier: all partitions come to it before it works on the first one.
        incidental: options that do not decide the rows, so that they can change without computing them anew.
    """

    reads: Columns = columns()
    writes: Columns = columns()
    version: ClassVar[str] = "1"
    wants: ClassVar[Wants] = Wants()
    modules: str = ""
    opens_media: ClassVar[bool] = False
    is_barrier: ClassVar[bool] = False
    incidental: Sequence[str] = ("timeout", "batch_size")

    def setup(self, folder: Path) -> None:
        """Load models and open clients, once a worker.

        Args:
            folder: of the operator's partitions, for media that it writes.
        """
        self.folder = folder

    @abstractmethod
    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        """Yield one outcome a row, in order; what it raises becomes a failed row."""

    def take_cost(self) -> Mapping[str, float]:
        """Return the calls, tokens, dollars and GPU seconds since it was last called."""
        return {}

    def identity(self) -> Mapping[str, Any]:
        """Return plain values that decide the rows besides the options, such as the digest of a model file."""
        return {}


class Global(Operator):
    """An operator that decides on the rows of all partitions at once, by the columns that ``apply`` has written.

    Attributes:
        compares: columns that it decides by, of those that it reads and writes; narrow ones, because those of all rows
            are in memory at once.
        decides: columns that every row of its decision has.
    """

    compares: Columns = columns()
    decides: Columns = columns()

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for _ in rows:
            yield {}

    @abstractmethod
    def decide(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        """Return one outcome for each live row of all partitions, which come in the order of the source."""

    def is_complete(self, folder: Path) -> bool:
        """Return true if all is still there that the operator has written besides its decision.

        Args:
            folder: of its decision.
        """
        return True
