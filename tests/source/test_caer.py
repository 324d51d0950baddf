"""CAER: folders of splits and emotions."""

from .conftest import Dataset, summarize


def test_folders_are_splits_and_labels(dataset: Dataset) -> None:
    dataset.add("train/Anger/0001.avi", "train/Happy/0001.avi", "validation/Sad/0001.avi")
    assert "expected test " in dataset.fail("source=caer")
    dataset.add("test/Fear/0001.avi")
    dataset.write("test/Fear/.DS_Store", "x")
    records = dataset.records("source=caer")
    assert summarize(records["train"]) == [("train/Anger/0001.avi", "angry"), ("train/Happy/0001.avi", "happy")]
    assert summarize(records["val"]) == [("validation/Sad/0001.avi", "sad")] and len(records["test"]) == 1
    assert any(note.endswith("no clips: 1") for note in dataset.report()["notes"])
    dataset.add("test/Rage/0001.avi")
    assert "1 unknown_label" in dataset.fail("source=caer")
