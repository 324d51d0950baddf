"""The same tables from this process, two workers, slices and Ray, byte for byte."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omnihuman.curation.backend import open_backend, run_pipeline
from omnihuman.curation.cluster import share_resources
from omnihuman.curation.pipeline import Pipeline
from omnihuman.curation.store import read_partition
from tests.curation.conftest import build_on, compose_operator, run_here


def list_nodes(**options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a pipeline with operators of each kind; options are those of operators."""
    captioner = {
        "_target_": "omnihuman.judge.scripted.ScriptedJudge",
        "_partial_": True,
        "replies": {"brief": {"caption": {"tasks": ["body"]}}},
    }
    nodes = {
        "probe": compose_operator("probe"),
        "frames": compose_operator("extract_frames"),
        "brief": compose_operator("ask", captioner=captioner),
        "dedupe": compose_operator("dedupe", threshold=0.999),
        "faces": compose_operator("faces", boxes="truth"),
        "sample": compose_operator("sample", size=2, strata=["short_side"]),
        "write": compose_operator("write"),
    }
    return {name: {**node, **options.get(name, {})} for name, node in nodes.items()}


def serialize(pipeline: Pipeline) -> bytes:
    """Return the bytes of all rows with all their columns, in the order of ids, and of their records."""
    columns: dict[str, Any] = {}
    for level in pipeline.levels:
        columns |= level.operator.writes
    tables = []
    for part in range(pipeline.num_parts):
        tables.append(read_partition(pipeline.files(len(pipeline.levels) - 1, part), list(columns)))
    table = pa.concat_tables(tables).drop_columns(["parent"]).sort_by([("id", "ascending"), ("source", "ascending")])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.combine_chunks().replace_schema_metadata(None))
    return bytes(sink.getvalue().to_pybytes()) + (pipeline.out / "records" / "train.json").read_bytes()


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return serialize(run_here(build_on(clips, list_nodes(), tmp_path_factory.mktemp("here") / "out", 2)))


def test_slices_give_the_same_tables(clips: Path, tmp_path: Path, expected: bytes) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", 2)
    for _ in range(3):  # decisions of dedupe, sample and write need the other slice
        for parts in ([1], [0, 2]):
            try:
                run_here(pipeline, parts)
            except ValueError as error:
                assert "wait=" in str(error)
    run_here(pipeline, [1])
    assert serialize(pipeline) == expected


@pytest.mark.slow
def test_two_workers_give_the_same_tables(clips: Path, tmp_path: Path, expected: bytes) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", 2)
    run_pipeline(pipeline, range(3), 2, 0.0)
    assert serialize(pipeline) == expected


@pytest.mark.slow
def test_ray_gives_the_same_tables(clips: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    nodes = {name: node for name, node in list_nodes().items() if name not in ("frames", "brief", "dedupe")}
    pipelines = [build_on(clips, nodes, tmp_path / name, 2) for name in ("ray", "here")]
    broken = build_on(clips, nodes, tmp_path / "broken", 2, max_failed=0.0)
    ray.init(logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    try:
        run_pipeline(pipelines[0], range(3), 1, 0.0, "ray")
        with pytest.raises(ValueError, match=r"^probe failed on 1 of 2 .*max_failed=0"):
            run_pipeline(broken, range(3), 1, 0.0, "ray")
    finally:
        ray.shutdown()
    assert serialize(pipelines[0]) == serialize(run_here(pipelines[1]))


def test_an_unknown_backend_is_named(clips: Path, tmp_path: Path) -> None:
    pipeline = build_on(clips, {"probe": compose_operator("probe")}, tmp_path)
    with pytest.raises(ValueError, match=r"backend=dask.*embedded"):
        open_backend("dask", pipeline, 1)


def test_actors_leave_cores_to_others(clips: Path, tmp_path: Path) -> None:
    level = build_on(clips, {"probe": compose_operator("probe")}, tmp_path).levels[1]
    assert share_resources(level, {"CPU": 64.0, "GPU": 8.0}, 4) == {"num_cpus": 1.0, "num_gpus": 0.0}
    assert share_resources(level, {"CPU": 2.0}, 4) == {"num_cpus": 0.25, "num_gpus": 0.0}
