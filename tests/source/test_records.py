"""Data files of any kind, chosen by their suffix."""

import json
import re
from pathlib import Path

import pytest

from omnihuman.build import build, compose_part, config_dir
from omnihuman.source.records import RecordsSource

from .conftest import build_entry, read_entries, write_lines


def test_the_suffix_chooses_the_format(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([build_entry()]))
    write_lines(tmp_path / "a.jsonl", build_entry(id="8"), build_entry(id="9", video="gone.mp4"))
    build_source = build(compose_part("source", "records"))
    sources = [build_source(tmp_path / name, root) for name in ("a.json", "a.jsonl")]
    assert [source.location for source in sources] == [str(tmp_path / "a.json"), str(tmp_path / "a.jsonl")]
    (json_records, no_errors), (lines, errors) = map(read_entries, sources)
    assert [record.id for record in json_records + lines] == ["7", "8"] and not no_errors
    assert str(errors[0]).startswith(f"{tmp_path}/a.jsonl:2: video 'gone.mp4'")


def test_options_reach_the_format(root: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "A man."}]
    path = write_lines(tmp_path / "a.jsonl", {"conversations": turns})
    assert read_entries(RecordsSource(path, root, text_only=True))[0][0].kind == "text"


def test_another_suffix_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("[]")
    with pytest.raises(ValueError, match=r"a\.txt: .*\.json, \.jsonl, \.parquet"):
        list(RecordsSource(tmp_path / "a.txt", root).records())


def test_folder_has_the_root_of_its_report(tmp_path: Path) -> None:
    folder = tmp_path / "dfew"
    folder.mkdir()
    (folder / "train.json").write_text("[]")
    (folder / "report.json").write_text('{"root": "../media"}')
    source = RecordsSource(folder).source
    assert (source.path, source.root) == (folder / "train.json", tmp_path / "media")
    assert RecordsSource(folder / "train.json", tmp_path).source.root == tmp_path


def test_a_missing_folder_of_a_mixture_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"records/dfew: .*out=.*records/dfew.*data\.records"):
        list(RecordsSource(tmp_path / "records" / "dfew").records())


@pytest.mark.parametrize("system", ["humanomni", "omni_emotion"])
def test_public_sets_of_a_system_have_the_names_of_their_sources(system: str) -> None:
    """So that ``omnihuman records source=x out=records/x`` is what ``data=<system> data.path=records`` reads."""
    sources = {path.stem for path in Path(config_dir(), "source").glob("*.yaml")}
    sets = set(re.findall(r"data\.path\}/(\w+)", Path(config_dir(), "data", f"{system}.yaml").read_text()))
    assert sets & sources
    plain = {name.replace("_", ""): name for name in sources}
    assert {name: plain.get(name.replace("_", ""), name) for name in sets} == dict(zip(sets, sets, strict=True))
