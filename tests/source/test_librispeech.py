"""LibriSpeech: transcripts beside the audio."""

from .conftest import Dataset, summarize


def test_folders_are_splits_and_speakers_are_people(dataset: Dataset) -> None:
    assert "path=set: " in dataset.fail("source=librispeech")
    dataset.folder.mkdir()
    assert "expected train-clean-100" in dataset.fail("source=librispeech")
    for folder, speaker in {"train-clean-100": "103", "dev-clean": "84", "test-other": "367"}.items():
        stem = f"{folder}/{speaker}/1/{speaker}-1"
        dataset.write(f"{stem}.trans.txt", f"{speaker}-1-0000 CHAPTER ONE", f"{speaker}-1-0001 HE SAID")
        dataset.add(f"{stem}-0000.flac", f"{stem}-0001.flac")
    records = dataset.records("source=librispeech")
    assert summarize(records["val"])[1] == ("dev-clean/84/1/84-1-0001.flac", "HE SAID")
    assert {split: len(items) for split, items in records.items()} == {"train": 2, "val": 2, "test": 2}
    raw = records["test"][0]
    assert raw["conversations"][0]["value"] == "<audio>\nRecognize the speech and give me the transcription."
    assert raw["task"] == "transcription" and raw["meta"] == {"person": "367"}
    dataset.write("dev-clean/84/1/84-1.trans.txt", "84-1-0000")
    assert "1 empty_answer" in dataset.fail("source=librispeech")
