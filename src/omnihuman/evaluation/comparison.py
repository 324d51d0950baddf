"""Tables of our evaluations beside the rows that the papers print."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from omnihuman.benchmark.base import PublishedResult
from omnihuman.evaluation.tables import Number, Row, Table
from omnihuman.modality import BY_LETTER

MIN_COVERAGE = 0.98
"""Share of the questions that a judge must have scored for its score to be printed."""

Report = Mapping[str, Any]
"""The content of ``metrics.json``."""


class Column(NamedTuple):
    """A column of the comparison: a score, and the judge that it comes from.

    Attributes:
        score: its key in ``metrics.json``.
        judge: ``""`` for scores without a judge and for the papers' columns, ``None`` for an unnamed judge.
    """

    score: str
    judge: str | None = ""

    @property
    def header(self) -> str:
        """``score (judge)``."""
        return f"{self.score} ({self.judge})" if self.judge else self.score


def compare_reports(reports: Sequence[Report], peers: Sequence[PublishedResult], force: bool = False) -> Table:
    """Return a table of evaluations of one benchmark beside the papers' rows.

    Every judge has a column of its own, because scores of two judges, or of an unnamed one, cannot be compared. Scores
    of an offline judge are left out.

    Args:
        reports: contents of ``metrics.json``, one or more (V, A, VA).
        peers: rows of the papers.
        force: print judged scores of any coverage.
    """
    reports = sorted(reports, key=lambda report: _view_order(report["view"]))
    scores: dict[str, Any] = {}
    for report in reports:
        scores |= report["scores"]
    columns = _choose_columns(reports, scores, peers)
    headers, decimals, directions = [], {}, []
    for column in columns:
        headers.append(column.header)
        decimals[column.score] = _choose_decimals(column.score, scores, peers)
        directions.append(scores.get(column.score, {}).get("higher_is_better"))
    rows = []
    for peer in peers:
        rows.append(_peer_row(peer, columns, decimals))
    for report in reports:
        rows.append(_report_row(report, columns, decimals, force))
    rows = _mark_best(rows, directions)
    rows = [*rows[: len(peers)], *_floor_rows(reports, columns, decimals), *rows[len(peers) :]]
    return Table(str(reports[0]["benchmark"]), tuple(headers), tuple(rows), tuple(_footnotes(reports)))


def compare_views(reports: Sequence[Report], force: bool = False) -> Table:
    """Return a table of one checkpoint: a row per view, a column per benchmark with its headline score.

    Reference: HumanOmni, table 6.
    """
    keys: set[tuple[str, str]] = set()
    columns: dict[str, dict[tuple[str, str], Any]] = {}
    for report in reports:
        keys.add(_row_key(report))
        headline = _find_headline(report)
        if headline is not None:
            header = f"{report['benchmark']} {headline}"
            score = report["scores"][headline]
            if score["judged"]:
                header += f" ({report['judge']})"
            columns.setdefault(header, {})[_row_key(report)] = score
    rows = []
    for key in sorted(keys, key=lambda key: (key[0], _view_order(key[1]))):
        numbers = [_build_number(scores.get(key), None, force) for scores in columns.values()]
        rows.append(Row(*key, tuple(numbers), is_ours=True))
    directions = [next(iter(scores.values()))["higher_is_better"] for scores in columns.values()]
    title = f"{reports[0]['run']} ({reports[0]['size']}) by view"
    footnotes = tuple(_footnotes(reports, has_protocol=False))
    return Table(title, tuple(columns), tuple(_mark_best(rows, directions)), footnotes)


def list_scores(report: Report, force: bool = False) -> Table:
    """Return a table of all scores of one report, a row per score."""
    rows = []
    for name, score in report["scores"].items():
        coverage, notes = str(score["n"]), []
        if score["judged"]:
            coverage += f" ({100 * score['coverage']:.1f} %)"
        if score["group_std"] is not None:
            notes.append(f"± {score['group_std']:.2f} over groups")
        if score["note"]:
            notes.append(score["note"])
        number = _build_number(score, None, force)
        rows.append(Row(name, report["view"], (number,), coverage, "; ".join(notes), is_ours=True))
    return Table("all scores", ("value",), tuple(rows), text_headers=("score", "view", "scored", "note"))


def _find_headline(report: Report) -> str | None:
    """Return the name of the first score that is not from an offline judge."""
    for name, score in report["scores"].items():
        if not (score["judged"] and report["judge_is_offline"]):
            return str(name)
    return None


def _choose_columns(
    reports: Sequence[Report], scores: Mapping[str, Any], peers: Sequence[PublishedResult]
) -> list[Column]:
    """Return the columns: our headline, the papers' scores in the papers' order, and what only the papers have."""
    peer_names: dict[str, None] = {}
    for peer in peers:
        peer_names |= dict.fromkeys(peer.values)
    shared = [name for name in peer_names if name in scores]
    columns: dict[Column, None] = {}  # a set that keeps its order
    for name in _choose_scores(shared, list(scores)):
        is_judged = scores[name]["judged"]
        if not is_judged or name in shared:
            columns[Column(name)] = None
        for report in reports:
            if is_judged and name in report["scores"] and not report["judge_is_offline"]:
                columns[Column(name, report["judge"])] = None
    for name in peer_names:
        if name not in scores:
            columns[Column(name)] = None
    return list(columns)


def _choose_scores(shared: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the headline and the scores shared with the papers; without any, those that are not of one group."""
    headline = names[0]
    if headline in shared:
        return list(shared)
    rest = shared or [name for name in names if "/" not in name] or names
    return list(dict.fromkeys([headline, *rest]))


def _peer_row(peer: PublishedResult, columns: Iterable[Column], decimals: Mapping[str, int]) -> Row:
    numbers: list[Number | None] = []
    for name, judge in columns:
        if name in peer.values and not judge:
            numbers.append(Number(float(peer.values[name]), decimals[name]))
        else:
            numbers.append(None)
    return Row(peer.method, peer.view, tuple(numbers), peer.protocol, peer.source)


def _floor_rows(reports: Sequence[Report], columns: Sequence[Column], decimals: Mapping[str, int]) -> list[Row]:
    """Return a row per trivial baseline; a baseline that several reports share has one row."""
    floors: list[Mapping[str, Any]] = []
    for report in reports:
        for floor in report["floors"]:
            if floor not in floors:
                floors.append(floor)
    rows = []
    for floor in floors:
        numbers: list[Number | None] = []
        for name, judge in columns:
            value = floor["scores"].get(name)
            if value is None or judge:
                numbers.append(None)
            else:
                numbers.append(Number(value, decimals[name]))
        rows.append(Row(floor["method"], "", tuple(numbers), "floor", "this report", is_ours=True))
    return rows


def _report_row(report: Report, columns: Iterable[Column], decimals: Mapping[str, int], force: bool) -> Row:
    numbers: list[Number | None] = []
    for name, judge in columns:
        score = report["scores"].get(name)
        if score is not None and judge == (report["judge"] if score["judged"] else ""):
            numbers.append(_build_number(score, decimals[name], force))
        else:
            numbers.append(None)
    protocol = f"n = {report['n']}"
    if report["incomplete_reason"]:
        protocol += f", {report['incomplete_reason']}"
    return Row(report["run"], report["view"], tuple(numbers), protocol, "this report", is_ours=True)


def _build_number(score: Mapping[str, Any] | None, decimals: int | None, force: bool) -> Number | None:
    if score is None:
        return None
    if decimals is None:
        decimals = _default_decimals(score)
    placeholder = ""
    if score["judged"] and score["coverage"] < MIN_COVERAGE and not force:
        placeholder = f"– ({100 * score['coverage']:.0f} % judged)"
    elif score["value"] is None:
        placeholder = "–"
    return Number(score["value"] or 0.0, decimals, score["low"], score["high"], placeholder=placeholder)


def _choose_decimals(name: str, scores: Mapping[str, Any], peers: Sequence[PublishedResult]) -> int:
    """Return as many decimals as the papers print."""
    printed = [repr(peer.values[name]).partition(".")[2] for peer in peers if name in peer.values]
    if printed:
        return max(map(len, printed))
    return _default_decimals(scores[name])


def _default_decimals(score: Mapping[str, Any]) -> int:
    return 2 if score["scale"] > 1 else 3


def _mark_best(rows: Sequence[Row], directions: Sequence[bool | None]) -> list[Row]:
    """Return the rows with the best number of each column marked.

    Args:
        rows: of one table.
        directions: per column whether higher is better; ``None`` marks nothing.
    """
    lines = [list(row.numbers) for row in rows]
    for column, higher_is_better in enumerate(directions):
        printed: dict[int, Number] = {}
        for index, line in enumerate(lines):
            number = line[column]
            if number is not None and not number.placeholder:
                printed[index] = number
        if higher_is_better is None or len(printed) < 2:
            continue
        choose = max if higher_is_better else min
        best = choose(number.rounded for number in printed.values())
        for index, number in printed.items():
            lines[index][column] = replace(number, is_best=number.rounded == best)
    return [replace(row, numbers=tuple(line)) for row, line in zip(rows, lines, strict=True)]


def _footnotes(reports: Sequence[Report], has_protocol: bool = True) -> list[str]:
    interval = reports[0]["interval"]
    lines = [f"In brackets: {100 * interval['confidence']:g} % bootstrap interval ({interval['resamples']} resamples)."]
    for report in reports:
        lines.append(f"{report['benchmark']} {report['view']}: {'; '.join(_describe(report))}")
    if has_protocol:
        for key, value in reports[0]["protocol"].items():
            lines.append(f"{key}: {value}")
    return lines


def _describe(report: Report) -> list[str]:
    """Return the counts, the judge and the speed of an evaluation as phrases."""
    missing = f"no media {report['n_missing_media']}, no audio {report['n_missing_audio']}"
    phrases = [f"n = {report['n']}: {report['n_invalid']} invalid, {missing}"]
    if report["incomplete_reason"]:
        phrases.append(report["incomplete_reason"])
    if report["judge_is_offline"]:
        phrases.append(f"judge: {report['judge']} (its scores are left out of tables)")
    elif report["judge"]:
        phrases.append(f"judge: {report['judge']}")
    speed = f"{report['seconds_per_sample']:.3g} s per question"
    if report.get("peak_memory_gb"):
        speed += f", {report['peak_memory_gb']:.3g} GB"
    return [*phrases, speed]


def _row_key(report: Report) -> tuple[str, str]:
    return str(report["run"]), str(report["view"])


def _view_order(view: str) -> tuple[str, int, list[int]]:
    """Return a sort key: single modalities, then pairs, then more; the controls after those."""
    letters, _, control = view.partition(",")
    return control, len(letters), list(map("".join(BY_LETTER).find, letters))
