"""MELD: a table and a folder for each split."""

from .conftest import Dataset, summarize

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"


def test_tables_name_utterances(dataset: Dataset) -> None:
    dataset.write(
        "train_sent_emo.csv", HEADER, '1,"Oh, my God.",Ross,sadness,negative,0,3', "2,No!,Joey,joy,positive,1,0"
    )
    dataset.write("dev_sent_emo.csv", HEADER, "1,Hey.,Ross,neutral,neutral,0,0")
    dataset.write("test_sent_emo.csv", HEADER, "1,Hey.,Ross,anger,negative,0,0")
    dataset.add("train/train_splits/dia0_utt3.mp4", "train/train_splits/dia1_utt0.mp4")
    dataset.add("dev_splits_complete/dia0_utt0.mp4", "output_repeated_splits_test/dia0_utt0.mp4")
    records = dataset.records("source=meld")
    assert summarize(records["train"]) == [
        ("train/train_splits/dia0_utt3.mp4", "sad"),
        ("train/train_splits/dia1_utt0.mp4", "happy"),
    ]
    assert summarize(records["val"]) == [("dev_splits_complete/dia0_utt0.mp4", "neutral")]
    assert summarize(records["test"]) == [("output_repeated_splits_test/dia0_utt0.mp4", "angry")]
