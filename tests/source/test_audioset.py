"""AudioSet: tables with comments, labels by name."""

from .conftest import Dataset, summarize


def test_labels_have_names(dataset: Dataset) -> None:
    comments = ["# Segments csv created Sun", "# num_ytids=1, num_segs=1", "# YTID, start_seconds, end_seconds, labels"]
    dataset.write("class_labels_indices.csv", "index,mid,display_name", "0,/m/09x0r,Speech", '1,/m/05,"Male, man"')
    dataset.write("balanced_train_segments.csv", *comments, '--4gqARaEJE, 0.000, 10.000, "/m/09x0r,/m/05"')
    dataset.write("eval_segments.csv", *comments, '--PJHxphWEs, 30.000, 40.000, "/m/05"')
    dataset.add("audio/--4gqARaEJE.wav", "audio/--PJHxphWEs_30_40.flac")
    records = dataset.records("source=audioset")
    assert summarize(records["train"]) == [("audio/--4gqARaEJE.wav", "Speech, Male, man")]
    assert summarize(records["test"]) == [("audio/--PJHxphWEs_30_40.flac", "Male, man")]
    dataset.write("class_labels_indices.csv", "index,name", "0,Speech")
    assert "class_labels_indices.csv" in dataset.fail("source=audioset")
