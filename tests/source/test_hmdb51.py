"""HMDB51: lists of three splits."""

from .conftest import Dataset, summarize


def test_marks_are_splits(dataset: Dataset) -> None:
    folder = "testTrainMulti_7030_splits"
    dataset.write(f"{folder}/brush_hair_test_split2.txt", "a.avi 1 ", "b.avi 2 ", "c.avi 0 ")
    dataset.write(f"{folder}/wave_test_split2.txt", "d.avi 1 ")
    dataset.add("hmdb51_org/brush_hair/a.avi", "hmdb51_org/brush_hair/b.avi", "hmdb51_org/wave/d.avi")
    records = dataset.records("source=hmdb51", "fold=2")
    assert summarize(records["train"]) == [
        ("hmdb51_org/brush_hair/a.avi", "brush hair"),
        ("hmdb51_org/wave/d.avi", "wave"),
    ]
    assert summarize(records["test"]) == [("hmdb51_org/brush_hair/b.avi", "brush hair")]
    assert len(records["test"][0]["meta"]["options"]) == 51
    assert 4 <= len(records["train"][0]["meta"]["options"]) <= 10
    assert "brush_hair_test_split1.txt" in dataset.fail("source=hmdb51", "fold=1")
