"""The built-in corpus as a source."""

import json
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.build import build, compose_part
from omnihuman.data.record import Record
from omnihuman.source import sample
from omnihuman.source.sample import SampleSource


def test_records_are_those_of_the_split(corpus: Path) -> None:
    source = build(compose_part("source", "sample"))("val", str(corpus))
    expected = [entry["id"] for entry in json.loads((corpus / "val.json").read_text())]
    records = list(source.records())
    assert all(isinstance(record, Record) for record in records)
    assert [record.id for record in records] == expected
    assert source.location == str(corpus / "val.json")


def test_a_missing_corpus_is_written_when_records_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, folder = [], tmp_path / "data" / "sample"

    def write(root: Path, seed: int) -> Path:
        calls.append((root, seed))
        root.mkdir()
        (root / "test.json").write_text("[]")
        return root

    monkeypatch.setattr(sample, "write_corpus", write)
    source = SampleSource("test", folder, seed=3)
    assert not calls
    assert not list(source.records()) and calls == [(folder, 3)]


def test_a_folder_with_other_files_raises(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(ValueError, match=r"out=.*other files"):
        list(SampleSource("train", tmp_path).records())


def test_an_unknown_split_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'dev': .*train, val, test"):
        SampleSource("dev", tmp_path)


@pytest.mark.slow
def test_its_sheet_also_shows_topics_and_audio(corpus: Path, tmp_path: Path) -> None:
    files = SampleSource("val", corpus).draw_sheet(tmp_path / "val.png", num_records=2, num_frames=2).files
    assert [file.name for file in files] == ["val.png", "contact_sheet.png", "listening_sheet.png"]
    assert all(Image.open(file).size[0] > 600 for file in files)
