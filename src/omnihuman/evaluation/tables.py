"""Figures beside those that the papers print: one table, written as Markdown, LaTeX and CSV."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import Peer

LEAST_COVERAGE = 0.98
"""Judged figures of fewer of the questions are not printed."""

WORDS = ("method", "modality", "protocol", "source")
"""What a row says in words: two before its figures, two behind."""

MARKS = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " "}
)
"""What LaTeX takes for its own -> as it prints it."""
PLAIN = {ord("|"): "\\|", ord("<"): "&lt;", ord("*"): "\\*", ord("_"): "\\_"}


@dataclass(frozen=True)
class Figure:
    """A number in a table.

    Attributes:
        value: the number.
        digits: after its point.
        low: of its interval, where it has one.
        high: of its interval.
        best: of its column.
        instead: what is printed in its place, ``– (61 % judged)``; empty where the number is.
    """

    value: float
    digits: int = 2
    low: float | None = None
    high: float | None = None
    best: bool = False
    instead: str = ""

    @property
    def text(self) -> str:
        """The number as printed, or what stands in its place.

        >>> Figure(82.4567).text
        '82.46'
        """
        return self.instead or f"{self.value:.{self.digits}f}"

    @property
    def interval(self) -> str:
        """``[80.9, 84.0]``, or nothing."""
        if self.instead or self.low is None or self.high is None:
            return ""
        return f"[{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        method: its name.
        modality: ``V``, ``A``, ``VA`` ...
        figures: one a column, ``None`` where there is none.
        protocol: how they were measured.
        source: who says so.
        ours: whether it is a row of this report.
    """

    method: str
    modality: str
    figures: tuple[Figure | None, ...]
    protocol: str = ""
    source: str = ""
    ours: bool = False

    @property
    def words(self) -> tuple[str, str, str, str]:
        """All but the figures, as ``WORDS`` names them."""
        return self.method, self.modality, self.protocol, self.source


@dataclass(frozen=True)
class Table:
    """A title, columns of figures, rows, and lines below; ``names`` stand above what a row says in words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    foot: tuple[str, ...] = ()
    names: tuple[str, str, str, str] = WORDS

    def around(self, words: Sequence[str], figures: Sequence[str]) -> list[str]:
        """A line: two of its words, its figures, two more words; words that no row has are left out."""
        used = [any(getattr(row, name) for row in self.rows) for name in WORDS]
        kept = [[word for word, use in zip(words[i : i + 2], used[i : i + 2], strict=True) if use] for i in (0, 2)]
        return [*kept[0], *figures, *kept[1]]

    @property
    def before(self) -> int:
        """How many words stand before the figures."""
        return sum(any(getattr(row, name) for row in self.rows) for name in WORDS[:2])

    @property
    def heads(self) -> list[str]:
        """Of all columns."""
        return self.around(self.names, self.columns)


def compare(reports: Sequence[Mapping[str, Any]], peers: Sequence[Peer], force: bool = False) -> Table:
    """Evaluations of one benchmark beside the papers' rows.

    Figures of a judge have columns of their own: those of two judges, or of an unnamed one, cannot be compared. What a
    judge of rules says stays out.

    Args:
        reports: what ``metrics.json`` holds, one or more (V, A, VA).
        peers: of the benchmark.
        force: print judged figures of whatever coverage.
    """
    reports = sorted(reports, key=lambda report: _order(report["modality"]))
    own = {name: score for report in reports for name, score in report["scores"].items()}
    named = [name for name in dict.fromkeys(name for peer in peers for name in peer.values) if name in own]
    plain = named or [name for name in own if "/" not in name] or list(own)
    foreign = dict.fromkeys(name for peer in peers for name in peer.values if name not in own)
    columns: dict[tuple[str, str], None] = {}  # (score, judge), in order
    for name in named if next(iter(own)) in named else dict.fromkeys([*list(own)[:1], *plain]):
        if not own[name]["judged"] or name in named:
            columns[name, ""] = None
        for report in reports:
            if own[name]["judged"] and name in report["scores"] and not report["judge_is_offline"]:
                columns[name, report["judge"]] = None
    columns |= {(name, ""): None for name in foreign}
    digits = {name: _digits(name, own, peers) for name, _ in columns}
    rows = [
        Row(
            peer.method, peer.modality,
            tuple(Figure(float(peer.values[n]), digits[n]) if n in peer.values and not j else None for n, j in columns),
            peer.protocol, peer.source,
        )
        for peer in peers
    ]  # fmt: skip
    ours = [_own(report, tuple(columns), digits, force) for report in reports]
    rows = _with_best([*rows, *ours], [own.get(name, {}).get("higher_is_better") for name, _ in columns])
    rows[len(peers) : len(peers)] = _floors(reports, tuple(columns), digits)
    heads = tuple(name + (f" ({judge})" if judge else "") for name, judge in columns)
    return Table(str(reports[0]["benchmark"]), heads, tuple(rows), tuple(_foot(reports)))


def modalities(reports: Sequence[Mapping[str, Any]], force: bool = False) -> Table:
    """One checkpoint with each modality it was asked with, over all benchmarks: a column each, the headline's.

    Reference: HumanOmni, table 6.
    """
    heads: dict[str, dict[tuple[str, str], Any]] = {}
    for report in reports:
        fit = [each for each in report["scores"].items() if not (each[1]["judged"] and report["judge_is_offline"])]
        for name, score in fit[:1]:
            head = f"{report['benchmark']} {name}" + (f" ({report['judge']})" if score["judged"] else "")
            heads.setdefault(head, {})[_row_of(report)] = score
    rows = [
        Row(*line, tuple(_figure(found.get(line), None, force) for found in heads.values()), ours=True)
        for line in sorted({_row_of(report) for report in reports}, key=lambda line: (line[0], _order(line[1])))
    ]
    rows = _with_best(rows, [next(iter(found.values()))["higher_is_better"] for found in heads.values()])
    title = f"{reports[0]['run']} ({reports[0]['size']}) by modality"
    return Table(title, tuple(heads), tuple(rows), tuple(_foot(reports, False)))


def figures(report: Mapping[str, Any], force: bool = False) -> Table:
    """Every figure of one report, a line each."""
    rows = []
    for name, score in report["scores"].items():
        figure = _figure(score, None, force)
        scored = f"{score['n']}" + (f" ({100 * score['coverage']:.1f} %)" if score["judged"] else "")
        spread = "" if score["group_std"] is None else f"± {score['group_std']:.2f} over groups"
        note = "; ".join(filter(None, (spread, score["note"])))
        rows.append(Row(name, report["modality"], (figure,), scored, note, ours=True))
    return Table("all figures", ("value",), tuple(rows), names=("score", "modality", "scored", "note"))


def markdown(table: Table) -> str:
    """A table in Markdown; the best of each column is bold.

    >>> print(markdown(Table("t", ("war",), (Row("we", "VA", (Figure(82.4, 1, best=True),)),))).splitlines()[-1])
    | we | VA | **82.4** |
    """

    def cell(figure: Figure | None) -> str:
        if figure is None:
            return "–"
        return " ".join(filter(None, (f"**{figure.text}**" if figure.best else figure.text, figure.interval)))

    sides = table.around(["---"] * 4, ["---:"] * len(table.columns))
    lines = [[_plain(head) for head in table.heads], sides]
    for row in table.rows:
        lines.append(table.around([_plain(word) for word in row.words], [cell(figure) for figure in row.figures]))
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    foot = "".join(f"\n\n{_plain(line)}" for line in table.foot)
    return f"### {_plain(table.title)}\n\n{body}{foot}\n"


def latex(table: Table) -> str:
    """A table for a paper with ``booktabs``; rows of ours stand below a rule."""

    def cell(figure: Figure | None) -> str:
        if figure is None:
            return "--"
        text = figure.text.translate(MARKS)
        small = rf" {{\scriptsize {figure.interval}}}" if figure.interval else ""
        return (rf"\textbf{{{text}}}" if figure.best else text) + small

    lines = [rf"% {line}" for line in (table.title, *table.foot)]
    lines = [re.sub(r"\s+", " ", line) for line in lines]
    shape = "".join(table.around("llll", "r" * len(table.columns)))
    lines += [rf"\begin{{tabular}}{{{shape}}}", r"\toprule"]
    lines += [" & ".join(head.translate(MARKS) for head in table.heads) + r" \\", r"\midrule"]
    for before, row in zip((None, *table.rows), table.rows, strict=False):
        if before is not None and row.ours and not before.ours:
            lines.append(r"\midrule")
        words = [word.translate(MARKS) for word in row.words]
        lines.append(" & ".join(table.around(words, [cell(figure) for figure in row.figures])) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_csv(table: Table, file: Path) -> None:
    """A table with the ends of the intervals in columns of their own; what is not printed is empty."""
    heads = chain.from_iterable((name, f"{name} low", f"{name} high") for name in table.columns)
    lines = [table.around(table.names, [*heads])]
    for row in table.rows:
        numbers: list[str] = []
        for one in row.figures:
            ends = ("", "") if one is None or not one.interval else (f"{one.low:.6g}", f"{one.high:.6g}")
            numbers += ["" if one is None or one.instead else f"{one.value:.6g}", *ends]
        lines.append(table.around(row.words, numbers))
    write_lines(file, lines)


def write_lines(file: Path, lines: Sequence[Sequence[object]]) -> None:
    """Lines of a CSV file, the same bytes on every system."""
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(lines)


def write(table: Table, folder: Path, name: str = "table", more: Sequence[Table] = ()) -> None:
    """A table as ``<name>.md``, ``.tex`` and ``.csv``; further ones follow in the Markdown."""
    (folder / f"{name}.md").write_text("\n".join(markdown(each) for each in (table, *more)), encoding="utf-8")
    (folder / f"{name}.tex").write_text(latex(table), encoding="utf-8")
    write_csv(table, folder / f"{name}.csv")


def _floors(
    reports: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]], digits: Mapping[str, int]
) -> list[Row]:
    """What sees nothing, once where several reports have the same."""
    floors = [floor for report in reports for floor in report["floors"]]
    rows = []
    for floor in (each for index, each in enumerate(floors) if each not in floors[:index]):
        seen = [None if judge else floor["scores"].get(name) for name, judge in columns]
        given = (None if v is None else Figure(v, digits[n]) for v, (n, _) in zip(seen, columns, strict=True))
        rows.append(Row(floor["method"], "", tuple(given), "floor", "this report", ours=True))
    return rows


def _own(report: Mapping[str, Any], columns: Sequence[tuple[str, str]], digits: Mapping[str, int], force: bool) -> Row:
    scores = report["scores"]
    found = [
        _figure(scores[name], digits[name], force)
        if name in scores and judge == (report["judge"] if scores[name]["judged"] else "")
        else None
        for name, judge in columns
    ]
    how = ", ".join(filter(None, (f"n = {report['n']}", report["unfinished"])))
    return Row(report["run"], report["modality"], tuple(found), how, "this report", ours=True)


def _figure(score: Mapping[str, Any] | None, digits: int | None, force: bool) -> Figure | None:
    if score is None:
        return None
    digits = digits if digits is not None else 2 if score["scale"] > 1 else 3
    held = score["judged"] and score["coverage"] < LEAST_COVERAGE and not force
    instead = f"– ({100 * score['coverage']:.0f} % judged)" if held else "–" if score["value"] is None else ""
    return Figure(score["value"] or 0.0, digits, score["low"], score["high"], instead=instead)


def _digits(name: str, own: Mapping[str, Any], peers: Sequence[Peer]) -> int:
    """As many as the papers print."""
    printed = [repr(peer.values[name]).partition(".")[2] for peer in peers if name in peer.values]
    return max(map(len, printed)) if printed else 2 if own[name]["scale"] > 1 else 3


def _with_best(rows: Sequence[Row], higher: Sequence[bool | None]) -> list[Row]:
    """The rows with the best figure of each column marked; where the direction is unknown, none is."""
    changed = [list(row.figures) for row in rows]
    for index, direction in enumerate(higher):
        shown = [(line, one) for line in changed if (one := line[index]) is not None and not one.instead]
        if direction is None or len(shown) < 2:
            continue
        best = (max if direction else min)(round(one.value, one.digits) for _, one in shown)
        for line, one in shown:
            line[index] = replace(one, best=round(one.value, one.digits) == best)
    return [replace(row, figures=tuple(line)) for row, line in zip(rows, changed, strict=True)]


def _foot(reports: Sequence[Mapping[str, Any]], switches: bool = True) -> list[str]:
    how = reports[0]["interval"]
    foot = [f"In brackets: {100 * how['confidence']:g} % bootstrap interval ({how['resamples']} resamples)."]
    for report in reports:
        missing = f"no media {report['n_missing_media']}, no sound {report['n_missing_audio']}"
        counts = f"n = {report['n']}: {report['n_invalid']} invalid, {missing}"
        judge = f"; judge: {report['judge']}" if report["judge"] else ""
        judge += " (its figures stay out of tables)" if report["judge_is_offline"] else ""
        speed = f"; {report['seconds_per_sample']:.3g} s a question"
        speed += f", {report['peak_memory_gb']:.3g} GB" if report.get("peak_memory_gb") else ""
        unfinished = f"; {report['unfinished']}" if report["unfinished"] else ""
        foot.append(f"{report['benchmark']} {report['modality']}: {counts}{unfinished}{judge}{speed}")
    if switches:
        foot += [f"{key}: {value}" for key, value in reports[0]["protocol"].items()]
    return foot


def _row_of(report: Mapping[str, Any]) -> tuple[str, str]:
    return str(report["run"]), str(report["modality"])


def _order(modality: str) -> tuple[str, int, list[int]]:
    """V, A, F before pairs, all three last; then the controls."""
    letters, _, control = modality.partition(",")
    return control, len(letters), ["VAF".find(letter) for letter in letters]


def _plain(text: str) -> str:
    """One line that Markdown leaves as it is."""
    return re.sub(r"\s*\n\s*", " ⏎ ", text).translate(PLAIN)
