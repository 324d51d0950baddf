"""CelebV-HQ: attributes of appearance and action, emotions."""

import json

from .conftest import Dataset, summarize


def test_attributes_are_listed(dataset: Dataset) -> None:
    spans = [
        {"emotion": "neutral", "start_sec": 0, "end_sec": 0.5},
        {"emotion": "happy", "start_sec": 0.5, "end_sec": 1.5},
    ]
    emotions = [{"sep_flag": False, "labels": "neutral"}, {"sep_flag": True, "labels": spans}]
    clips = {}
    for number, emotion in enumerate(emotions):
        attributes = {"appearance": [number, 1], "action": [0, number], "emotion": emotion}
        clips[f"M2O_{number}"] = {"ytb_id": "M2O", "attributes": attributes}
    meta = {"appearance_mapping": ["Male", "Brown_Hair"], "action_mapping": ["blow", "close_eyes"]}
    dataset.write("celebvhq_info.json", json.dumps({"meta_info": meta, "clips": clips}))
    dataset.add("35666/M2O_0.mp4", "35666/M2O_1.mp4")
    records = dataset.records("source=celebv_hq", "fractions=[1,0,0]")
    assert summarize(records["train"]) == [("35666/M2O_0.mp4", "brown hair"), ("35666/M2O_1.mp4", "male, brown hair")]
    records = dataset.records("source=celebv_hq_action", "fractions=[1,0,0]")
    assert summarize(records["train"]) == [("35666/M2O_1.mp4", "close eyes")]
    assert any(note.endswith("attribute: 1") for note in dataset.report()["notes"])
    records = dataset.records("source=celebv_hq_emotion", "fractions=[0,0,1]")
    assert [(raw["conversations"][1]["value"], raw.get("end")) for raw in records["test"]] == [
        ("neutral", None),
        ("neutral", 0.5),
        ("happy", 1.5),
    ]
    assert records["test"][0]["meta"] == {"options": ["happy", "neutral"], "person": "M2O"}
    del clips["M2O_0"]["attributes"]
    dataset.write("celebvhq_info.json", json.dumps({"meta_info": meta, "clips": clips}))
    assert "1 malformed_record" in dataset.fail("source=celebv_hq")
