"""Requests to a language model, counted by its server: of killed runs, of nonsense, and with a server that is gone."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import openai
import pytest

from omnihuman.curation.account import write_account
from omnihuman.curation.backend import run_pipeline
from omnihuman.curation.folder import write_state
from omnihuman.curation.listing import list_source
from omnihuman.curation.pipeline import Pipeline, build_pipeline
from omnihuman.operator.base import Row
from omnihuman.source.folder import FolderSource
from tests.curation.conftest import clips as clips
from tests.curation.conftest import compose_operator, read_rows, run_here
from tests.judge.conftest import endpoint as endpoint
from tests.judge.conftest import open_server, read_log
from tests.programs import find_port

NUM_KILLS = int(os.environ.get("FAULTS_KILLS", "10"))
CONCURRENCY = 4
assert openai.__name__  # imported before processes fork from this one

PROTOCOL = {
    "name": "echo",
    "version": 1,
    "system": "Reply as JSON.",
    "user": "What is it? {source}",
    "reply": {"text": {"kind": "text"}},
}
"""Its reply is the question, so that a mix-up of rows is visible."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def write_files(folder: Path, number: int) -> Path:
    """Write files that no operator of these tests opens."""
    folder.mkdir()
    for index in range(number):
        (folder / f"{index:04d}.mp4").write_bytes(str(index).encode())
    return folder


def build_asking(
    source: Path,
    out: Path,
    address: str,
    model: str,
    size: int = 10,
    settings: Any = None,
    probe: bool = False,
    least: float | None = None,
    **options: Any,
) -> Pipeline:
    """Return a pipeline that asks one question about each file, and filters if told so; options are the captioner's."""
    captioner = {
        "_target_": "omnihuman.judge.endpoint.EndpointJudge",
        "_partial_": True,
        "model": model,
        "base_url": address,
        "api_key_env": None,
        "cache": str(out.parent / "judgements.sqlite"),
        "max_concurrency": CONCURRENCY,
        "max_retries": 1,
        "backoff": [0.01, 0.1],
        "timeout": 10.0,
    }
    nodes = {"probe": compose_operator("probe")} if probe else {}
    nodes |= {"echo": compose_operator("ask", name="echo", protocol=PROTOCOL, captioner={**captioner, **options})}
    if least is not None:
        conditions = [{"column": "start", "most": least, "why": "late"}]
        nodes["limit"] = compose_operator("filter", conditions=conditions)
    listing = list_source(partial(FolderSource), source, None, size)
    pipeline = build_pipeline("test", nodes, listing, out, **{"max_failed": 1.0, **(settings or {})})
    out.mkdir(exist_ok=True)
    write_state(pipeline, [])
    return pipeline


def read_account(pipeline: Pipeline) -> dict[str, Any]:
    write_account(pipeline.out)
    account: dict[str, Any] = json.loads((pipeline.out / "account.json").read_text())
    assert account["planned"] == account["written"] + account["dropped"] + account["failed"] == account["rows"]
    return account


def check_replies(rows: Sequence[Row]) -> None:
    for row in rows:
        assert row["echo_text"] == f"What is it? {row['source']}" and row["status"] == "live"


def test_calls_are_those_of_the_server(endpoint: str, tmp_path: Path) -> None:
    source = write_files(tmp_path / "files", 12)
    pipeline = run_here(build_asking(source, tmp_path / "out", endpoint, "mood"))  # each request is sent twice
    check_replies(read_rows(pipeline, "echo_text"))
    cost = read_account(pipeline)["operators"][1]["cost"]
    assert cost["calls"] == cost["calls_in_partitions"] == len(read_log(endpoint, "mood")) == 24
    assert cost["tokens_in"] == 240 and {row["echo_model"] for row in read_rows(pipeline, "echo_model")} == {
        "mood-2024"
    }


def test_a_captioner_that_answers_in_prose_is_one_line(endpoint: str, tmp_path: Path) -> None:
    source = write_files(tmp_path / "files", 3)
    pipeline = build_asking(source, tmp_path / "out", endpoint, "garbage", settings={"max_failed": 0.1})
    with pytest.raises(ValueError, match=r"echo failed on 3 of 3 .*invalid_reply.*As a language model"):
        run_here(pipeline)


def test_a_key_that_is_wrong_ends_the_run(endpoint: str, tmp_path: Path) -> None:
    source = write_files(tmp_path / "files", 3)
    with pytest.raises(ValueError, match=r"wrong key.*base_url or key"):
        run_here(build_asking(source, tmp_path / "out", endpoint, "locked"))
    assert len(read_log(endpoint, "locked")) <= CONCURRENCY


def test_another_model_behind_a_name_ends_the_run(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "files", 12), tmp_path / "out"
    port = find_port()
    with open_server(port) as address:
        run_pipeline(build_asking(source, out, address, "alias"), [0], 0, 0.0)
    with open_server(port, "2025") as address:
        with pytest.raises(ValueError, match=r"alias-2025 .*alias-2024 .*captioner\.model=.*one_model=false"):
            run_here(build_asking(source, out, address, "alias"))
        pipeline = build_asking(source, out, address, "alias")
        pipeline.levels[1].operator.one_model = False  # type: ignore[attr-defined]
        models = Counter(row["echo_model"] for row in read_rows(run_here(pipeline), "echo_model"))
    assert models == {"alias-2024": 10, "alias-2025": 2}


def test_another_threshold_makes_no_call(endpoint: str, tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "files", 12), tmp_path / "out"
    for number, least in enumerate((5.0, 6.0)):
        pipeline = build_asking(source, out, endpoint, "threshold", least=least)
        assert len(read_rows(run_here(pipeline))) == 12
        assert len(read_log(endpoint, "threshold")) == 12 and len(list(out.glob("02-limit*"))) == number + 1


def test_a_full_disk_is_seen_before_a_call(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    source = write_files(tmp_path / "files", 3)
    pipeline = build_asking(source, tmp_path / "out", endpoint, "full")
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(ValueError, match="disk is full"):
        run_here(pipeline)
    monkeypatch.undo()
    assert not read_log(endpoint, "full")


def test_a_twentieth_of_nonsense_is_counted(endpoint: str, tmp_path: Path) -> None:
    source = write_files(tmp_path / "files", 100)
    pipeline = run_here(build_asking(source, tmp_path / "out", endpoint, "nonsense", 50))
    account = read_account(pipeline)
    log = Counter(str(entry["key"]) for entry in read_log(endpoint, "nonsense"))
    failed = account["operators"][1]["failed"]
    assert set(failed) == {"invalid_reply"} and 0 < failed["invalid_reply"] == sum(n > 1 for n in log.values()) < 20
    assert account["operators"][1]["cost"]["calls"] == log.total()


def test_broken_files_and_nonsense_add_up(endpoint: str, clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "files"
    source.mkdir()
    for number in range(40):  # a twentieth is cut off
        (source / f"{number:02d}.mp4").hardlink_to(clips / ("4.mp4" if number % 20 == 0 else "0.mp4"))
    pipeline = build_asking(source, tmp_path / "out", endpoint, "nonsense", 7, probe=True, least=0.0)
    account = read_account(run_here(pipeline))
    failed = {entry["operator"]: entry["failed"] for entry in account["operators"]}
    assert failed["probe"] == {"unreadable": 2} and set(failed["echo"]) <= {"invalid_reply"}
    assert account["planned"] == 40 and account["written"] == 38 - sum(failed["echo"].values())


@pytest.mark.faults
def test_a_killed_run_repeats_no_more_than_was_in_flight(endpoint: str, tmp_path: Path) -> None:
    source = write_files(tmp_path / "files", 60 + 40 * NUM_KILLS)
    pipeline = build_asking(source, tmp_path / "out", endpoint, "slow-kills")
    draw = random.Random(0)
    for _ in range(NUM_KILLS):
        process = get_context("fork").Process(target=run_here, args=(pipeline,))
        process.start()
        process.join(draw.uniform(0.5, 1.2))
        assert process.exitcode is None, "the run has ended before it was killed"
        process.kill()
        process.join()
    rows = read_rows(run_here(pipeline), "echo_text")
    check_replies(rows)
    assert len({row["id"] for row in rows}) == len(rows) == len(list(source.iterdir()))
    log = read_log(endpoint, "slow-kills")
    num_repeated = len(log) - len({str(entry["key"]) for entry in log})
    num_noted = read_account(pipeline)["operators"][1]["cost"]["calls"]
    print(f"{NUM_KILLS} kills, {len(rows)} rows, {len(log)} requests, {num_noted} noted, {num_repeated} repeated")
    assert 0 < num_repeated <= NUM_KILLS * CONCURRENCY and 0 <= num_noted - len(log) <= NUM_KILLS * CONCURRENCY
    assert not list((tmp_path / "out").rglob(".*.tmp")), "a killed run has left a temporary file"


@pytest.mark.faults
def test_a_server_that_is_gone_for_a_while_loses_no_row(tmp_path: Path) -> None:
    source, out, port = write_files(tmp_path / "files", 80), tmp_path / "out", find_port()
    log: list[dict[str, Any]] = []
    with open_server(port) as address:
        pipeline = build_asking(source, out, address, "slow-gone", max_retries=6, backoff=[0.2, 2.0])
        process = get_context("fork").Process(target=run_here, args=(pipeline,))
        process.start()
        time.sleep(0.4)
        log += read_log(address, "slow-gone")
    time.sleep(float(os.environ.get("FAULTS_SECONDS", "4")))
    with open_server(port) as address:
        process.join(60)
        log += read_log(address, "slow-gone")
        account = read_account(pipeline)
        print(f"{account['written']} written, {account['operators'][1]['failed']} failed, {len(log)} requests")
        assert process.exitcode == 0 and account["planned"] == 80
        check_replies([row for row in read_rows(pipeline, "echo_text") if row["status"] == "live"])
