"""Annotated clips in a table: CSV, TSV or Parquet, one row each."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.modality import KINDS
from omnihuman.source.annotation import Annotation, AnnotationSource
from omnihuman.source.parquet import ParquetSource

DELIMITERS = (",", ";", "\t", "|")
SHEETS = (".xls", ".xlsx", ".xlsm", ".ods", ".numbers")
EXCEL_CURE = 'save the sheet as "CSV UTF-8"'

FIELD = re.compile(r"\{([^{}]+)\}")
"""A column within a text: ``clips/{clip}.mp4``."""

Row = Mapping[str, str]
"""Column -> cell, without white space around it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text.

    Attributes:
        columns: names in the header.
        rows: number of the row as a spreadsheet counts it (the header is 1), and its cells or what is wrong with it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Row | BadSample], ...]


class TableSource(AnnotationSource):
    """The clips of a table, one row each: a label or a text about a file.

    A key that names a column can also be a text with columns in braces, ``video="clips/{clip}.mp4"``. ``question`` and
    ``system`` are such texts: ``question="{question}"`` is a column.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.txt`` file in UTF-8, or a ``.parquet`` file.
        root: folder that all media paths are relative to and may not leave.
        answer: column of the labels or texts.
        video: column of the videos; with ``audio`` as well, the audio is that of the other file.
        audio: column of the audio files.
        image: column of the images.
        question: asked of every clip; ``None``: that of ``questions``, or which of the options fits best.
        questions: wordings of the question of training records, see ``load_questions``.
        options: classes of the answers, see ``find_labels``.
        start: column of the first second.
        end: column of the last second.
        split: column of the split.
        person: column of the person in the clip.
        gender: column of the gender of this person.
        task: name of what is asked for; ``None``: the column of the answers.
        system: system prompt.
        delimiter: between cells; ``None``: the one of comma, semicolon, tab and bar that makes most columns.
        follow_links: accept links in the root to files outside.

    Raises:
        ValueError: no column of files or of answers is named.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        answer: str | None = None,
        video: str | None = None,
        audio: str | None = None,
        image: str | None = None,
        question: str | None = None,
        questions: str | None = None,
        options: Any = None,
        start: str | None = None,
        end: str | None = None,
        split: str | None = None,
        person: str | None = None,
        gender: str | None = None,
        task: str | None = None,
        system: str | None = None,
        delimiter: str | None = None,
        follow_links: bool = False,
    ) -> None:
        fixed = question if question is None or not FIELD.search(question) else None
        task = task or re.sub(r"\W+", "_", str(answer)).strip("_").lower()
        questions = questions if question is None else None
        super().__init__(
            path, root, task=task, question=fixed, questions=questions, options=options, follow_links=follow_links
        )
        columns = {"video": video, "audio": audio, "image": image, "answer": answer, "start": start, "end": end}
        self.columns = {**columns, "split": split, "person": person, "gender": gender}
        self.texts = {"question": None if fixed else question, "system": system}
        self.delimiter = delimiter

    def annotations(self) -> Iterator[Annotation]:
        table = read_table(self.path, self.delimiter)
        self._check_keys(table)
        getters = {key: self._compile(key, value, table) for key, value in self.columns.items() if value}
        texts = {key: _compile_text(key, value, table, self.path) for key, value in self.texts.items() if value}
        for number, row in table.rows:
            place = f"{self.path} row {number}"
            if isinstance(row, BadSample):
                yield Annotation(place, error=row)
                continue
            cells: dict[str, Any] = {key: getter(row) for key, getter in (getters | texts).items()}
            files: dict[str, str] = {kind: cells.pop(kind) for kind in KINDS if kind in cells}
            gender = cells.pop("gender", "")
            meta = {"gender": gender} if gender else {}
            yield Annotation(place, files=files, meta=meta, **cells)

    def _check_keys(self, table: Table) -> None:
        columns = ", ".join(table.columns)
        if not any(self.columns[kind] for kind in KINDS):
            raise ValueError(f"name the column of the files: video=, audio= or image=; {self.path} has {columns}.")
        if not self.columns["answer"]:
            raise ValueError(f"name the column of the labels: answer=; {self.path} has {columns}.")

    def _compile(self, key: str, value: str, table: Table) -> Callable[[Row], str]:
        """Return the function that reads the cell of a key: of its column, or a text with columns in braces."""
        if FIELD.search(value):
            return _compile_text(key, value, table, self.path)
        check_column(f"{key}={value}", value, table, self.path)
        return lambda row: row[value]


def _compile_text(key: str, text: str, table: Table, path: Path) -> Callable[[Row], str]:
    """Return the function that fills a text with the cells of a row; it is empty if one of them is."""
    names = FIELD.findall(text)
    for name in names:
        check_column(f"{key}={text}", name, table, path)

    def fill(row: Row) -> str:
        if not all(row[name] for name in names):
            return ""
        return FIELD.sub(lambda match: row[match[1]], text)

    return fill


def check_column(argument: str, name: str, table: Table, path: Path) -> None:
    """Check that a table has a column.

    Raises:
        ValueError: it has none of this name.
    """
    if name in table.columns:
        return
    lower = {column.casefold(): column for column in table.columns}
    near = [lower[match] for match in get_close_matches(name.casefold(), lower, 1, 0.6)]
    hint = f"; did you mean {near[0]}?" if near else ";"
    raise ValueError(f"{argument}: {path} has no column {name}{hint} Its columns are {', '.join(table.columns)}.")


def read_table(
    path: Path, delimiter: str | None = None, names: Sequence[str] = (), *, has_quotes: bool = True
) -> Table:
    """Return a table.

    Args:
        path: a Parquet file, or a text file in UTF-8.
        delimiter: between the cells of a text file; ``None``: the one that makes most columns of the header.
        names: of the columns of a text file without a header.
        has_quotes: a cell of a text file can be in quotes; else a quote is a character.

    Raises:
        ValueError: the file is missing, of another kind or encoding, or has no header or row.
    """
    if not path.is_file():
        raise ValueError(f"path={path}: there is no such table.")
    if path.suffix.lower() in SHEETS:
        raise ValueError(f"path={path}: a spreadsheet is not read; {EXCEL_CURE}.")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path, delimiter, names, has_quotes)
    if repeated := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise ValueError(f"{path}: the header names {repeated[0]} twice; rename one of the columns.")
    if not table.rows:
        raise ValueError(f"{path}: the table has no row below its header.")
    return table


def _read_parquet(path: Path) -> Table:
    rows = [row for _, row in ParquetSource(path, path.parent).entries()]
    columns = dict[str, None]()
    for row in rows:
        columns |= dict.fromkeys(row)  # without those that hold nulls only
    numbered = list[tuple[int, Row | BadSample]]()
    for number, row in enumerate(rows, 1):
        numbered.append((number, {column: _write_cell(row.get(column)) for column in columns}))
    return Table(tuple(columns), tuple(numbered))


def _write_cell(value: Any) -> str:
    """Return a value of a Parquet file as text: whole numbers without a point, empty for no number."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _read_text(path: Path, delimiter: str | None, names: Sequence[str], has_quotes: bool) -> Table:
    text = _decode(path)
    first, _, rest = text.partition("\n")
    if first.startswith("sep="):  # Excel's line about the delimiter
        delimiter, text = first[4:].strip() or delimiter, rest
    rows = enumerate(_parse_rows(path, text, delimiter or _find_delimiter(text), has_quotes), 1)
    if names:
        return Table(tuple(names), tuple(_name_cells(names, rows)))
    header = next(((number, cells) for number, cells in rows if any(cells)), None)
    if header is None:
        raise ValueError(f"{path}: the table is empty.")
    columns = header[1]
    while columns and not columns[-1]:
        columns.pop()
    table = Table(tuple(filter(None, columns)), tuple(_name_cells(columns, rows)))
    return table


def _decode(path: Path) -> str:
    """Return a text file with line feeds at the ends of its lines.

    Raises:
        ValueError: it is not UTF-8.
    """
    data = path.read_bytes()
    cure = f"in Excel, {EXCEL_CURE}; or iconv -f WINDOWS-1252 -t UTF-8 {path} > {path.stem}_utf8{path.suffix}"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is UTF-16, not UTF-8: {cure.replace('WINDOWS-1252', 'UTF-16')}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path} is not UTF-8 (line {line}): {cure}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _find_delimiter(text: str) -> str:
    """Return the delimiter that makes most columns of the first line.

    >>> _find_delimiter('clip;"joy, or anger";split')
    ';'
    """
    header = next((line for line in text.split("\n") if line.strip()), "")
    counts = {delimiter: len(next(csv.reader([header], delimiter=delimiter))) for delimiter in DELIMITERS}
    return max(DELIMITERS, key=lambda delimiter: counts[delimiter])


def _parse_rows(path: Path, text: str, delimiter: str, has_quotes: bool) -> Iterator[list[str]]:
    """Yield the cells of every row, without white space around them; an empty line is a row without cells.

    Raises:
        ValueError: the delimiter is no single character, or a quote is not closed.
    """
    if len(delimiter) != 1:
        raise ValueError(f"source.delimiter={delimiter}: expected one character.")
    quoting: Any = csv.QUOTE_MINIMAL if has_quotes else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True, quoting=quoting)
    try:
        for cells in reader:
            yield [cell.strip() for cell in cells]
    except csv.Error as error:
        cure = 'a cell with quotes or the delimiter is written "a ""b"""'
        raise ValueError(f"{path}:{reader.line_num}: malformed CSV ({error}); {cure}.") from error


def _name_cells(columns: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Row | BadSample]]:
    """Yield the cells of every row by column; a missing cell is empty, as Excel leaves it out at the end of a row."""
    for number, cells in rows:
        if not any(cells):
            continue
        if any(cells[len(columns) :]):
            message = f"the row has {len(cells)} cells, the header {len(columns)}; quote a cell that has the delimiter."
            yield number, BadSample("malformed_row", message)
            continue
        padded = cells + [""] * (len(columns) - len(cells))
        yield number, {column: cell for column, cell in zip(columns, padded, strict=False) if column}
