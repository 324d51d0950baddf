"""Lists of json files with conversations, as LLaVA-OneVision's training reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.source.llava import MixtureFile, select_entries

from .conftest import Dataset, build_entry, read_entries

ENTRY = MixtureFile("a.yaml", "a.json")


def ask(question: str, answer: str = "Yes.", **fields: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "same", "conversations": turns, **fields}


def write_mixture(dataset: Dataset) -> None:
    """Write the forms of the official data: images, LLaVA-Video's tag, text alone, and paths of another disk."""
    dataset.add("media/coco/1.jpg", "media/coco/2.jpg", "media/talk.mp4")
    images = [
        ask("<image>\nA dog?", image="1.jpg"),
        ask("<image>\n<image>\nSame?", image=["1.jpg", "2.jpg"]),
        ask("<image>\nLost?", image="3.jpg"),
        {"id": 3},
    ]
    dataset.write("cauldron/images.json", json.dumps(images))
    dataset.write("video.jsonl", json.dumps(ask("<image>\nWho?", video="talk.mp4", data_source="academic")))
    dataset.write("text.json", json.dumps([ask("1 + 1?", str(number)) for number in range(4)]))
    dataset.write(
        "mix.yaml",
        "datasets:",
        "  - json_path: /mnt/disk/cauldron/images.json",
        "    media_folder: coco",
        "  - json_path: video.jsonl",
        '    sampling_strategy: "all"',
        "    task: qa",
        "  - json_path: /mnt/disk/text.json",
        '    sampling_strategy: "end:30%"',
        "  - json_path: /mnt/disk/secret.json # not released",
    )


def test_a_list_becomes_records_with_counts_of_what_cannot_be_used(dataset: Dataset) -> None:
    write_mixture(dataset)
    keys = ("source=llava", "path=set/mix.yaml", "root=set/media")
    assert "3 of 8 clips" in dataset.fail(*keys)
    records = dataset.records(*keys, "skip=true")
    assert [*records] == ["train"]
    rows = [(raw["id"], raw.get("image") or raw.get("video"), raw["task"]) for raw in records["train"]]
    assert rows == [
        ("0/images/0", "coco/1.jpg", "general"),
        ("0/images/1", ["coco/1.jpg", "coco/2.jpg"], "general"),
        ("1/video/0", "talk.mp4", "qa"),
        ("2/text/2", None, "general"),
        ("2/text/3", None, "general"),
    ]
    report = dataset.report()
    assert {reason: len(bad) for reason, bad in report["bad"].items()} == {
        "missing_file": 1,
        "missing_conversations": 1,
        "missing_json": 1,
    }
    assert "7 of 9 records of 4 files" in report["notes"][0] and not any("without audio" in n for n in report["notes"])
    assert report["seconds"]["train"] > 0
    options = {"text_only": True}
    source = build(compose_part("source", "records"))("out", **options)
    assert len(read_entries(source)[0]) == 5


def test_a_training_reads_a_list_without_probing(dataset: Dataset) -> None:
    write_mixture(dataset)
    source = build(compose_part("source", "llava"))("set/mix.yaml", "set/media")
    records, errors = read_entries(source)
    assert [record.kind for record in records] == ["image", "image", "video", "text", "text"]
    assert records[2].messages[0] == ("user", "<video>\nWho?") and records[2].meta["data_source"] == "academic"
    assert sorted(error.reason for error in errors) == ["missing_conversations", "missing_file", "missing_json"]
    single = build(compose_part("source", "llava"))("set/text.json", "set/media")
    assert [record.id for record in read_entries(single)[0]] == [f"text/{number}" for number in range(4)]


@pytest.mark.parametrize(
    ("strategy", "indices"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6]),
        ("first:2", [0, 1]),
        ("first:10%", [0]),
        ("end:30%", [4, 5, 6]),
        ("end:0", []),
        ("end:99", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_strategies(strategy: str, indices: list[int]) -> None:
    """A share is rounded up, as in the official code."""
    assert select_entries(7, MixtureFile("a.yaml", "a.json", strategy)) == indices


def test_random_is_decided_by_the_seed() -> None:
    samples = [select_entries(100, MixtureFile("a.yaml", "a.json", "random:5%"), seed) for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2] and len(samples[0]) == 5 and samples[0] == sorted(samples[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a.json", r"mix\.yaml: expected datasets"),
        ("datasets: []", r"mix\.yaml: expected datasets"),
        ("datasets: [a.json]", r"datasets\[0\] is 'a\.json'.*json_path"),
        ("datasets: [{json_path: a.json, sampling: all}]", r"datasets\[0\]: unknown key sampling.*sampling_strategy"),
        ("datasets: [{json_path: a.json, sampling_strategy: last:3}]", r"sampling_strategy is 'last:3'.*first:1000"),
        ("datasets: [{json_path: a.json, fps: fast}]", r"datasets\[0\]: .*fps"),
        ("datasets: [{json_path: a.csv}]", r"a\.csv: .*\.json or \.jsonl"),
        ("datasets: {", r"mix\.yaml: no yaml file"),
    ],
)
def test_an_invalid_list_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(content)
    (tmp_path / "a.csv").touch()
    with pytest.raises(ValueError, match=message):
        list(build(compose_part("source", "llava"))(tmp_path / "mix.yaml", tmp_path).records())


def test_a_question_for_all_is_refused(dataset: Dataset) -> None:
    dataset.write("a.json", json.dumps([build_entry()]))
    assert "question='Who?'" in dataset.fail("source=llava", "path=set/a.json", "question=Who?")
