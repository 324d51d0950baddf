import warnings
from pathlib import Path

from omnihuman.source.glyphs import make_drawable
from omnihuman.studies.chart import draw_chart


def test_titles_in_any_script_are_drawn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a glyph that is missing
        draw_chart(tmp_path, "融合方式", [], {"emotion/war": "准确率"})
    text = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert make_drawable("准确率").text in text and make_drawable("融合方式").text in text
