"""WavCaps: a file and a folder for each collection."""

import json

from .conftest import Dataset, summarize


def test_collections_have_captions(dataset: Dataset) -> None:
    dataset.write("json_files/AudioSet_SL/as_final.json", json.dumps({"data": [{"id": "Yb.wav", "caption": "Wind."}]}))
    dataset.write("json_files/SoundBible/sb_final.json", json.dumps({"data": [{"id": "22", "caption": "A plane."}]}))
    assert "expected AudioSet_SL_flac" in dataset.fail("source=wavcaps")
    dataset.add("AudioSet_SL_flac/Yb.flac", "audio/SoundBible_flac/22.flac")
    records = dataset.records("source=wavcaps", "fractions=[1,0,0]")
    assert summarize(records["train"]) == [
        ("AudioSet_SL_flac/Yb.flac", "Wind."),
        ("audio/SoundBible_flac/22.flac", "A plane."),
    ]
    assert any("fsd_final.json" in note for note in dataset.report()["notes"])
    dataset.write("json_files/FreeSound/fsd_final.json", "[]")
    dataset.add("FreeSound_flac/1.flac")
    assert "fsd_final.json: " in dataset.fail("source=wavcaps")
