"""DFEW: the folds of the official tables, and what all data sets have in common."""

from pathlib import Path

import pytest

from omnihuman.benchmark.emotion import QUESTION

from .conftest import Dataset, summarize


@pytest.fixture
def dfew(dataset: Dataset) -> Dataset:
    for split, numbers in {"train": range(1, 11), "test": range(11, 14)}.items():
        rows = [f"{number:05d},{number % 7 + 1}" for number in numbers]
        dataset.write(f"EmoLabel_DataSplit/{split}(single-labeled)/set_2.csv", "video_name,label", *rows)
        dataset.add(*(f"videos/{number}.mp4" for number in numbers if number != 12))
    dataset.add("videos/00012.avi")
    return dataset


def test_a_fold_is_read_with_its_splits(dfew: Dataset) -> None:
    records = dfew.records("source=dfew", "fold=2")
    assert summarize(records["test"]) == [
        ("videos/11.mp4", "surprise"),
        ("videos/00012.avi", "disgust"),
        ("videos/13.mp4", "fear"),
    ]
    assert summarize(records["train"])[:2] == [("videos/1.mp4", "sad"), ("videos/2.mp4", "neutral")]
    report = dfew.report()
    assert report["task"] == "emotion" and report["records"] == {"train": 10, "test": 3}
    assert report["counts"]["train"]["angry"] == 2 and report["seconds"]["test"] == pytest.approx(6, abs=0.2)


def test_training_records_have_drawn_questions_and_options(dfew: Dataset) -> None:
    records = dfew.records("source=dfew", "fold=2")
    turns = [raw["conversations"][0]["value"].split("\n") for raw in records["train"]]
    assert {tuple(turn[:2]) for turn in turns} == {("<video>", "<audio>")} and len({turn[2] for turn in turns}) > 3
    for raw, turn in zip(records["train"], turns, strict=True):
        options = raw["meta"]["options"]
        assert turn[3] == " ,".join(options) and raw["conversations"][1]["value"] in options
        assert 5 <= len(options) <= 7
    assert len({len(raw["meta"]["options"]) for raw in records["train"]}) > 1
    for raw in records["test"]:
        question = f"<video>\n<audio>\n{QUESTION}\nhappy ,sad ,neutral ,angry ,surprise ,disgust ,fear"
        assert raw["conversations"][0]["value"] == question


def test_a_seed_and_the_id_decide_what_is_drawn(dfew: Dataset) -> None:
    first, again, other = (dfew.records("source=dfew", "fold=2", f"seed={seed}")["train"] for seed in (0, 0, 1))
    assert first == again != other
    (dfew.folder / "videos/1.mp4").unlink()
    assert dfew.records("source=dfew", "fold=2", "skip=true")["train"] == first[1:]
    assert dfew.report()["bad"].keys() == {"missing_file"}


def test_a_share_of_train_becomes_val(dfew: Dataset) -> None:
    records = dfew.records("source=dfew", "fold=2", "val=0.5")
    assert {split: len(items) for split, items in records.items()} == {"train": 5, "val": 5, "test": 3}
    assert all(len(raw["meta"]["options"]) == 7 for raw in records["val"])


def test_wordings_of_the_user(dfew: Dataset) -> None:
    Path("mine.yaml").write_text("texts: [Who feels what]\n")
    records = dfew.records("source=dfew", "fold=2", "questions=mine.yaml")
    assert "\nWho feels what\n" in records["train"][0]["conversations"][0]["value"]
    assert len(records["train"][0]["meta"]["options"]) == 7
    records = dfew.records("source=dfew", "fold=2", "question=Why?", "options={1: a, 2: b}", "skip=true")
    assert records["train"][0]["conversations"][0]["value"] == "<video>\n<audio>\nWhy?\na ,b"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fold=1"], "train(single-labeled)/set_1.csv"),
        (["fold=6"], "fold=6: choose from 1 to 5"),
        (["fold=2", "questions=moods"], "questions=moods: choose from action, attribute"),
        (["fold=2", "video=clip"], "video=clip: source=dfew has no such key"),
        (["fold=2", "fractions=[1,0,0]"], "fractions"),
        (["fold=2", "val=2"], "val=2"),
        (["path=nowhere"], "path=nowhere: "),
        (["fold=2", "source.media=[films]"], "path=set: expected films"),
        (["fold=2", "options={1: a, 2: b}"], "unknown_label"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, dfew: Dataset) -> None:
    assert message in dfew.fail("source=dfew", *arguments)
