"""GigaSpeech: segments of recordings, tags of punctuation."""

import json

from .conftest import Dataset


def test_segments_have_times_and_punctuation(dataset: Dataset) -> None:
    texts = {"{M}": "FOUR <COMMA> SAID HE <PERIOD>", "{XL}": "NO", "{DEV}": "WHY <QUESTIONMARK>", "{TEST}": "<SIL>"}
    segments = []
    for number, (subset, text) in enumerate(texts.items()):
        times = {"begin_time": number / 4, "end_time": number / 4 + 0.25}
        segments.append({"sid": f"S{number}", "text_tn": text, "subsets": [subset], **times})
    content = {"audios": [{"path": "audio/podcast/POD1.opus", "segments": segments}]}
    dataset.write("GigaSpeech.json", json.dumps(content))
    dataset.add("audio/podcast/POD1.opus")
    records = dataset.records("source=gigaspeech")
    assert {split: len(items) for split, items in records.items()} == {"train": 1, "val": 1}
    raw = records["val"][0]
    assert (raw["audio"], raw["start"], raw["end"]) == ("audio/podcast/POD1.opus", 0.5, 0.75)
    answers = [records[split][0]["conversations"][1]["value"] for split in ("train", "val")]
    assert answers == ["FOUR, SAID HE.", "WHY?"]
    assert "source.subset=XXL: " in dataset.fail("source=gigaspeech", "source.subset=XXL")
