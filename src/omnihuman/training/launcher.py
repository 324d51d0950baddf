"""The processes of a start: which one is the main one, who has started them, and what they share before they meet."""

import hashlib
import os
import uuid
from pathlib import Path

from omnihuman.data.notices import Notices

START = "OMNIHUMAN_START"
"""Variable by which the processes that Lightning starts on one machine know the start that they belong to."""


def is_main_process() -> bool:
    """Return true in the process that writes files, also before Lightning has set its ranks.

    torchrun sets the first two, Lightning on one node and on several the second and third, and srun the last; a process
    of SLURM may have started others on its own. torchrun may be started by srun, and numbers the nodes by itself.
    """
    variables = ["LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"]
    if "RANK" in os.environ:
        variables = ["RANK", "LOCAL_RANK"]
    return all(os.environ.get(variable, "0") == "0" for variable in variables)


def count_launched() -> int:
    """Return the number of processes that torchrun or srun has started, 1 without them."""
    num_processes = os.environ.get("WORLD_SIZE", "1") if "RANK" in os.environ else "1"
    if "SLURM_PROCID" in os.environ:
        num_processes = max(num_processes, os.environ.get("SLURM_NTASKS", "1"), key=int)
    return int(num_processes)


def is_launched() -> bool:
    """Return true in one of several processes that torchrun or srun has started."""
    return count_launched() > 1


def check_launcher(num_ranks: int) -> None:
    """Check that a launcher has started as many processes as the trainer expects.

    Args:
        num_ranks: devices of all nodes of the trainer.

    Raises:
        ValueError: it has started more or fewer.
    """
    num_launched = count_launched()
    if num_launched in (1, num_ranks):
        return
    num_here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or num_launched)
    raise ValueError(
        f"{num_launched} processes were started, and the trainer has {num_ranks} devices on all nodes: set "
        f"trainer.devices={num_here} trainer.num_nodes={num_launched // num_here}, or start a process for each device "
        "(srun --ntasks-per-node=, torchrun --nproc-per-node=)."
    )


def identify_start(num_nodes: int) -> str:
    """Return a text that all processes of a start have, and no start beside it."""
    if is_launched():
        variables = ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"]
        if "RANK" not in os.environ:
            variables = ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"]
    elif num_nodes > 1:
        variables = ["MASTER_ADDR", "MASTER_PORT"]
    else:
        os.environ.setdefault(START, uuid.uuid4().hex)
        variables = [START]
    return "/".join(os.environ.get(variable, "") for variable in variables)


def open_notices(folder: Path, num_ranks: int, num_nodes: int) -> Notices:
    """Return the notices of this start beside the folder of a run.

    Args:
        folder: of the run.
        num_ranks: devices of all nodes.
        num_nodes: of the trainer.
    """
    if num_ranks == 1 and not is_launched():
        return Notices(None)
    place, num_places = _find_place(num_nodes)
    start = identify_start(num_nodes)
    digest = hashlib.sha256(start.encode()).hexdigest()[:8]
    file = folder.with_name(f"{folder.name}.{digest}.start")
    return Notices(file, start, is_main=is_main_process(), place=place, num_places=num_places)


def _find_place(num_nodes: int) -> tuple[int | None, int]:
    """Return the number of this process among those that are there before Lightning starts others, and theirs."""
    if is_launched():
        return int(os.environ.get("RANK") or os.environ["SLURM_PROCID"]), count_launched()
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None, num_nodes
    return int(os.environ.get("NODE_RANK", "0")), num_nodes
