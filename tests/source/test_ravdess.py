"""RAVDESS: names of seven numbers, held out."""

from .conftest import Dataset, summarize


def test_all_clips_of_a_kind_are_held_out(dataset: Dataset) -> None:
    for name in ("01-01-06-01-02-01-12", "01-01-02-01-02-01-01", "02-01-06-01-02-01-12", "01-02-06-01-02-01-12"):
        dataset.add(f"Actor_{name[-2:]}/{name}.mp4")
    records = dataset.records("source=ravdess")
    assert {split: summarize(items) for split, items in records.items()} == {
        "test": [
            ("Actor_01/01-01-02-01-02-01-01.mp4", "calm"),
            ("Actor_12/01-01-06-01-02-01-12.mp4", "fear"),
        ]
    }
    assert dataset.report()["people"] == {"test": 2}
    records = dataset.records("source=ravdess", "source.held_out=false", "fractions=[1,0,0]", "source.channel=song")
    assert summarize(records["train"]) == [("Actor_12/01-02-06-01-02-01-12.mp4", "fear")]
    assert "source.channel=talk: " in dataset.fail("source=ravdess", "source.channel=talk")
    assert "03-01-??" in dataset.fail("source=ravdess", "source.modality=audio")
