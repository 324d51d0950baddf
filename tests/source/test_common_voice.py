"""Common Voice: tables without quotes."""

from .conftest import Dataset, summarize

HEADER = "client_id\tpath\tsentence\tup_votes"


def test_tables_are_splits_and_quotes_are_characters(dataset: Dataset) -> None:
    for split, sentence in {"train": 'He said "no', "dev": "Yes, it is.", "test": "Why?"}.items():
        dataset.write(f"{split}.tsv", HEADER, f"{split}1\tcommon_voice_{split}.mp3\t{sentence}\t2")
        dataset.add(f"clips/common_voice_{split}.mp3")
    records = dataset.records("source=common_voice")
    assert summarize(records["train"]) == [("clips/common_voice_train.mp3", 'He said "no')]
    assert records["val"][0]["meta"] == {"person": "dev1"} and summarize(records["test"])[0][1] == "Why?"
