"""Every launcher trains a chain to its end: no process waits for another one, and nothing is trained twice."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

import pytest

from omnihuman.training.runs import Run
from tests.faults.training import SHORT, Training
from tests.smoke.test_train import build_overrides, read_losses

RANKS = ("trainer=ddp", "trainer.devices=2")
CHAIN = tuple(override for override in SHORT if override != "init_from=[]")


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def build_arguments(corpus: Path, runs: Path, *more: str) -> list[str]:
    records = json.loads((corpus / "train.json").read_text())
    few = []
    for task in ("caption", "emotion"):
        few += [record for record in records if record["task"] == task and "video" in record][:8]
    file = runs.with_name(f"{runs.name}.json")
    file.write_text(json.dumps(few))
    more = (*CHAIN, f"data.records={file}", "data.val_records=null", "trainer.accelerator=cpu", *more)
    return ["+experiment=omni_emotion_stage2", *build_overrides(corpus, runs, *more)]


def assert_finished(processes: list[Popen[str]], runs: Path) -> None:
    try:
        for process in processes:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0 and "Traceback" not in output, output[-4000:]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    for name in ("omni_emotion_video", "omni_emotion_stage2"):
        run = Run(runs / "nano" / name, "")
        assert run.is_complete() and len(read_losses(run)) >= 2
    folders = [path.name for path in (runs / "nano").iterdir() if path.is_dir()]
    assert len(folders) == 2, "a run was trained twice"


def start(command: list[str], work: Path | None = None, **environment: str) -> Popen[str]:
    return Popen(
        command,
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.faults
@pytest.mark.parametrize(("strategy", "num_nodes"), [("ddp", 1), ("fsdp", 1), ("fsdp", 2)])
def test_torchrun_trains_missing_parents_in_its_processes(
    strategy: str, num_nodes: int, corpus: Path, tmp_path: Path
) -> None:
    num_here = 2 // num_nodes
    more = (f"trainer={strategy}", f"trainer.devices={num_here}", f"trainer.num_nodes={num_nodes}")
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={num_nodes}", f"--nproc-per-node={num_here}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{find_port()}", "--rdzv-id=1", "--local-addr=127.0.0.1"),
        *("-m", "omnihuman.train", *build_arguments(corpus, tmp_path, *more)),
    ]
    assert_finished([start(launcher) for _ in range(num_nodes)], tmp_path)


@pytest.mark.faults
def test_two_nodes_of_lightning_train_missing_parents(corpus: Path, tmp_path: Path) -> None:
    arguments = build_arguments(corpus, tmp_path, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2")
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port())}
    command = [sys.executable, "-m", "omnihuman.train", *arguments]
    assert_finished([start(command, NODE_RANK=str(node), **variables) for node in range(2)], tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("num_nodes", [1, 2])
def test_tasks_of_slurm_train_missing_parents(num_nodes: int, corpus: Path, tmp_path: Path) -> None:
    """The checkpoint of another program in the working folder is not taken over."""
    work, num_here = tmp_path / "work", 2 // num_nodes
    work.mkdir()
    (work / "hpc_ckpt_1.ckpt").write_bytes(b"not ours")
    more = ("trainer=ddp", f"trainer.devices={num_here}", f"trainer.num_nodes={num_nodes}")
    command = [sys.executable, "-m", "omnihuman.train", *build_arguments(corpus, tmp_path / "runs", *more)]
    variables = {
        "MASTER_ADDR": "127.0.0.1",
        "SLURM_JOB_ID": str(find_port()),
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": str(num_here),
        "SLURM_NNODES": str(num_nodes),
        "SLURM_JOB_NAME": "train",
    }
    tasks = []
    for task in range(2):
        node, place = divmod(task, num_here)
        numbers = {"SLURM_PROCID": str(task), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(place)}
        tasks.append(start(command, work, **variables, **numbers))
    assert_finished(tasks, tmp_path / "runs")


@pytest.mark.faults
def test_a_task_of_submitit_starts_its_other_processes(corpus: Path, tmp_path: Path) -> None:
    arguments = build_arguments(corpus, tmp_path, *RANKS)
    variables = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "submitit"}
    assert_finished([start([sys.executable, "-m", "omnihuman.train", *arguments], **variables)], tmp_path)


@pytest.mark.faults
def test_ranks_of_a_second_start_wait_with_their_first(corpus: Path, tmp_path: Path) -> None:
    """They would wait for a plan that nobody makes, until the first one finds the run finished and leaves."""
    training = Training(corpus, tmp_path)
    first, second = (training.start_forked(2) for _ in range(2))
    ends = [program.wait() for program in [*first, *second]]
    assert [end.returncode for end in ends] == [0] * 4, "".join(end.stderr[-2000:] for end in ends)
    output = " ".join("".join(end.stdout for end in ends).split())
    assert "another process trains this run" in output and "is finished already" in output
    assert len(read_losses(training.run)) == 8 and not list(tmp_path.glob("nano/*.start"))


@pytest.mark.faults
def test_an_error_of_the_first_rank_ends_the_others_with_a_line(corpus: Path, tmp_path: Path) -> None:
    training = Training(corpus, tmp_path, f"data.root={tmp_path}")  # where no clip is
    first, second = training.run_forked(2)
    for end in (first, second):
        assert end.returncode == 1 and ".mp4" in end.stderr and "Traceback" not in end.stderr, end.stderr
    assert "the main process has ended" in second.stderr and not list(tmp_path.glob("nano/*.start"))
