"""EMER: descriptions, held out."""

from .conftest import Dataset, summarize


def test_descriptions_are_held_out(dataset: Dataset) -> None:
    dataset.write("final-EMER-reason.csv", "name,chinese,english", '"sample_1","他笑了。","He smiles, so he is glad."')
    dataset.add("video/sample_1.mp4")
    records = dataset.records("source=emer")
    assert {split: summarize(items) for split, items in records.items()} == {
        "test": [("video/sample_1.mp4", "He smiles, so he is glad.")]
    }
    assert summarize(dataset.records("source=emer", "source.language=chi")["test"])[0][1] == "他笑了。"
    assert "gt-eng.csv" in dataset.fail("source=emer", "source.version=v1")
    assert "source.version=v3" in dataset.fail("source=emer", "source.version=v3")
