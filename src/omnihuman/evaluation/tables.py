"""Tables of numbers with intervals, written as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

TEXT_COLUMNS = ("method", "view", "protocol", "source")
"""Text attributes of a row: two before its numbers, two behind them."""
NUM_LEADING = 2

LATEX_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " "}
)
MARKDOWN_ESCAPES = str.maketrans({"|": "\\|", "<": "&lt;", "*": "\\*", "_": "\\_"})


@dataclass(frozen=True)
class Number:
    """A number in a table.

    Attributes:
        value: the number.
        decimals: digits after its point.
        low: lower end of its interval, ``None`` without one.
        high: upper end of its interval.
        is_best: best of its column.
        placeholder: text that is printed instead of the number, ``– (61 % judged)``; empty where the number is printed.
        deviation: standard deviation over training seeds, ``None`` where there is one seed.
    """

    value: float
    decimals: int = 2
    low: float | None = None
    high: float | None = None
    is_best: bool = False
    placeholder: str = ""
    deviation: float | None = None

    @property
    def text(self) -> str:
        """The printed number with its deviation, or its placeholder.

        >>> Number(82.4567).text, Number(82.4567, 1, deviation=1.21).text
        ('82.46', '82.5 ± 1.2')
        """
        text = self.placeholder or f"{self.value:.{self.decimals}f}"
        if self.placeholder or self.deviation is None:
            return text
        return f"{text} ± {self.deviation:.{self.decimals}f}"

    @property
    def interval(self) -> str:
        """The printed interval, ``[80.9, 84.0]``; empty without one."""
        if self.placeholder or self.low is None or self.high is None:
            return ""
        return f"[{self.low:.{self.decimals}f}, {self.high:.{self.decimals}f}]"

    @property
    def rounded(self) -> float:
        """The value as printed, so that equal printed values compare equal."""
        return round(self.value, self.decimals)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        method: its name.
        view: ``V``, ``A``, ``VA`` ...
        numbers: one per column, ``None`` where there is none.
        protocol: how they were measured.
        source: where they are published.
        is_ours: measured by this package, not copied from a paper.
    """

    method: str
    view: str
    numbers: tuple[Number | None, ...]
    protocol: str = ""
    source: str = ""
    is_ours: bool = False

    @property
    def texts(self) -> list[str]:
        """Its text attributes, in the order of ``TEXT_COLUMNS``."""
        return [getattr(self, name) for name in TEXT_COLUMNS]


@dataclass(frozen=True)
class Table:
    """A table: text columns around number columns.

    Attributes:
        title: above the table.
        columns: headers of the number columns.
        rows: the rows.
        footnotes: lines below the table.
        text_headers: headers of the four text columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...] = ()
    text_headers: tuple[str, str, str, str] = TEXT_COLUMNS

    @property
    def header(self) -> list[str]:
        """Headers of all columns."""
        return self.build_line(self.text_headers, self.columns)

    def build_line(self, texts: Sequence[str], numbers: Sequence[str]) -> list[str]:
        """Return the cells of one line; text columns that are empty in all rows are dropped."""
        return [*self.select_leading(texts), *numbers, *self.select_trailing(texts)]

    def select_leading(self, texts: Sequence[str]) -> list[str]:
        """Return the texts before the numbers."""
        return self._select_used(texts, slice(None, NUM_LEADING))

    def select_trailing(self, texts: Sequence[str]) -> list[str]:
        """Return the texts behind the numbers."""
        return self._select_used(texts, slice(NUM_LEADING, None))

    def _select_used(self, texts: Sequence[str], columns: slice) -> list[str]:
        used = []
        for name, text in zip(TEXT_COLUMNS[columns], texts[columns], strict=True):
            if any(getattr(row, name) for row in self.rows):
                used.append(text)
        return used


def format_markdown(table: Table) -> str:
    """Return a table in Markdown; the best number of each column is bold.

    >>> table = Table("t", ("war",), (Row("net", "VA", (Number(82.4, 1, is_best=True),)),))
    >>> print(format_markdown(table).splitlines()[-1])
    | net | VA | **82.4** |
    """
    ruler = table.build_line(["---"] * len(TEXT_COLUMNS), ["---:"] * len(table.columns))
    lines = [list(map(escape_markdown, table.header)), ruler]
    for row in table.rows:
        lines.append(table.build_line(list(map(escape_markdown, row.texts)), list(map(_markdown_number, row.numbers))))
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    footnotes = "".join(f"\n\n{escape_markdown(line)}" for line in table.footnotes)
    return f"### {escape_markdown(table.title)}\n\n{body}{footnotes}\n"


def _markdown_number(number: Number | None) -> str:
    if number is None:
        return "–"
    text = number.text
    if number.is_best:
        text = f"**{text}**"
    return f"{text} {number.interval}".rstrip()


def escape_markdown(text: str) -> str:
    """Return the text on one line, with its Markdown syntax escaped."""
    return re.sub(r"\s*\n\s*", " ⏎ ", text).translate(MARKDOWN_ESCAPES)


def format_latex(table: Table) -> str:
    """Return a LaTeX table for ``booktabs``, with a rule between the papers' rows and ours."""
    lines = []
    for comment in (table.title, *table.footnotes):
        lines.append(re.sub(r"\s+", " ", f"% {comment}"))
    alignment = "".join(table.build_line("l" * len(TEXT_COLUMNS), "r" * len(table.columns)))
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", _latex_line(table.header), r"\midrule"]
    previous = None
    for row in table.rows:
        if previous is not None and row.is_ours and not previous.is_ours:
            lines.append(r"\midrule")
        texts = [text.translate(LATEX_ESCAPES) for text in row.texts]
        lines.append(" & ".join(table.build_line(texts, list(map(_latex_number, row.numbers)))) + r" \\")
        previous = row
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def format_latex_float(table: Table, label: str) -> str:
    r"""Return a LaTeX table with caption and label, ready for a paper that loads ``booktabs``.

    Args:
        table: its title and footnotes are the caption.
        label: of the table, for ``\ref``.
    """
    tabular = format_latex(replace(table, title="", footnotes=())).partition("\n")[2]
    caption = re.sub(r"\s+", " ", " ".join([f"{table.title.rstrip('.')}.", *table.footnotes])).translate(LATEX_ESCAPES)
    head = [r"\begin{table}[t]", r"\centering", rf"\caption{{{caption}}}", rf"\label{{{label}}}"]
    return "\n".join([*head, tabular.rstrip("\n"), r"\end{table}"]) + "\n"


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(text.translate(LATEX_ESCAPES) for text in texts) + r" \\"


def _latex_number(number: Number | None) -> str:
    if number is None:
        return "--"
    text = number.text.translate(LATEX_ESCAPES)
    if number.is_best:
        text = rf"\textbf{{{text}}}"
    if number.interval:
        text += rf" {{\scriptsize {number.interval}}}"
    return text


def format_csv(table: Table) -> str:
    """Return a table in CSV; numbers that are not printed are empty.

    Behind each number are the ends of its interval, and its deviation where a number of the table has one.
    """
    has_deviations = any(map(_has_deviation, table.rows))
    suffixes = ("", " low", " high", " sd") if has_deviations else ("", " low", " high")
    headers: list[str] = []
    for name in table.columns:
        headers += [f"{name}{suffix}" for suffix in suffixes]
    lines = [table.build_line(table.text_headers, headers)]
    for row in table.rows:
        numbers: list[str] = []
        for number in row.numbers:
            numbers += _csv_number(number)[: len(suffixes)]
        lines.append(table.build_line(row.texts, numbers))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _has_deviation(row: Row) -> bool:
    return any(number is not None and number.deviation is not None for number in row.numbers)


def _csv_number(number: Number | None) -> list[str]:
    if number is None or number.placeholder:
        return [""] * 4
    ends = (number.low, number.high) if number.interval else (None, None)
    return [_csv_value(value) for value in (number.value, *ends, number.deviation)]


def _csv_value(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def write_csv_lines(file: Path, lines: Sequence[Sequence[object]]) -> None:
    """Write lines to a CSV file, the same bytes on every system."""
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(lines)


def write_table(table: Table, folder: Path, name: str = "table", appendix: Sequence[Table] = ()) -> None:
    """Write a table as ``<name>.md``, ``.tex`` and ``.csv``; the tables of the appendix follow in the Markdown."""
    text = "\n".join(map(format_markdown, (table, *appendix)))
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.tex").write_text(format_latex(table), encoding="utf-8")
    (folder / f"{name}.csv").write_text(format_csv(table), encoding="utf-8", newline="")
