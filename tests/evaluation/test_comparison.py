from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import PublishedResult
from omnihuman.evaluation.comparison import compare_reports, compare_views, list_scores
from omnihuman.evaluation.tables import Table, format_latex, format_markdown, write_table

PEERS = (
    PublishedResult("A & B", {"war": 70.5, "wer": 3.1}, "V", "5 folds", "S, table 1"),
    PublishedResult("C", {"war": 72.25, "tem": 0.3}),
)


def build_score(
    value: float | None, *, judged: bool = False, coverage: float = 1.0, higher: bool = True, scale: float = 100.0
) -> dict[str, Any]:
    low, high = None, None
    if value is not None:
        low, high = value - 1, value + 1
    return {
        "value": value,
        "low": low,
        "high": high,
        "n": 10,
        "coverage": coverage,
        "judged": judged,
        "scale": scale,
        "higher_is_better": higher,
        "note": "",
        "group_std": None,
    }


def build_report(scores: dict[str, Any], view: str = "VA", **changes: Any) -> dict[str, Any]:
    report = {
        "benchmark": "toy",
        "run": "our_run",
        "size": "nano",
        "view": view,
        "scores": scores,
        "n": 10,
        "n_invalid": 1,
        "n_missing_media": 2,
        "n_missing_audio": 3,
        "incomplete_reason": "",
        "floors": [],
        "judge": None,
        "judge_is_offline": False,
        "seconds_per_sample": 0.25,
        "protocol": {"prompt": "Who?\nAnswer | now"},
        "interval": {"confidence": 0.95, "resamples": 100, "seed": 0},
    }
    return report | changes


def read_texts(table: Table, row: int) -> list[str | None]:
    texts: list[str | None] = []
    for number in table.rows[row].numbers:
        texts.append(None if number is None else number.text)
    return texts


def find_best(table: Table) -> list[tuple[str, str]]:
    best = []
    for row in table.rows:
        for name, number in zip(table.columns, row.numbers, strict=True):
            if number is not None and number.is_best:
                best.append((row.method, name))
    return best


def test_our_row_is_beside_the_papers_rows() -> None:
    floor = {"method": "always “sad”", "scores": {"war": 20.0}}
    scores = {"war": build_score(71.0), "wer": build_score(2.0, higher=False), "fold1/war": build_score(9.0)}
    table = compare_reports([build_report(scores, floors=[floor])], PEERS)
    assert table.columns == ("war", "wer", "tem")
    assert read_texts(table, 0) == ["70.50", "3.1", None]
    assert read_texts(table, 1) == ["72.25", None, "0.3"]
    assert read_texts(table, 2) == ["20.00", None, None]
    assert read_texts(table, 3) == ["71.00", "2.0", None]
    assert find_best(table) == [("C", "war"), ("our_run", "wer")]
    assert table.rows[-1].numbers[0] is not None and table.rows[-1].numbers[0].interval == "[70.00, 72.00]"
    assert (table.rows[-1].protocol, table.rows[-1].source) == ("n = 10", "this report")
    assert "toy VA: n = 10: 1 invalid, no media 2, no audio 3; 0.25 s per question" in table.footnotes


def test_columns_follow_the_papers_order() -> None:
    peers = (PublishedResult("A", {"uar": 60.0, "war": 70.0}),)
    report = build_report({"war": build_score(71.0), "uar": build_score(61.0)})
    assert compare_reports([report], peers).columns == ("uar", "war")
    report = build_report({"new": build_score(1.0), **report["scores"]})
    assert compare_reports([report], peers).columns == ("new", "uar", "war")


def test_without_peers_the_summary_scores_are_columns() -> None:
    report = build_report({"a/war": build_score(1.0), "a/uar": build_score(2.0)})
    assert compare_reports([report], ()).columns == ("a/war", "a/uar")
    report = build_report({"fold1/war": build_score(1.0), "war": build_score(2.0)})
    assert compare_reports([report], ()).columns == ("fold1/war", "war")


def test_judges_do_not_share_a_column() -> None:
    first = {"cider": build_score(0.4, scale=1.0), "mark": build_score(4.5, judged=True, scale=1.0)}
    second = {"cider": build_score(0.3, scale=1.0), "mark": build_score(4.4, judged=True, scale=1.0)}
    peers = (PublishedResult("P", {"cider": 0.412, "mark": 4.58}, "VA", "judge not stated"),)
    table = compare_reports([build_report(first, judge="one"), build_report(second, "V", judge="two")], peers)
    assert table.columns == ("cider", "mark", "mark (two)", "mark (one)")
    assert read_texts(table, 0) == ["0.412", "4.58", None, None]
    assert read_texts(table, 1) == ["0.300", None, "4.40", None]
    assert read_texts(table, 2) == ["0.400", None, None, "4.50"]
    offline = build_report(first, judge="rule", judge_is_offline=True)
    assert compare_reports([offline], peers).columns == ("cider", "mark")
    assert "4.50" in format_markdown(list_scores(offline))


def test_low_coverage_is_not_printed_unless_forced(tmp_path: Path) -> None:
    report = build_report({"mark": build_score(4.5, judged=True, coverage=0.9, scale=1.0)}, judge="gpt")
    table = compare_reports([report], ())
    assert read_texts(table, 0) == ["– (90 % judged)"] and find_best(table) == []
    assert "4.5" not in format_markdown(table) + format_latex(table)
    write_table(table, tmp_path)
    assert "4.5" not in (tmp_path / "table.csv").read_text()
    assert read_texts(compare_reports([report], (), force=True), 0) == ["4.500"]
    enough = build_report({"mark": build_score(4.5, judged=True, coverage=0.98, scale=1.0)}, judge="gpt")
    assert read_texts(compare_reports([enough], ()), 0) == ["4.500"]


def test_a_score_without_value_is_a_dash() -> None:
    assert read_texts(compare_reports([build_report({"war": build_score(None)})], PEERS), 2)[0] == "–"


def test_views_are_in_the_order_of_humanomni() -> None:
    values = {"VA": 81.8, "A": 58.6, "V": 70.6, "VA, shuffled audio": 60.0}
    reports = [build_report({"war": build_score(value)}, view) for view, value in values.items()]
    reports.append(build_report({"auto": build_score(0.523, judged=True)}, "VA", benchmark="dfec", judge="gpt"))
    table = compare_views(reports)
    assert table.columns == ("toy war", "dfec auto (gpt)")
    assert [row.view for row in table.rows] == ["V", "A", "VA", "VA, shuffled audio"]
    assert find_best(table) == [("our_run", "toy war")]
    assert read_texts(table, 2) == ["81.80", "0.52"]
