"""MAFW: the folds of the official lists."""

from .conftest import Dataset, summarize


def test_a_fold_is_read_with_its_splits(dataset: Dataset) -> None:
    folder = "Train & Test Set/single/no_caption/set_1"
    dataset.write(f"{folder}/train.txt", "00001.mp4 anger", "00002.mp4 helplessness")
    dataset.write(f"{folder}/test.txt", "00003.mp4 contempt")
    dataset.add("data/clips/00001.mp4", "data/clips/00002.mp4", "data/clips/00003.mp4")
    records = dataset.records("source=mafw")
    assert summarize(records["train"]) == [("data/clips/00001.mp4", "angry"), ("data/clips/00002.mp4", "helpless")]
    assert summarize(records["test"]) == [("data/clips/00003.mp4", "contemptuous")]
    assert len(records["test"][0]["meta"]["options"]) == 11
    assert "set_2/train.txt" in dataset.fail("source=mafw", "fold=2")
    assert "source.captions=none" in dataset.fail("source=mafw", "source.captions=none")
    dataset.write(f"{folder}/train.txt", "00001.mp4 rage", "00002.mp4")
    assert "1 unknown_label, 1 empty_answer" in dataset.fail("source=mafw")
