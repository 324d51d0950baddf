"""The files of a source, and the records that cannot be worked on."""

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnihuman.curation.listing import Listing, list_source
from omnihuman.operator.base import Failed
from omnihuman.source.data_juicer import DataJuicerSource
from omnihuman.source.folder import FolderSource
from omnihuman.source.nemo_curator import NemoCuratorSource
from omnihuman.source.records import RecordsSource
from omnihuman.source.sample import SampleSource
from omnihuman.source.table import TableSource
from tests.curation.conftest import clips as clips

CHAT = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "She."}]


def read(listing: Listing, folder: Path) -> list[Any]:
    listing.save(folder)
    return list(listing.apply(listing.read(0).to_pylist()))


def test_files_of_a_folder_without_side_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/1.mp4", "a.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    listing = list_source(partial(FolderSource), tmp_path, None, 1)
    assert [entry["source"] for entry in listing.entries] == ["a.mp4", "b/1.mp4"] and listing.num_parts == 2
    assert read(listing, tmp_path / "out")[0]["records"] == []
    assert len(pickle.dumps(listing)) < 1000, "rows travel to the workers"
    (tmp_path / "a.mp4").write_bytes(b"other")
    assert list_source(partial(FolderSource), tmp_path, None, 1).fingerprint != listing.fingerprint


def test_records_about_one_span_are_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    spans: list[dict[str, float]] = [{}, {}, {"start": 1.0}]
    records: list[dict[str, Any]] = [{"video": "a.mp4", "conversations": CHAT, **span} for span in spans]
    (tmp_path / "train.json").write_text(json.dumps(records))
    listing = list_source(partial(RecordsSource), tmp_path, None, 10)
    assert [(entry["start"], len(entry["records"]), entry["split"]) for entry in listing.entries] == [
        (0.0, 2, "train"),
        (1.0, 1, "train"),
    ]


def test_records_that_cannot_be_used_are_failed_rows(tmp_path: Path) -> None:
    text = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "She."}]
    records = [{"video": "gone.mp4", "conversations": CHAT}, {"conversations": text}, {"conversations": []}]
    (tmp_path / "all.json").write_text(json.dumps(records))
    outcomes = read(list_source(partial(RecordsSource), tmp_path / "all.json", None, 10), tmp_path / "out")
    assert len(outcomes) == 3 and all(isinstance(outcome, Failed) for outcome in outcomes)
    assert {outcome.why for outcome in outcomes} >= {"missing_file", "no_media"}


def test_clips_of_other_engines_need_no_caption(clips: Path, tmp_path: Path) -> None:
    texts = ["<__dj__video> <|__dj__eoc|>", "<__dj__video> She waves. <|__dj__eoc|>"]
    lines = [json.dumps({"videos": [str(clips / f"{number}.mp4")], "text": text}) for number, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, json.dumps({"videos": [str(clips / "gone.mp4")]})]))
    listing = list_source(partial(DataJuicerSource), tmp_path / "a.jsonl", clips, 10)
    assert sorted(len(entry["records"]) for entry in listing.entries if not entry["problem"]) == [0, 1]
    assert [entry["problem"][0] for entry in listing.entries if entry["problem"]] == ["missing_file"]
    for folder in ("metas", "clips"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    (tmp_path / "out" / "clips" / "0.mp4").write_bytes((clips / "0.mp4").read_bytes())
    (tmp_path / "out" / "metas" / "0.json").write_text(json.dumps({"clip_location": "s3://bucket/clips/0.mp4"}))
    (entry,) = list_source(partial(NemoCuratorSource), tmp_path / "out", None, 10).entries
    assert entry["source"] == "clips/0.mp4" and not entry["records"] and not entry["problem"]


def test_other_sources_and_empty_ones_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source=table.*data_juicer"):
        list_source(partial(TableSource), tmp_path, None, 10)
    with pytest.raises(ValueError, match="no media file"):
        list_source(partial(FolderSource), tmp_path, None, 10)


def test_clips_of_the_corpus_have_annotations_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.curation.listing.SPLITS", ("train", "val"))
    listing = list_source(partial(SampleSource), corpus, None, 1000)
    with_words = 0
    for entry in listing.entries:
        records = [json.loads(text) for text in entry["records"]]
        assert "words" in records[0] and not any("words" in record for record in records[1:])
        with_words += bool(records[0]["words"])
    assert with_words
