from collections.abc import Sequence
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.text import Media, build_record, describe_judge, judge_answers, parse_text, read_csv
from omnihuman.judge.rule import RuleJudge


def predict(name: str, answer: str | None) -> Prediction:
    return Prediction("dfec", name, "", "What?", "a man waves", answer)


def test_media_tries_suffixes_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.avi").touch()
    media = Media(tmp_path)
    assert media.find("a", "t.csv:2", (".mp4", ".avi")) == tmp_path / "a.avi"
    assert media.protocol() == {"missing media": "none"}


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.csv:2: name: .*no file .*/b\.mp4; .*missing_media=skip"):
        Media(tmp_path).find("b", "t.csv:2: name", (".mp4",))


def test_skipped_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    media = Media(tmp_path, "skip")
    assert [media.find(name, f"t[{n}]") is None for n, name in enumerate(("a.mp4", "b.mp4", "c.mp4"))] == [0, 1, 1]
    assert media.protocol() == {"missing media": f"2 of 3 skipped, first t[1]: {tmp_path}/b.mp4"}
    media.reset()
    assert media.protocol() == {"missing media": "skip"}


def test_a_path_outside_the_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "root").mkdir()
    for name in ("../secret.mp4", str(tmp_path / "secret.mp4")):
        with pytest.raises(ValueError, match=r"\.mp4'.*outside"):
            Media(tmp_path / "root", "skip").find(name, "t[0]")


def test_audio_only_has_one_slot() -> None:
    record = build_record(Path("a.flac"), "Listen.", "1", "t:1", audio_only=True, start=2.0, end=3.5)
    assert (record.kind, record.slots, record.start, record.end) == ("audio", ("audio",), 2.0, 3.5)
    assert record.messages == (("user", "<audio>\nListen."), ("assistant", ""))


def test_location_of_a_cell_that_spans_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffname,english\na,"one\ntwo"\nb,three\n', encoding="utf-8")
    lines = list(read_csv(tmp_path / "t.csv", ("name", "english")))
    assert [row["english"] for _, row in lines] == ["one\ntwo", "three"]
    assert lines[1][0].endswith("t.csv:4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,other\na,b\n", r"t\.csv:1: .*\['english'\].*missing"),
        ("name,english\na,x\nb,\n", r"t\.csv:3: english .*empty"),
        ("name,english\na\n", r"t\.csv:2: english .*empty"),
        ("name,english\na,b,c\n", r"t\.csv:2: .*more cells"),
        ('name,english\na,"b\nc,d\n', r"t\.csv:3: .*csv.*unexpected end"),
        (None, r"t\.csv: .*no such file"),
    ],
)
def test_invalid_tables_raise(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_csv(tmp_path / "t.csv", ("name", "english")))


def test_only_nonempty_answers_are_judged() -> None:
    judged = []

    def judge(predictions: Sequence[Prediction]) -> list[float | None]:
        judged.extend(prediction.id for prediction in predictions)
        return [4.0, None]

    predictions = [predict("a", "He waves."), predict("b", None), predict("c", "He sits."), predict("d", "  ")]
    assert judge_answers(predictions, judge, 0.0) == [4.0, 0.0, None, 0.0]
    assert judged == ["a", "c"]
    assert judge_answers(predictions[1:2], judge, 0.0) == [0.0] and judged == ["a", "c"]


def test_parse_text_and_describe_judge() -> None:
    assert parse_text(predict("a", " yes\n")) == ("yes", "text") and parse_text(predict("a", " ")) == (None, "invalid")
    assert describe_judge(RuleJudge(), "x") == "offline-rule"
