"""AFEW-VA: means over frames."""

import json

from .conftest import Dataset, summarize


def test_the_answer_is_the_mean_of_the_frames(dataset: Dataset) -> None:
    frames = {"00000": {"valence": -3, "arousal": 1, "landmarks": []}, "00001": {"valence": -2, "arousal": 2}}
    dataset.write("001/001.json", json.dumps({"actor": "Ann", "frames": frames}))
    dataset.add("001/00000.png", "001/00001.png")
    records = dataset.records("source=afew_va", "fractions=[1,0,0]")
    assert summarize(records["train"]) == [("001", "valence -2.5, arousal 1.5")]
    assert records["train"][0]["task"] == "valence_arousal" and records["train"][0]["meta"] == {"person": "Ann"}
    dataset.write("002/002.json", json.dumps({"actor": "Ann", "frames": {}}))
    assert "1 malformed_file" in dataset.fail("source=afew_va")
