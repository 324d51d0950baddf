"""A training that is killed again and again ends as one that never was, on any number of ranks."""

import os
import random
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.faults.training import LORA, Training, kill, wait_until
from tests.smoke.test_train import read_ledger, read_losses

NUM_KILLS = int(os.environ.get("FAULTS_KILLS", "50"))
RANKS = (1, 2, 4)


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = Training(corpus, tmp_path_factory.mktemp("uninterrupted"), LORA)
    training.finish(2)
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
    training.finish(ranks[1], strategy)
    assert_equal(training, uninterrupted)


@pytest.mark.faults
def test_kills_at_random_moments_change_nothing(uninterrupted: Training, corpus: Path, tmp_path: Path) -> None:
    training, moments = Training(corpus, tmp_path, LORA), random.Random(0)
    start = time.monotonic()
    training.finish(2)
    seconds = time.monotonic() - start
    for number in range(NUM_KILLS):
        training = Training(corpus, tmp_path / str(number), LORA)
        process = training.start(moments.choice(RANKS))
        time.sleep(moments.uniform(0.4, 1.0) * seconds)
        kill(process)
        training.finish(moments.choice(RANKS))
        assert_equal(training, uninterrupted)
