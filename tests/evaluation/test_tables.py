import csv
from pathlib import Path

from omnihuman.evaluation.tables import Number, Row, Table, format_latex, format_markdown, write_table

ROWS = (
    Row("50% of_{a}\\b & ~^#$ <i>|", "V", (Number(1.0, 1, is_best=True), None)),
    Row("ours", "A", (None, None), is_ours=True),
)
TABLE = Table("t|t", ("x_y", "z"), ROWS, ("100 %\nof $ it",))


def test_latex_escapes_every_special_character() -> None:
    text = format_latex(TABLE)
    escaped = r"50\% of\_\{a\}\textbackslash{}b \& \textasciitilde{}\textasciicircum{}\#\$ \textless{}i\textgreater{}"
    assert escaped in text
    assert r"\textbf{1.0} & --" in text and r"x\_y" in text
    assert text.count(r"\midrule") == 2  # below the header, and between the papers' row and ours
    assert text.splitlines()[1] == "% 100 % of $ it"
    assert text.count("{") == text.count("}")


def test_markdown_escapes_every_special_character() -> None:
    text = format_markdown(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    assert "<i>" not in text and r"of\_" in lines[2] and "**1.0**" in lines[2]


def test_csv_has_columns_for_the_ends_of_intervals(tmp_path: Path) -> None:
    rows = (Row("A & B", "V", (Number(70.5),)), Row("ours", "VA", (Number(71.123456, 2, 70.123456, 72.123456),)))
    write_table(Table("toy", ("war",), rows), tmp_path)
    with (tmp_path / "table.csv").open(newline="") as lines:
        first, second = csv.DictReader(lines)
    assert first == {"method": "A & B", "view": "V", "war": "70.5", "war low": "", "war high": ""}
    assert (second["war"], second["war low"], second["war high"]) == ("71.1235", "70.1235", "72.1235")


def test_the_appendix_follows_in_markdown(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path, appendix=[Table("all scores", ("x",), ROWS[1:])])
    assert "### all scores" in (tmp_path / "table.md").read_text()
