"""Damaged, foreign and older checkpoints: passed over loudly, and a run without another one is not begun anew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from omnihuman.training.checkpoint import COMPLETE, RUN, STATE, list_checkpoints, seal
from tests.faults.training import Training
from tests.smoke.test_train import read_losses

STRATEGIES = {1: "auto", 2: "fsdp"}


@pytest.fixture(scope="module")
def losses(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    training = Training(corpus, tmp_path_factory.mktemp("uninterrupted"))
    training.finish_forked(1, "auto")
    return read_losses(training.run)


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def interrupted(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Return a run that was killed after its fifth step, with the checkpoints of steps 2 and 4."""
    num_ranks: int = request.param
    training = Training(corpus, tmp_path_factory.mktemp("interrupted"))
    ends = training.run_forked(num_ranks, STRATEGIES[num_ranks], "trainer.checkpoint_async=false", fault="die 5 *")
    assert [end.returncode for end in ends] == [-9] * num_ranks
    assert [path.name for path in list_checkpoints(training.run.checkpoints)] == ["step=4.ckpt", "step=2.ckpt"]
    return training


@pytest.fixture
def copy(interrupted: Training, corpus: Path, tmp_path: Path) -> tuple[Training, int, str]:
    """Return a copy of the interrupted run, its number of ranks and its strategy."""
    training = Training(corpus, tmp_path)
    shutil.copytree(interrupted.run.folder.parents[1], tmp_path, dirs_exist_ok=True)
    num_ranks = 2 if (training.run.checkpoints / "step=4.ckpt" / "shards").is_dir() else 1
    return training, num_ranks, STRATEGIES[num_ranks]


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def find_largest(checkpoint: Path) -> Path:
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def tear(checkpoint: Path) -> None:
    file = find_largest(checkpoint)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(checkpoint: Path) -> None:
    file = find_largest(checkpoint)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replace_by_pickle(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    torch.save({"state_dict": Bomb(checkpoint.with_name("exploded"))}, checkpoint)


def take_from_another_run(checkpoint: Path) -> None:
    state = json.loads((checkpoint / STATE).read_text())
    (checkpoint / STATE).write_text(json.dumps(state | {RUN: "0123456789abcdef"}))
    (checkpoint / COMPLETE).unlink()
    seal(checkpoint.rename(checkpoint.with_name("other")), checkpoint, {})


def write_as_lightning(checkpoint: Path) -> None:
    """Write a folder as Lightning's own strategy does."""
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    torch.save({"global_step": 4}, checkpoint / "meta.pt")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "torn": tear,
    "empty": lambda checkpoint: find_largest(checkpoint).write_bytes(b""),
    "flipped": flip,
    "pickled": replace_by_pickle,
    "foreign": take_from_another_run,
    "older": write_as_lightning,
}


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(damage: str, copy: tuple[Training, int, str], losses: list[float]) -> None:
    training, num_ranks, strategy = copy
    DAMAGES[damage](training.run.checkpoints / "step=4.ckpt")
    output = training.finish_forked(num_ranks, strategy)
    assert "passed over" in output and "Traceback" not in output
    assert read_losses(training.run) == pytest.approx(losses, abs=1e-5)
    assert not (training.run.checkpoints / "exploded").exists()


@pytest.mark.faults
def test_a_run_with_damaged_checkpoints_alone_is_refused(copy: tuple[Training, int, str], losses: list[float]) -> None:
    training, num_ranks, strategy = copy
    for checkpoint in list_checkpoints(training.run.checkpoints):
        tear(checkpoint)
    for end in training.run_forked(num_ranks, strategy):
        assert end.returncode == 1 and "Traceback" not in end.stderr
        assert "no checkpoint can be read" in end.stderr and "overwrite=true" in end.stderr
    assert len(list_checkpoints(training.run.checkpoints)) == 2, "they stay"
    training.finish_forked(num_ranks, strategy, "overwrite=true")
    assert read_losses(training.run) == pytest.approx(losses, abs=1e-5)
