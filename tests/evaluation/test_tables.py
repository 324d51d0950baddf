import csv
from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import Peer
from omnihuman.evaluation.tables import Figure, Row, Table, compare, figures, latex, markdown, modalities, write

PEERS = (Peer("A & B", {"war": 70.5, "wer": 3.1}, "V", "5 folds", "S, table 1"), Peer("C", {"war": 72.25, "tem": 0.3}))


def score(
    value: float | None, *, judged: bool = False, coverage: float = 1.0, higher: bool = True, scale: float = 100.0
) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 1, value + 1)
    return {"value": value, "low": low, "high": high, "n": 10, "coverage": coverage, "judged": judged, "scale": scale,
            "higher_is_better": higher, "note": "", "group_std": None}  # fmt: skip


def report(scores: dict[str, Any], modality: str = "VA", **more: Any) -> dict[str, Any]:
    plain = {"benchmark": "toy", "run": "our_run", "size": "nano", "modality": modality, "scores": scores, "n": 10,
             "n_invalid": 1, "n_missing_media": 2, "n_missing_audio": 3, "unfinished": "", "floors": [], "judge": None,
             "judge_is_offline": False, "seconds_per_sample": 0.25, "protocol": {"prompt": "Who?\nAnswer | now"},
             "interval": {"confidence": 0.95, "resamples": 100, "seed": 0}}  # fmt: skip
    return {**plain, **more}


def cells(table: Table, row: int) -> list[str | None]:
    return [None if one is None else one.text for one in table.rows[row].figures]


def best(table: Table) -> list[tuple[str, str]]:
    return [
        (row.method, name)
        for row in table.rows
        for name, one in zip(table.columns, row.figures, strict=True)
        if one is not None and one.best
    ]


def test_our_row_beside_the_papers() -> None:
    floor = [{"method": "always “sad”", "scores": {"war": 20.0}}]
    table = compare(
        [report({"war": score(71.0), "wer": score(2.0, higher=False), "fold1/war": score(9.0)}, floors=floor)], PEERS
    )
    assert table.columns == ("war", "wer", "tem")
    assert [cells(table, row) for row in range(4)] == [
        ["70.50", "3.1", None], ["72.25", None, "0.3"], ["20.00", None, None], ["71.00", "2.0", None],
    ]  # fmt: skip
    assert best(table) == [("C", "war"), ("our_run", "wer")]
    assert table.rows[-1].figures[0] is not None and table.rows[-1].figures[0].interval == "[70.00, 72.00]"
    assert (table.rows[-1].protocol, table.rows[-1].source) == ("n = 10", "this report")
    assert "toy VA: n = 10: 1 invalid, no media 2, no sound 3; 0.25 s a question" in table.foot


def test_columns_stand_as_in_the_papers() -> None:
    peers = (Peer("A", {"uar": 60.0, "war": 70.0}),)
    own = report({"war": score(71.0), "uar": score(61.0)})
    assert compare([own], peers).columns == ("uar", "war")
    assert compare([report({"new": score(1.0), **own["scores"]})], peers).columns == ("new", "uar", "war")


def test_without_peers_the_summary_figures_stand() -> None:
    assert compare([report({"a/war": score(1.0), "a/uar": score(2.0)})], ()).columns == ("a/war", "a/uar")
    assert compare([report({"fold1/war": score(1.0), "war": score(2.0)})], ()).columns == ("fold1/war", "war")


def test_judges_do_not_share_a_column() -> None:
    judged = [
        report({"cider": score(0.4, scale=1.0), "mark": score(4.5, judged=True, scale=1.0)}, judge="one"),
        report({"cider": score(0.3, scale=1.0), "mark": score(4.4, judged=True, scale=1.0)}, "V", judge="two"),
    ]
    peers = (Peer("P", {"cider": 0.412, "mark": 4.58}, "VA", "judge not stated"),)
    table = compare(judged, peers)
    assert table.columns == ("cider", "mark", "mark (two)", "mark (one)")
    assert [cells(table, row) for row in range(3)] == [
        ["0.412", "4.58", None, None], ["0.300", None, "4.40", None], ["0.400", None, None, "4.50"],
    ]  # fmt: skip
    offline = report({"cider": score(0.4), "mark": score(4.5, judged=True)}, judge="rule", judge_is_offline=True)
    assert compare([offline], peers).columns == ("cider", "mark")
    assert "4.50" in markdown(figures(offline))


def test_low_coverage_is_not_printed_unless_forced(tmp_path: Path) -> None:
    one = report({"mark": score(4.5, judged=True, coverage=0.9, scale=1.0)}, judge="gpt")
    table = compare([one], ())
    assert cells(table, 0) == ["– (90 % judged)"] and best(table) == []
    assert "4.5" not in markdown(table) + latex(table)
    write(table, tmp_path)
    assert "4.5" not in (tmp_path / "table.csv").read_text()
    assert cells(compare([one], (), force=True), 0) == ["4.500"]
    enough = report({"mark": score(4.5, judged=True, coverage=0.98, scale=1.0)}, judge="gpt")
    assert cells(compare([enough], ()), 0) == ["4.500"]


def test_a_figure_that_is_not_there() -> None:
    assert cells(compare([report({"war": score(None)})], PEERS), 2)[0] == "–"


def test_modalities_in_the_order_of_humanomni() -> None:
    of = [
        report({"war": score(v)}, m) for m, v in (("VA", 81.8), ("A", 58.6), ("V", 70.6), ("VA, shuffled audio", 60.0))
    ]
    of.append(report({"auto": score(0.523, judged=True)}, "VA", benchmark="dfec", judge="gpt"))
    table = modalities(of)
    assert table.columns == ("toy war", "dfec auto (gpt)")
    assert [row.modality for row in table.rows] == ["V", "A", "VA", "VA, shuffled audio"]
    assert best(table) == [("our_run", "toy war")]
    assert cells(table, 2) == ["81.80", "0.52"]


def test_every_mark_is_escaped() -> None:
    rows = (
        Row("50% of_{a}\\b & ~^#$ <i>|", "V", (Figure(1.0, 1, best=True), None)),
        Row("we", "A", (None, None), ours=True),
    )
    table = Table("t|t", ("x_y", "z"), rows, ("100 %\nof $ it",))
    tex = latex(table)
    assert (
        r"50\% of\_\{a\}\textbackslash{}b \& \textasciitilde{}\textasciicircum{}\#\$ \textless{}i\textgreater{}" in tex
    )
    assert r"\textbf{1.0} & --" in tex and r"x\_y" in tex and tex.count(r"\midrule") == 2
    assert tex.splitlines()[1] == "% 100 % of $ it"
    assert tex.count("{") == tex.count("}")
    lines = markdown(table).splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in body} == {5}
    assert "<i>" not in markdown(table) and r"of\_" in body[2] and "**1.0**" in body[2]


def test_csv_can_be_read_back(tmp_path: Path) -> None:
    write(compare([report({"war": score(71.123456)})], PEERS), tmp_path, more=[figures(report({"war": score(71.0)}))])
    with (tmp_path / "table.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["war"] for row in rows] == ["70.5", "72.25", "71.1235"]
    assert (rows[2]["war low"], rows[2]["war high"], rows[0]["method"]) == ("70.1235", "72.1235", "A & B")
    assert "### all figures" in (tmp_path / "table.md").read_text()
