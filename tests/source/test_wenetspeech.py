"""WenetSpeech: segments of recordings."""

import json

from .conftest import Dataset


def test_subsets_are_splits(dataset: Dataset) -> None:
    segments = [
        {"sid": "1", "begin_time": 0.0, "end_time": 0.5, "text": "你好", "subsets": ["L", "M"]},
        {"sid": "2", "begin_time": 0.5, "end_time": 1.0, "text": "再见", "subsets": ["TEST_NET"]},
    ]
    dataset.write("WenetSpeech.json", json.dumps({"audios": [{"path": "audio/a.opus", "segments": segments}]}))
    dataset.add("audio/a.opus")
    records = dataset.records("source=wenetspeech")
    assert records["train"][0]["conversations"][1]["value"] == "你好" and records["test"][0]["start"] == 0.5
    assert dataset.records("source=wenetspeech", "source.subset=S").keys() == {"test"}
