"""Tables of annotated clips as users write them."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from omnihuman.build import build, compose_part
from omnihuman.data.record import BadSample, Record
from omnihuman.source.annotation import Annotation
from omnihuman.source.table import TableSource, read_table

ROWS = ["clip,emotion,who", "talk.mp4,joy,Ann", "talk.mp4,sorrow,Bob"]


def write(path: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
    return path


def list_annotations(path: Path, **options: Any) -> list[Annotation]:
    options = {"video": "clip", "answer": "emotion"} | options
    return list(TableSource(path, path.parent, **options).annotations())


def test_rows_are_records_with_their_place(root: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", *ROWS, "gone.mp4,joy,Ann")
    source = build(compose_part("source", "table"))(path, root, video="clip", answer="emotion", person="who")
    first, second, missing = source.records()
    assert isinstance(first, Record) and isinstance(second, Record)
    assert (first.id, second.id, first.task) == ("talk.mp4#1", "talk.mp4#2", "emotion")
    assert first.location == source.location + " row 2" and first.slots == ("video", "audio")
    assert first.meta["meta"] == {"options": ["joy", "sorrow"], "person": "Ann"}
    assert missing[0] == f"{path} row 4" and missing[1].reason == "missing_file"


@pytest.mark.parametrize(
    ("name", "encoding", "end", "delimiter"),
    [
        ("a.csv", "utf-8", "\n", ","),
        ("a.csv", "utf-8-sig", "\r\n", ";"),
        ("a.tsv", "utf-8", "\r\n", "\t"),
        ("a.txt", "utf-8", "\r", "|"),
    ],
)
def test_files_of_all_programs_are_the_same_table(
    name: str, encoding: str, end: str, delimiter: str, tmp_path: Path
) -> None:
    cells = [
        [" clip", "emotion ", "note, or; not\t|"],
        ["für Übung/1.mp4", "Freude ", 'says "hi"; then, leaves\t|'],
        [],
        ["b.mp4", "\xa0Zorn"],
    ]
    lines = []
    for row in cells:
        quoted = ['"{}"'.format(cell.replace('"', '""')) for cell in row]
        lines.append(delimiter.join(quoted))
    table = read_table(write(tmp_path / name, *lines, encoding=encoding, end=end))
    assert table.columns == ("clip", "emotion", "note, or; not\t|")
    assert table.rows == (
        (2, {"clip": "für Übung/1.mp4", "emotion": "Freude", "note, or; not\t|": 'says "hi"; then, leaves\t|'}),
        (4, {"clip": "b.mp4", "emotion": "Zorn", "note, or; not\t|": ""}),
    )


def test_the_line_of_excel_names_the_delimiter(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "sep=|", "a|b,c,d", "1|2"))
    assert table.columns == ("a", "b,c,d") and table.rows[0] == (2, {"a": "1", "b,c,d": "2"})


def test_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", ",clip,emotion,,", "0,a.mp4,joy,,"))
    assert table.columns == ("clip", "emotion") and table.rows[0][1] == {"clip": "a.mp4", "emotion": "joy"}


def test_a_row_with_too_many_cells_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "clip,emotion", "a.mp4,joy, or not", "b.mp4,joy")
    bad, good = list_annotations(path)
    assert isinstance(bad.error, BadSample) and bad.error.reason == "malformed_row" and bad.place == f"{path} row 2"
    assert good.answer == "joy" and good.place == f"{path} row 3"


def test_texts_are_filled_from_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Dialogue_ID,Utterance_ID,emotion,q", "3,14,joy,Who?", "4,,joy,")
    first, second = list_annotations(
        path, video="clips/dia{Dialogue_ID}_utt{Utterance_ID}.mp4", question="Look! {q}", system="Be brief."
    )
    assert first.files == {"video": "clips/dia3_utt14.mp4"} and first.question == "Look! Who?"
    assert second.files == {"video": ""} and second.question == "" and second.system == "Be brief."


def test_a_question_without_columns_belongs_to_all(tmp_path: Path) -> None:
    source = TableSource(write(tmp_path / "a.csv", *ROWS), tmp_path, video="clip", answer="emotion", question="Who?")
    assert source.question == "Who?" and next(source.annotations()).question is None


def test_the_task_is_the_column_of_the_answers(tmp_path: Path) -> None:
    assert TableSource(tmp_path, tmp_path, answer="Main Emotion (7)").task == "main_emotion_7"
    assert TableSource(tmp_path, tmp_path, answer="x", task="mood").task == "mood"
    with pytest.raises(ValueError, match="task=my mood"):
        TableSource(tmp_path, tmp_path, answer="x", task="my mood")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "Emotions"}, r"answer=Emotions: .*labels\.csv .*emotion.*clip, emotion, who"),
        ({"split": "fold"}, r"split=fold: .*labels\.csv"),
        ({"video": "{clp}.mp4"}, r"video=\{clp\}\.mp4: .*clp.*clip"),
        ({"question": "{q}"}, r"question=\{q\}: "),
        ({"video": None}, r"video=, audio= or image=.*clip, emotion, who"),
        ({"answer": None}, r"answer=.*clip, emotion, who"),
    ],
)
def test_an_unknown_column_is_named_with_its_like(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        list_annotations(write(tmp_path / "labels.csv", *ROWS), **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "clip;Gefühl\n1.mp4;für\n".encode("cp1252"), r"a\.csv .*line 1.*CSV UTF-8.*iconv -f WINDOWS-1252"),
        ("a.csv", "clip\temotion\n".encode("utf-16"), r"a\.csv is UTF-16.*iconv -f UTF-16"),
        ("a.xlsx", b"PK", r"a\.xlsx: .*CSV UTF-8"),
        ("a.csv", b"clip,clip\n1,2\n", r"a\.csv: .*clip twice"),
        ("a.csv", b"clip,emotion\n", r"a\.csv: .*no row"),
        ("a.csv", b"\n\n", r"a\.csv: .*empty"),
        ("a.csv", b'clip,emotion\n"a.mp4,joy\nb.mp4,joy\n', r"a\.csv:3: malformed CSV"),
        ("a.csv", b'clip,emotion\n"a" b,joy\n', r"a\.csv:2: malformed CSV"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name)


def test_a_missing_table_and_a_long_delimiter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path=.*nowhere\.csv"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"source\.delimiter=::"):
        read_table(write(tmp_path / "a.csv", *ROWS), "::")


def test_cells_of_parquet_are_texts(tmp_path: Path) -> None:
    rows = [{"clip": "a.mp4", "label": 3.0, "start": 1.5, "end": None}, {"clip": "b.mp4", "label": float("nan")}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table.columns == ("clip", "label", "start")
    assert table.rows == (
        (1, {"clip": "a.mp4", "label": "3", "start": "1.5"}),
        (2, {"clip": "b.mp4", "label": "", "start": ""}),
    )


def test_absolute_paths_and_folders_of_any_name_work(root: Path, tmp_path: Path) -> None:
    clip = tmp_path / "a,b; für" / "o'clock 1.mp4"
    clip.parent.mkdir()
    shutil.copy(root / "talk.mp4", clip)
    winding = f"./{clip.parent.name}/../{clip.parent.name}/{clip.name}"
    path = write(tmp_path / "labels.csv", "clip;emotion", f'"{clip}";joy', f'"{winding}";joy')
    _, items = TableSource(path, tmp_path, video="clip", answer="emotion").annotate()
    assert [item.files for item in items] == [("a,b; für/o'clock 1.mp4",)] * 2
