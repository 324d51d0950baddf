"""Whole runs on bad data: a disk that goes away, corrupt files, quarantine, and resumes in between."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import compose_config
from omnihuman.data.ceiling import TooManySkippedError
from omnihuman.objective.base import Objective
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage
from tests.data.conftest import write_clip
from tests.programs import launch_two_ranks

EXPERIMENT = "+experiment=humanomni_stage1_face"


def write_records(root: Path, num_good: int, num_cut: int) -> None:
    """Write ``train.json`` and its clips; those that are cut off have a complete header."""
    clip = write_clip(root / "talk.mp4", num_frames=12, seconds=0, container={"movflags": "+faststart"})
    data = clip.read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) // 2])
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "A man."}]
    records = []
    for number in range(num_good + num_cut):
        name = "talk.mp4" if number < num_good else "cut.mp4"
        box = [{"time": 0.0, "box": [4, 4, 40, 40]}]
        records.append({"id": f"{number}", "video": name, "faces": box, "conversations": turns})
    (root / "train.json").write_text(json.dumps(records))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an empty folder of media."""
    (tmp_path / "media").mkdir()
    return tmp_path / "media"


def build_overrides(root: Path, runs: Path, *more: str) -> list[str]:
    data = (f"data.records={root}/train.json", f"data.root={root}", "data.num_workers=0", "data.val_records=null")
    options = ("recipe.batch_size=4", "recipe.max_epochs=1", "validate_first=false", "validation.views=[]")
    return [EXPERIMENT, "data=json", *data, f"runs={runs}", *options, *more]


def train(root: Path, runs: Path, *more: str) -> Run:
    overrides = build_overrides(root, runs, *more)
    return run_stage(compose_config(overrides), overrides)


def patch_step(monkeypatch: pytest.MonkeyPatch, at_step: int, act: Callable[[], None], ids: list[str]) -> None:
    """Call ``act`` before one optimizer step, and note the ids of the trained samples in ``ids``."""
    training_step = Objective.training_step

    def step(self: Objective, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == at_step:
            act()
        for micro_batch in batch:
            ids.extend(meta["id"] for meta in micro_batch.meta)
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(Objective, "training_step", step)


def fail() -> None:
    raise RuntimeError("power failure")


def test_each_sample_is_trained_once_though_quarantine_grows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(root, num_good=24, num_cut=8)
    more = ("data.on_bad_sample=quarantine", "recipe.checkpoint_every=2", "data.max_skipped=0.5")
    ids: list[str] = []
    with monkeypatch.context() as patch:
        patch_step(patch, 4, fail, ids)  # directly after a checkpoint
        with pytest.raises(RuntimeError, match="power failure"):
            train(root, tmp_path / "runs", *more)
    lists = list((tmp_path / "runs" / "quarantine").iterdir())
    assert [file.name.startswith("train-") for file in lists] == [True]
    with monkeypatch.context() as patch:
        patch_step(patch, -1, fail, ids)
        run = train(root, tmp_path / "runs", *more)
    assert Counter(ids) == Counter(str(number) for number in range(24))
    ledger = json.loads((run.folder / "ledger.json").read_text())
    assert (ledger["planned"], ledger["trained"], ledger["skipped"]) == (32, 24, {"truncated": 8})
    skipped = [json.loads(line)["id"] for line in (run.folder / "skipped.jsonl").read_text().splitlines()]
    assert Counter(skipped) == Counter(str(number) for number in range(24, 32))
    later = train(root, tmp_path / "runs", *more, "seed=7", "variant=later")
    assert json.loads((later.folder / "ledger.json").read_text())["skipped"] == {"quarantined": 8}


def test_a_disk_that_goes_away_ends_the_run_and_its_return_finishes_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(root, num_good=48, num_cut=0)
    away = tmp_path / "away"
    more = ("data.on_bad_sample=quarantine", "recipe.checkpoint_every=2", "data.features=null")
    with monkeypatch.context() as patch:
        patch_step(patch, 3, lambda: root.rename(away) and None, [])
        with pytest.raises(TooManySkippedError, match=r"20 of 20 samples.*20 missing_file"):
            train(root, tmp_path / "runs", *more)
    folder = tmp_path / "runs" / "nano" / "humanomni_stage1_face"
    assert not (folder / "weights.safetensors").exists() and not (tmp_path / "runs" / "quarantine").exists()
    with pytest.raises(ValueError, match=r"data\.root=.*media: .*no such folder"):
        train(root, tmp_path / "runs", *more)
    away.rename(root)
    run = train(root, tmp_path / "runs", *more)
    ledger = json.loads((run.folder / "ledger.json").read_text())
    assert ledger["trained"] + ledger["skipped"]["missing_file"] == ledger["planned"] == 48


def test_a_run_that_can_decode_nothing_is_not_finished(root: Path, tmp_path: Path) -> None:
    write_records(root, num_good=0, num_cut=6)
    with pytest.raises(
        TooManySkippedError, match=r"the run: 6 of 6 .*data\.max_skipped=0\.2 .*6 truncated.*skipped\.jsonl"
    ):
        train(root, tmp_path / "runs", "data.on_bad_sample=skip")
    assert not list((tmp_path / "runs").rglob("weights.safetensors"))


def test_changed_files_are_noticed_by_a_resume(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(root, num_good=12, num_cut=0)
    more = ("data.on_bad_sample=skip", "recipe.checkpoint_every=2")
    with monkeypatch.context() as patch:
        patch_step(patch, 2, fail, [])
        with pytest.raises(RuntimeError, match="power failure"):
            train(root, tmp_path / "runs", *more)
    records = json.loads((root / "train.json").read_text())
    records[0]["video"] = "gone.mp4"
    (root / "train.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match=r"checkpoint belongs to 12 .*the 11 .*1 missing_file \(0\).*overwrite=true"):
        train(root, tmp_path / "runs", *more)


@pytest.mark.slow
@pytest.mark.parametrize(("num_good", "num_cut"), [(20, 4), (0, 48)])
def test_two_processes_agree(root: Path, tmp_path: Path, num_good: int, num_cut: int) -> None:
    write_records(root, num_good, num_cut)
    ranks = ("trainer=ddp", "data.on_bad_sample=quarantine")
    overrides = build_overrides(root, tmp_path / "runs", *ranks)
    process = launch_two_ranks(*overrides)
    folder = tmp_path / "runs" / "nano" / "humanomni_stage1_face"
    if num_good:
        assert process.returncode == 0, process.stderr[-3000:]
        ledger = json.loads((folder / "ledger.json").read_text())
        assert (ledger["planned"], ledger["trained"], ledger["skipped"]) == (24, 20, {"truncated": 4})
        assert len((folder / "skipped.jsonl").read_text().splitlines()) == 4
    else:
        assert process.returncode == 1, "no rank waits for another"
        assert "20 of 20 samples" in process.stderr and "20 truncated" in process.stderr
        assert not (folder / "weights.safetensors").exists()
