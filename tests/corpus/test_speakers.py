import json
from pathlib import Path

import pytest

from omnihuman.corpus import speakers
from omnihuman.corpus.speakers import RECORDS, write_speakers
from omnihuman.corpus.world import build_identities, build_scenes


def test_both_people_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_speakers(tmp_path / "speakers", num_clips=2)
    records = json.loads((out / RECORDS).read_text())
    assert len(records) == 4 and len({raw["id"] for raw in records}) == 4
    first, second = records[:2]
    assert first["video"] == second["video"] and (out / first["video"]).is_file() and first["faces"]
    assert first["conversations"][1]["value"] == second["meta"]["other_transcript"] != first["meta"]["other_transcript"]
    assert (first["meta"]["cue"], second["meta"]["cue"]) == ("first", "second")
    assert build_identities(0)[first["meta"]["identity"]].split == "test"
    assert not {raw["video"] for raw in records} & {f"media/{scene.id}.mp4" for scene in build_scenes(0)}
    monkeypatch.setattr(speakers, "_write", lambda *_: pytest.fail("written again"))
    assert write_speakers(out, num_clips=2) == out


def test_the_built_in_corpus_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(ValueError, match="built-in corpus"):
        write_speakers(tmp_path)
