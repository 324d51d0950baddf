"""An index gives the samples of its data file in their order, to any number of ranks and workers, and when resumed."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data import media
from omnihuman.data.module import OmniData
from omnihuman.data.notices import Notices
from omnihuman.data.plan import record_tables
from omnihuman.data.plan.headers import HeaderStore
from omnihuman.data.plan.planning import probe_file
from omnihuman.data.plan.record_tables import parse_row, read_manifest, read_rows, write_records
from omnihuman.data.plan.source_plans import name_headers
from omnihuman.data.plan.table_writer import TableWriter
from omnihuman.data.plan.tables import PlanTable
from omnihuman.source.index import IndexSource
from omnihuman.source.jsonl import JsonlSource
from tests.data.conftest import write_records as write_lines

Pair = tuple[OmniData, OmniData]
Build = Callable[..., OmniData]

OPTIONS = {"on_bad_sample": "skip", "max_skipped": 0.9}


def probe_all(files: Any) -> Any:
    return {file: probe_file(file, timeout=20.0, policy="skip") for file in files}


def write_index(folder: Path, *sources: JsonlSource, num_processes: int = 1) -> Path:
    """Write an index as the verb does."""
    headers = HeaderStore(folder / "headers" / name_headers(), probe_all)
    names = [f"tables/{number}" for number in range(len(sources))]
    for name, source in zip(names, sources, strict=True):
        write_records(TableWriter(folder / name), source, headers, {}, None, num_processes)
    (folder / "index.json").write_text(json.dumps({"tables": names}))
    return folder


@pytest.fixture
def pair(build_data: Callable[..., OmniData], media_root: Path, tmp_path: Path) -> tuple[OmniData, OmniData]:
    """Return data from a data file with bad rows, and from its index."""
    faces = [{"time": 0.0, "box": [1, 2, 30, 40]}]
    parts = [
        write_lines(tmp_path / "a.jsonl", 9, "a", task="who", broken=3),
        write_lines(tmp_path / "b.jsonl", 2, "b", video="gone.mp4"),
        write_lines(tmp_path / "c.jsonl", 3, "c", faces=faces, note={"day": [1, None]}),
    ]
    records = tmp_path / "all.jsonl"
    records.write_text("\n".join(Path(part).read_text() for part in parts))
    folder = write_index(tmp_path / "index", JsonlSource(records, media_root))
    data = build_data(str(records), **OPTIONS)
    indexed = build_data(IndexSource(folder), index=str(folder), index_folder=str(folder), **OPTIONS)
    return data, indexed


def test_an_index_gives_the_entries_of_its_file(pair: Pair) -> None:
    expected, entries = (list(data.sources[0].source.records()) for data in pair)
    assert [str(entry) for entry in entries] == [str(entry) for entry in expected] and len(entries) == 15


def test_several_processes_make_the_same_index(
    pair: Pair, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_tables, "BLOCK", 2)
    write_index(tmp_path / "again", JsonlSource(tmp_path / "all.jsonl", media_root), num_processes=3)
    files = []
    for name in ("index", "again"):
        files.append({file.name: file.read_bytes() for file in (tmp_path / name / "tables" / "0").iterdir()})
    assert files[0] == files[1] and len(files[0]) == 11


def test_order_is_that_of_the_file_for_any_number_of_ranks_and_workers(pair: Pair) -> None:
    data, indexed = pair
    assert list(data.train_samples.planned) == list(indexed.train_samples.planned)
    assert [skip["reason"] for skip in indexed.train_samples.skipped] == [
        skip["reason"] for skip in data.train_samples.skipped
    ]
    assert indexed.fingerprint == data.fingerprint
    for world in (1, 2, 4):
        for rank in range(world):
            assert list(indexed.plan_epoch(world, rank, 1)) == list(data.plan_epoch(world, rank, 1))
    of_worker = pickle.loads(pickle.dumps(indexed.train_samples.planned))
    assert list(of_worker) == list(data.train_samples.planned)


def test_a_run_from_an_index_resumes(
    pair: Pair,
    build_data: Build,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    indexed = pair[1]
    indexed.freeze(tmp_path / "excluded.jsonl", Notices(None), is_resumed=False)
    state = json.loads(json.dumps(indexed.state_dict()))
    monkeypatch.setattr(media, "probe", None)
    folder = tmp_path / "index"
    resumed = build_data(IndexSource(folder), index=str(folder), index_folder=str(folder), **OPTIONS)
    resumed.freeze(tmp_path / "excluded.jsonl", Notices(None), is_resumed=True)
    resumed.load_state_dict(state)
    assert resumed.order(1).tolist() == indexed.order(1).tolist()


def test_no_file_is_probed_again(
    pair: Pair,
    build_data: Build,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Also where another folder holds the plans, as for a mixture of several."""
    monkeypatch.setattr(media, "probe", None)
    data = build_data(IndexSource(tmp_path / "index"), index_folder=str(tmp_path / "plans"), **OPTIONS)
    assert len(data.train_samples) == len(pair[1].train_samples) == 12


def test_media_that_lack_what_the_record_names_are_bad_rows(media_root: Path, tmp_path: Path) -> None:
    source = JsonlSource(write_lines(tmp_path / "a.jsonl", 3, second_clip="tone.wav"), media_root)
    folder = write_index(tmp_path / "index", source)
    table = PlanTable(folder / read_manifest(folder)["tables"][0])
    assert len(table) == 0 and [skip["row"] for skip in table.report.skipped] == [0, 1, 2]
    assert {entry[1].reason for entry in map(parse_row, read_rows(table))} == {"no_media"}  # type: ignore[index, union-attr]


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no index.*omnihuman index"):
        list(IndexSource(tmp_path).records())
