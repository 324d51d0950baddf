"""Folders of clips for each label."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.build import build, compose_part
from omnihuman.data.record import Record
from omnihuman.source.folder import FolderSource


def fill(folder: Path, clip: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / name)
    return folder


def test_folders_are_labels(root: Path, tmp_path: Path) -> None:
    fill(tmp_path, root / "talk.mp4", "große Freude/2.mp4", "große Freude/Ann/1.mp4", "anger/1.mp4")
    Image.new("RGB", (32, 32)).save(tmp_path / "anger" / "still.png")
    source = build(compose_part("source", "folder"))(tmp_path, tmp_path, task="emotion")
    records = list(source.records())
    assert all(isinstance(record, Record) for record in records)
    labels = {record.id: record.messages[1][1] for record in records}
    assert labels == {
        "anger/1.mp4": "anger",
        "anger/still.png": "anger",
        "große Freude/2.mp4": "große Freude",
        "große Freude/Ann/1.mp4": "große Freude",
    }
    assert [record.kind for record in records] == ["video", "image", "video", "video"] and not source.notes
    assert {annotation.split for annotation in source.annotations()} == {None}


def test_folders_above_the_labels_are_splits(root: Path, tmp_path: Path) -> None:
    fill(tmp_path, root / "talk.mp4", "Train/joy/1.mp4", "Train/anger/1.mp4", "dev/joy/1.mp4")
    annotations = list(FolderSource(tmp_path, tmp_path.parent).annotations())
    assert [(item.split, item.answer) for item in annotations] == [("Train", "anger"), ("Train", "joy"), ("dev", "joy")]
    assert annotations[0].files == {"video": f"{tmp_path.name}/Train/anger/1.mp4"}


def test_a_label_beside_splits_makes_all_of_them_labels(root: Path, tmp_path: Path) -> None:
    fill(tmp_path, root / "talk.mp4", "train/1.mp4", "bus/1.mp4")
    assert [item.answer for item in FolderSource(tmp_path, tmp_path).annotations()] == ["bus", "train"]


def test_files_without_a_label_are_errors_and_other_files_a_note(root: Path, tmp_path: Path) -> None:
    fill(tmp_path, root / "talk.mp4", "train/1.mp4", "train/joy/1.mp4")
    for name in ("labels.txt", "1.srt", ".hidden.mp4"):
        (tmp_path / "train" / "joy" / name).write_text("x")
    source = FolderSource(tmp_path, tmp_path)
    bad, good = source.annotations()
    assert bad.error is not None and bad.error.reason == "no_label" and "<split>/<label>/1.mp4" in str(bad.error)
    assert good.answer == "joy" and "1 .srt" in source.notes[0] and "1 .mp4" in source.notes[0]


def test_a_broken_clip_is_an_error_of_its_record(root: Path, tmp_path: Path) -> None:
    fill(tmp_path, root / "talk.mp4", "joy/1.mp4", "joy/2.mp4", "anger/1.mp4")
    (tmp_path / "joy" / "3.mp4").write_text("x")
    errors = [item.error for item in FolderSource(tmp_path, tmp_path).annotate()[1]]
    assert [error and error.reason for error in errors] == [None, None, None, "unreadable"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path=.*nowhere"):
        list(FolderSource(tmp_path / "nowhere", tmp_path).annotations())
