"""Whole runs on a few real clips: what the README promises of them."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from omnihuman.build import compose_config
from omnihuman.training.runs import Run
from omnihuman.training.stage import run_stage
from omnihuman.training.supervised import Supervised


def overrides(corpus: Path, runs: Path, *more: str) -> list[str]:
    return [
        "data=jsonl", f"data.records={corpus}/train.json", f"data.val_records={corpus}/val.json", f"data.root={corpus}",
        f"runs={runs}", "data.num_workers=0", "stage.batch_size=8", "stage.max_epochs=4", "validate_first=false", *more,
    ]  # fmt: skip


def train(corpus: Path, runs: Path, *more: str, experiment: str = "humanomni_stage1_face") -> Run:
    given = [f"+experiment={experiment}", *overrides(corpus, runs, *more)]
    return run_stage(compose_config(given), given)


def column(run: Run, name: str = "train/loss") -> list[float]:
    with (run.folder / "metrics.csv").open(newline="") as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row.get(name)]


def test_one_seed_gives_identical_losses_and_a_finished_run_is_not_trained_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(corpus, tmp_path / "a", "trainer.max_steps=4")
    second = train(corpus, tmp_path / "b", "trainer.max_steps=4", "data.num_workers=2")
    assert column(first) == column(second) and len(column(first)) == 4
    ours, theirs = load_file(first.weights), load_file(second.weights)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = train(corpus, tmp_path / "c", "trainer.max_steps=4", "seed=7")
    assert column(other) != column(first)
    monkeypatch.setattr("omnihuman.training.stage.fit", lambda *args: pytest.fail("trained again"))
    train(corpus, tmp_path / "a", "trainer.max_steps=4")


def test_a_run_that_ends_within_an_epoch_has_a_loss_where_it_is_asked_for(corpus: Path, tmp_path: Path) -> None:
    more = ("trainer.max_steps=1", "stage.batch_size=2")
    assert train(corpus, tmp_path / "without", *more).loss is None
    loss = train(corpus, tmp_path / "with", *more, "validate_last=true").loss
    assert loss is not None and 0 < loss < 10


def test_an_interrupted_run_goes_on_with_the_losses_it_would_have_had(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("stage.checkpoint_every=2", "stage.max_tokens=500")  # several packed rows a step
    whole = train(corpus, tmp_path / "whole", "trainer.max_steps=14", *more)

    step = Supervised.training_step

    def cut(self: Supervised, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 9:
            raise RuntimeError("the power is gone")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Supervised, "training_step", cut)
    with pytest.raises(RuntimeError, match="power"):
        train(corpus, tmp_path / "cut", "trainer.max_steps=14", *more)
    monkeypatch.setattr(Supervised, "training_step", step)
    again = train(corpus, tmp_path / "cut", "trainer.max_steps=14", *more)
    assert column(again) == column(whole)
    ledgers = [json.loads((run.folder / "ledger.json").read_text()) for run in (whole, again)]
    assert ledgers[0]["trained"] == ledgers[1]["trained"] == ledgers[0]["planned"]


def test_samples_add_up_when_some_are_bad(corpus: Path, tmp_path: Path) -> None:
    videos = [r for r in json.loads((corpus / "train.json").read_text()) if "video" in r and r["task"] == "face"][:4]
    corpus = shutil.copytree(corpus, tmp_path / "corpus")  # other tests ask about any clip of theirs
    (corpus / "media" / "broken.mp4").write_bytes((corpus / videos[0]["video"]).read_bytes()[:3000])
    bad = [dict(videos[0], id="cut", video="media/broken.mp4"), dict(videos[1], id="gone", video="media/nowhere.mp4")]
    (corpus / "some.json").write_text(json.dumps(bad + videos))
    more = (f"data.records={corpus}/some.json", "stage.batch_size=4", "stage.max_epochs=1")
    with pytest.raises(ValueError, match=r"broken\.mp4|nowhere\.mp4"):
        train(corpus, tmp_path, *more)
    run = train(corpus, tmp_path, *more, "data.on_bad_sample=skip")
    ledger = json.loads((run.folder / "ledger.json").read_text())
    assert ledger["planned"] == ledger["trained"] + sum(ledger["skipped"].values())
    named = [json.loads(line)["id"] for line in (run.folder / "skipped.jsonl").read_text().splitlines()]
    assert named == ["cut", "gone"] and ledger["trained"] == 4


def test_a_rehearsal_at_the_papers_size_reads_no_weights_and_says_what_would_happen(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(record=True, width=160)
    monkeypatch.setattr("omnihuman.training.stage.console", console)
    train(corpus, tmp_path, "size=7b", "trainer=fsdp", "dry_run=true", experiment="humanomni_stage3")
    said = console.export_text()
    assert "humanomni_stage1/weights.safetensors (missing)" in said
    assert "7,615,616,512" in said and "376,889,248" in said  # Qwen2.5-7B, one STC branch
    assert "32 frames, 10 s of sound: 3136 video tokens, 167 audio tokens" in said
    assert not list(tmp_path.iterdir())  # nothing is written


def launch(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "omnihuman.train", *arguments], env=environment, capture_output=True,
                          text=True, check=False, timeout=400)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def both_ways(corpus: Path, runs: Path, *more: str, trainer: str = "ddp") -> list[list[float]]:
    """The losses of stage 3 in one process, and in two at equal global batch."""
    given = ["+experiment=humanomni_stage3", *overrides(corpus, runs, "init_from=[]", "answers.modals=[]", *more)]
    given.append("trainer.limit_val_batches=0")
    launch([*given, "variant=one"])
    launch([*given, "variant=two", f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2"])
    return [column(Run(runs / "nano/humanomni_stage3" / name, "")) for name in ("one", "two")]


def test_two_processes_give_the_losses_of_one(corpus: Path, tmp_path: Path) -> None:
    """At equal global batch over 20 steps, every kind of sample among them."""
    one, two = both_ways(corpus, tmp_path, "trainer.max_steps=20", "stage.batch_size=4")
    assert len(one) == 20 and one == pytest.approx(two, abs=1e-5)


def test_one_rank_that_only_sees_and_one_that_only_hears(corpus: Path, tmp_path: Path) -> None:
    """No hang: every trainable part takes part on both, and the losses are those of one process."""
    records = json.loads((corpus / "train.json").read_text())
    sees = [r for r in records if "video" in r and "<audio>" not in r["conversations"][0]["value"]]
    hears = [r for r in records if "audio" in r]
    # one record of each kind, so that every step of two has one for each rank
    (corpus / "pairs.json").write_text(json.dumps([sees[0], hears[0]]))
    more = (f"data.records={corpus}/pairs.json", "stage.batch_size=2", "trainer.max_steps=4")
    one, two = both_ways(corpus, tmp_path, *more)
    assert len(one) == 4 and one == pytest.approx(two, abs=1e-5)


def test_sharded_over_two_processes_it_trains_the_same_and_saves_whole_weights(corpus: Path, tmp_path: Path) -> None:
    one, two = both_ways(corpus, tmp_path, "trainer.max_steps=4", "stage.checkpoint_every=2", trainer="fsdp")
    assert len(one) == 4 and one == pytest.approx(two, abs=1e-5)
    whole, sharded = (
        load_file(tmp_path / f"nano/humanomni_stage3/{name}/weights.safetensors") for name in ("one", "two")
    )
    assert whole.keys() == sharded.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], sharded[name], atol=1e-4, rtol=1e-4)
