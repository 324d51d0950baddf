"""The main process, the processes of a launcher, and what tells one start from another."""

from pathlib import Path

import pytest

from omnihuman.training.launcher import (
    START,
    check_launcher,
    identify_start,
    is_launched,
    is_main_process,
    open_notices,
)


@pytest.fixture(autouse=True)
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test begin a start of its own."""
    monkeypatch.setenv(START, "")
    monkeypatch.delenv(START)


def set_variables(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "is_main", "is_one_of_several"),
    [
        ({}, True, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, True, True),
        ({"RANK": "8", "LOCAL_RANK": "0", "WORLD_SIZE": "16"}, False, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "16", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, True, True),
        ({"RANK": "8", "LOCAL_RANK": "0", "WORLD_SIZE": "16", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, False, True),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False, False),
        ({"NODE_RANK": "1"}, False, False),  # the first process of the second node, before Lightning starts others
        ({"NODE_RANK": "0"}, True, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, True, True),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "16"}, False, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, True, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "LOCAL_RANK": "1"}, False, False),  # started by that task
    ],
)
def test_one_process_of_all_nodes_is_the_main_one(
    variables: dict[str, str], is_main: bool, is_one_of_several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(variables, monkeypatch)
    assert is_main_process() == is_main and is_launched() == is_one_of_several


TORCHRUN = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
SRUN = {"SLURM_PROCID": "3", "SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8"}


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN])
def test_another_number_of_processes_is_refused_with_the_devices(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_launcher(2)
    set_variables(variables, monkeypatch)
    check_launcher(16)
    with pytest.raises(ValueError, match=r"16 processes .*8 devices.*trainer\.devices=8 trainer\.num_nodes=2"):
        check_launcher(8)


@pytest.mark.parametrize(
    ("variables", "num_nodes", "difference"),
    [
        ({**TORCHRUN, "TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, 2, {"MASTER_PORT": "29501"}),
        ({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "0"}, 2, {"TORCHELASTIC_RESTART_COUNT": "1"}),
        ({**SRUN, "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}, 2, {"SLURM_STEP_ID": "1"}),
        ({"NODE_RANK": "0", "MASTER_ADDR": "node0", "MASTER_PORT": "1"}, 2, {"MASTER_PORT": "2"}),
        ({}, 1, {START: "of another process"}),
    ],
)
def test_a_start_is_the_same_on_all_its_ranks_and_differs_from_others(
    variables: dict[str, str], num_nodes: int, difference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(variables, monkeypatch)
    start = identify_start(num_nodes)
    assert start.strip("/")
    with monkeypatch.context() as other_rank:
        set_variables({"RANK": "9"} if "RANK" in variables else {"LOCAL_RANK": "1"}, other_rank)
        if not variables:  # Lightning sets it before it starts the others
            other_rank.setenv("MASTER_PORT", "1234")
        assert identify_start(num_nodes) == start
    set_variables(difference, monkeypatch)
    assert identify_start(num_nodes) != start


def test_a_process_alone_has_no_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "x"
    assert open_notices(folder, 1, 1).file is None
    shared = open_notices(folder, 2, 1)
    assert shared.is_main and shared.file is not None and shared.file.parent == tmp_path
    set_variables(SRUN, monkeypatch)
    assert not open_notices(folder, 16, 2).is_main


@pytest.mark.parametrize(
    ("variables", "num_nodes", "expected"),
    [
        (TORCHRUN, 2, (3, 16)),
        (SRUN, 2, (3, 16)),
        ({"NODE_RANK": "1"}, 2, (1, 2)),
        ({"NODE_RANK": "1", "LOCAL_RANK": "1"}, 2, (None, 2)),  # Lightning has started it, after the checks
        ({}, 1, (0, 1)),
    ],
)
def test_processes_of_a_launcher_share_work(
    variables: dict[str, str],
    num_nodes: int,
    expected: tuple[int | None, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_variables(variables, monkeypatch)
    notices = open_notices(tmp_path / "x", 16, num_nodes)
    assert (notices.place, notices.num_places) == expected
