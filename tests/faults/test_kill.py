"""A training that is killed again and again ends as one that never was, on any number of ranks."""

import json
import os
import random
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from omnihuman.training.checkpoint import PARTIAL
from tests.faults.training import LORA, Training, kill, wait_until
from tests.smoke.test_train import read_ledger, read_losses

NUM_KILLS = int(os.environ.get("FAULTS_KILLS", "50"))
RANKS = (1, 2, 4)


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = Training(corpus, tmp_path_factory.mktemp("uninterrupted"), LORA)
    training.finish_forked(2)
    return training


def assert_equal(training: Training, other: Training) -> None:
    losses = read_losses(training.run)
    assert len(losses) == 8 and losses == pytest.approx(read_losses(other.run), abs=1e-5)
    ledger = read_ledger(training.run)
    assert ledger["planned"] == ledger["trained"] + sum(ledger["skipped"].values())
    assert ledger["trained"] == read_ledger(other.run)["trained"]
    weights, expected = load_file(training.run.weights), load_file(other.run.weights)
    for name, weight in weights.items():
        assert (weight - expected[name]).abs().max() < 1e-4, name


@pytest.mark.faults
@pytest.mark.parametrize("ranks", [(2, 2), (2, 1), (1, 2), (2, 4)], ids=str)
@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_a_run_resumes_on_another_number_of_ranks(
    ranks: tuple[int, int], strategy: str, uninterrupted: Training, corpus: Path, tmp_path: Path
) -> None:
    training = Training(corpus, tmp_path, LORA)
    process = training.start(ranks[0], strategy)
    wait_until(lambda: training.has_checkpoint(4), process)
    kill(process)
    assert training.has_checkpoint(4)
    training.finish_forked(ranks[1], strategy)
    assert_equal(training, uninterrupted)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("before", "after"),
    [((2, "ddp"), (2, "fsdp")), ((2, "fsdp"), (2, "ddp")), ((2, "fsdp"), (1, "auto")), ((1, "auto"), (2, "fsdp"))],
    ids=str,
)
def test_a_run_resumes_with_another_strategy(
    before: tuple[int, str], after: tuple[int, str], uninterrupted: Training, corpus: Path, tmp_path: Path
) -> None:
    training = Training(corpus, tmp_path, LORA)
    ends = training.run_forked(*before, "trainer.checkpoint_async=false", fault="die 5 *")
    assert [end.returncode for end in ends] == [-9] * before[0] and training.has_checkpoint(4)
    training.finish_forked(*after)
    assert_equal(training, uninterrupted)


@dataclass(frozen=True)
class Kill:
    """All ranks of a training are killed at once.

    Attributes:
        moment: ``any``, or ``save``: while a checkpoint is written.
        is_inside_save: a checkpoint was begun and not complete.
        checkpoint: step of the newest complete one, 0 without one.
        was_finished: it had ended before.
        ranks: on which it was resumed.
        difference: largest one of its losses from those of the uninterrupted training.
    """

    moment: str
    is_inside_save: bool
    checkpoint: int
    was_finished: bool
    ranks: int
    difference: float


def kill_and_resume(training: Training, uninterrupted: Training, number: int, seconds: float) -> Kill:
    """Kill a training of two ranks, every second one while it writes a checkpoint, and resume it on 1, 2 or 4.

    Args:
        training: is started here.
        uninterrupted: to compare with.
        number: of the kill, which is also the seed of its moment.
        seconds: that an uninterrupted training takes.
    """
    moments, moment = random.Random(number), ("any", "save")[number % 2]
    programs = training.start_forked(2)
    if moment == "any":
        step = moments.choice((0, 2, 4, 6))
        while step and not training.has_checkpoint(step) and programs[0].process.is_alive():
            time.sleep(0.01)
        # how long a step takes changes with the load of the machine: the moments are counted from the last checkpoint
        time.sleep(moments.uniform(0.0, 1.5) if step else moments.uniform(0.0, 0.6) * seconds)
    else:
        place = training.run.checkpoints / f"{PARTIAL}step={moments.choice((2, 4, 6))}.ckpt"
        while not place.exists() and programs[0].process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.1))
    for program in programs:
        program.process.kill()
    for program in programs:
        program.wait()
    is_inside_save = any(training.run.checkpoints.glob(f"{PARTIAL}*"))
    newest = max((step for step in (2, 4, 6, 8) if training.has_checkpoint(step)), default=0)
    was_finished, ranks = training.run.is_complete(), moments.choice(RANKS)
    training.finish_forked(ranks)
    assert_equal(training, uninterrupted)
    pairs = zip(read_losses(training.run), read_losses(uninterrupted.run), strict=True)
    difference = max(abs(loss - expected) for loss, expected in pairs)
    return Kill(moment, is_inside_save, newest, was_finished, ranks, difference)


@pytest.fixture(scope="module")
def seconds(uninterrupted: Training, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return the time that a training of two ranks takes from its start to its end."""
    start = time.monotonic()
    Training(corpus, tmp_path_factory.mktemp("timed"), LORA).finish_forked(2)
    return time.monotonic() - start


@pytest.mark.faults
@pytest.mark.parametrize("number", range(NUM_KILLS))
def test_a_kill_at_a_random_moment_changes_nothing(
    number: int,
    uninterrupted: Training,
    seconds: float,
    corpus: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A line about it is added to ``kills.jsonl`` in the folder of all tests (``--basetemp``)."""
    entry = kill_and_resume(Training(corpus, tmp_path, LORA), uninterrupted, number, seconds)
    shutil.rmtree(tmp_path)
    with (tmp_path_factory.getbasetemp() / "kills.jsonl").open("a") as file:
        file.write(f"{json.dumps({'number': number, **asdict(entry)})}\n")
