import re
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.text import Media, judged_by, marks, rows, text_of, to_record
from omnihuman.judge.rule import RuleJudge


def answered(name: str, answer: str | None) -> Prediction:
    return Prediction("dfec", name, "", "What?", "a man waves", answer)


def test_media_finds_a_file_by_the_first_ending_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.avi").touch()
    media = Media(tmp_path)
    assert media.find("a", "t.csv:2", (".mp4", ".avi")) == tmp_path / "a.avi"
    assert media.protocol() == {"missing media": "none"}


def test_a_missing_file_names_the_line_the_path_and_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t.csv:2: name: there is no file .*/b\.mp4; .*missing_media=skip"):
        Media(tmp_path).find("b", "t.csv:2: name", (".mp4",))


def test_skipped_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    media = Media(tmp_path, "skip")
    assert [media.find(name, f"t[{n}]") is None for n, name in enumerate(("a.mp4", "b.mp4", "c.mp4"))] == [0, 1, 1]
    assert media.protocol() == {"missing media": f"2 of 3 skipped, first t[1]: {tmp_path}/b.mp4"}
    media.start()
    assert media.protocol() == {"missing media": "skip"}


def test_a_name_may_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "root").mkdir()
    for name in ("../secret.mp4", str(tmp_path / "secret.mp4")):
        with pytest.raises(ValueError, match="leaves the folder"):
            Media(tmp_path / "root", "skip").find(name, "t[0]")


def test_sound_alone_fills_one_slot() -> None:
    record = to_record(Path("a.flac"), "Listen.", "1", "t:1", sound_only=True, start=2.0, end=3.5)
    assert (record.kind, record.slots, record.start, record.end) == ("audio", ("audio",), 2.0, 3.5)
    assert record.messages == (("user", "<audio>\nListen."), ("assistant", ""))


def test_rows_name_the_line_of_a_cell_that_spans_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffname,english\na,"one\ntwo"\nb,three\n', encoding="utf-8")
    found = list(rows(tmp_path / "t.csv", ("name", "english")))
    assert [row["english"] for _, row in found] == ["one\ntwo", "three"]
    assert found[1][0].endswith("t.csv:4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,other\na,b\n", r"t.csv:1: the columns ['english'] are missing"),
        ("name,english\na,x\nb,\n", "t.csv:3: english is empty"),
        ("name,english\na\n", "t.csv:2: english is empty"),
        ("name,english\na,b,c\n", "t.csv:2: there are more cells than columns"),
        ('name,english\na,"b\nc,d\n', "t.csv:3: this is no csv line (unexpected end of data)"),
        (None, "there is no such file"),
    ],
)
def test_rows_name_what_is_wrong(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        list(rows(tmp_path / "t.csv", ("name", "english")))


def test_the_judge_sees_only_answers_with_words() -> None:
    seen = []

    def judge(some: list[Prediction]) -> list[float | None]:
        seen.extend(each.id for each in some)
        return [4.0, None]

    asked = [answered("a", "He waves."), answered("b", None), answered("c", "He sits."), answered("d", "  ")]
    assert marks(asked, judge, 0.0) == [4.0, 0.0, None, 0.0]
    assert seen == ["a", "c"]
    assert marks(asked[1:2], judge, 0.0) == [0.0] and seen == ["a", "c"]


def test_words_of_an_answer_and_of_the_judge() -> None:
    assert text_of(answered("a", " yes\n")) == ("yes", "text") and text_of(answered("a", " ")) == (None, "invalid")
    assert judged_by(RuleJudge(), "x") == "offline-rule"
