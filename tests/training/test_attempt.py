"""Folders of runs: which run is trained where, and moves that survive a kill. Nothing is trained here."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.training.attempt import (
    discard_start,
    find_attempt,
    locate_attempt,
    open_attempt,
    restore_finished,
    take_over,
)
from omnihuman.training.checkpoint import RUN
from omnihuman.training.runs import Run
from tests.training.test_checkpoint import write_text

CONFIG = OmegaConf.create({"name": "x"})


class KilledError(Exception):
    """Stands for the end of the process."""


def write_run(run: Run, *, is_finished: bool = True) -> Run:
    """Write the files of a run, finished or interrupted at step 2."""
    open_attempt(run, CONFIG)
    if is_finished:
        run.weights.write_text(f"weights of {run.digest}")
        (run.folder / "ledger.json").write_text(json.dumps({"command": f"train {run.digest}"}))
        run.finish()
    else:
        write_text(run.checkpoints / "step=2.ckpt", json.dumps({RUN: run.digest}))
    return run


def read_files(folder: Path) -> dict[str, str]:
    """Return the content of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.fixture
def old(tmp_path: Path) -> Run:
    """Return a finished run."""
    return write_run(Run(tmp_path / "x", "old", "old"))


@pytest.fixture
def new(old: Run) -> Run:
    """Return a run of another config in the same folder."""
    return Run(old.folder, "new", "new")


def test_run_of_another_config_is_trained_beside_a_finished_one(old: Run, new: Run) -> None:
    before = read_files(old.folder)
    assert not restore_finished(new) and find_attempt(new) == locate_attempt(new)
    write_run(locate_attempt(new), is_finished=False)
    assert find_attempt(new) == locate_attempt(new) and locate_attempt(new).find_checkpoint() is not None, (
        "it is resumed there"
    )
    assert restore_finished(old) and read_files(old.folder) == before
    other = Run(old.folder, "other", "other")
    open_attempt(find_attempt(other), CONFIG)
    assert read_files(old.folder) == before
    assert Run(old.folder.with_name("x.1"), "new").find_checkpoint() is not None, "the interrupted one made room"


def test_finished_attempt_takes_the_folder_and_the_old_command_takes_it_back(
    old: Run, new: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_files(old.folder)
    write_run(locate_attempt(new))
    take_over(new)
    assert new.is_finished() and not locate_attempt(new).folder.exists()
    assert read_files(old.folder.with_name("x.1")) == before
    assert "x.1; `train old` brings it back" in caplog.text
    assert restore_finished(old) and read_files(old.folder) == before
    assert restore_finished(new) and new.is_finished() and not restore_finished(new, overwrite=True)
    assert sorted(path.name for path in old.folder.parent.iterdir()) == ["x", "x.1"]


def test_first_run_of_a_folder_is_trained_in_it(tmp_path: Path) -> None:
    run, other = Run(tmp_path / "x", "a", "a"), Run(tmp_path / "x", "b", "b")
    assert find_attempt(run) == run
    run.open(CONFIG)
    (run.folder / "metrics.csv").write_text("step\n")
    assert find_attempt(other) == other, "a start without a checkpoint makes room"
    open_attempt(other, CONFIG)
    assert not (run.folder / "metrics.csv").exists() and not (tmp_path / "x.1").exists()
    write_run(other, is_finished=False)
    assert find_attempt(other) == other and find_attempt(run) == locate_attempt(run)


def test_interrupted_run_that_made_room_is_named(old: Run, new: Run) -> None:
    write_run(Run(old.folder.with_name("x.7"), "new", "new"), is_finished=False)
    with pytest.raises(ValueError, match=r"x\.7 .*mv '.*x\.7' '.*x\.new'.*overwrite=true"):
        find_attempt(new)
    assert find_attempt(new, overwrite=True) == locate_attempt(new)
    locate_attempt(new).folder.mkdir()
    with pytest.raises(ValueError, match=r"mv '.*x\.new' '.*x\.1' && mv"):
        find_attempt(new)


def test_discarded_start_leaves_what_is_not_its_own(tmp_path: Path, old: Run) -> None:
    start = Run(tmp_path / "y", "a", "a")
    start.open(CONFIG)
    assert discard_start(start) and not start.folder.exists()
    start.open(CONFIG)
    (start.folder / "notes.txt").write_text("mine")
    assert not discard_start(start) and (start.folder / "notes.txt").is_file()
    assert not discard_start(old) and old.is_finished()


def kill_at_rename(number: int) -> Callable[[Path, Path], Path]:
    """Return a ``Path.rename`` that raises at a call, counted from 0."""
    rename = Path.rename
    calls: list[Path] = []

    def rename_or_die(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) > number:
            raise KilledError
        return rename(self, target)

    return rename_or_die


@pytest.mark.parametrize("has_cell", [False, True])
def test_kill_at_any_rename_loses_nothing(has_cell: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        root = tmp_path / str(number)
        old, new = write_run(Run(root / "x", "old", "old")), Run(root / "x", "new", "new")
        if has_cell:
            write_run(Run(old.folder / "cell", "cell", "cell"))
        write_run(locate_attempt(new))
        files = read_files(locate_attempt(new).folder)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", kill_at_rename(number))
            if number < 10:
                with pytest.raises(KilledError):
                    take_over(new)
            else:
                take_over(new)
        assert restore_finished(new) and read_files(new.folder).items() >= files.items()
        assert restore_finished(old) and old.weights.read_text() == "weights of old"
        assert restore_finished(new), "neither is lost, however often they change places"
        assert not has_cell or Run(old.folder / "cell", "cell").is_finished()
        assert {path.name for path in root.iterdir()} == {"x", "x.1"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    run = Run(tmp_path / "runs" / "x", "ours")
    with pytest.raises(OSError, match=r"runs/x cannot.*runs="), run.lock():
        pytest.fail("the lock was taken")


def test_a_second_process_says_that_it_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, is_admitted = Run(tmp_path / "runs" / "x", "ours"), threading.Event()

    def enter() -> None:
        with run.lock():
            is_admitted.set()

    with run.lock():
        second = threading.Thread(target=enter)
        second.start()
        while "another process trains" not in caplog.text:
            assert second.is_alive()
            time.sleep(0.01)
        assert not is_admitted.is_set()
    second.join(5)
    assert is_admitted.is_set()
