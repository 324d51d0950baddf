"""CMU-MOSEI in MMSA's layout."""

from .conftest import Dataset, summarize


def test_the_table_has_splits_and_sentiments(dataset: Dataset) -> None:
    dataset.write(
        "label.csv",
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode",
        '-3g5yACwYnA,13,"Key, please.",1.0,,,,Positive,train',
        "-3g5yACwYnA,2,No.,-1.0,,,,Negative,train",
        "_0efYOjQYRc,3,Well.,0.0,,,,Neutral,valid",
    )
    dataset.add("Raw/-3g5yACwYnA/13.mp4", "Raw/-3g5yACwYnA/2.mp4", "Raw/_0efYOjQYRc/3.mp4")
    records = dataset.records("source=cmu_mosei")
    assert summarize(records["train"])[0] == ("Raw/-3g5yACwYnA/13.mp4", "positive")
    assert summarize(records["val"]) == [("Raw/_0efYOjQYRc/3.mp4", "neutral")]
    assert records["val"][0]["meta"]["options"] == ["negative", "neutral", "positive"]
