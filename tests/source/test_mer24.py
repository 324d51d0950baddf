"""MER2024: the table of labels."""

from .conftest import Dataset, summarize


def test_a_table_names_clips(dataset: Dataset) -> None:
    dataset.write("label-disdim.csv", "name,discrete,valence", "sample_1,worried,-1.5", "sample_2,happy,2")
    dataset.add("video-labeled/sample_1.avi", "video-labeled/sample_2.mp4")
    records = dataset.records("source=mer24", "fractions=[1,0,0]")
    assert summarize(records["train"]) == [
        ("video-labeled/sample_1.avi", "worried"),
        ("video-labeled/sample_2.mp4", "happy"),
    ]
    dataset.write("label-disdim.csv", "name,emotion", "sample_1,worried")
    assert "no column discrete" in dataset.fail("source=mer24")
