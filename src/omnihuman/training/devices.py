"""The devices that a config asks for, checked before anything is built for them, and who starts their processes."""

import os
from typing import Any

import torch

from omnihuman.pl import environments


def check_devices(accelerator: object, devices: object, node: str = "trainer") -> None:
    """Check that this machine has the accelerator and as many devices.

    >>> check_devices("cpu", 1)

    Args:
        accelerator: ``auto``, ``gpu``, ``cuda``, ``mps``, ``cpu``.
        devices: their number, a list of them, or ``auto``.
        node: of the config that has both, for messages.

    Raises:
        ValueError: it has not.
    """
    num_gpus = torch.cuda.device_count()
    has_mps = torch.backends.mps.is_available()
    wants_cuda = accelerator == "cuda" or (accelerator == "gpu" and not has_mps)
    if wants_cuda and not num_gpus:
        reason = "torch sees no GPU here"
        if torch.version.cuda is None and torch.version.hip is None:
            reason = "this torch is built without CUDA"
        raise ValueError(f"{node}.accelerator={accelerator}: {reason}; set {node}.accelerator=cpu, or leave it out.")
    if accelerator == "cpu" or not isinstance(devices, int) or isinstance(devices, bool):
        return  # processes may share a core
    limit, noun = os.cpu_count() or 1, "CPU cores and no GPU"
    if num_gpus:
        limit, noun = num_gpus, "GPUs"
    if devices > limit:
        raise ValueError(f"{node}.devices={devices}: this machine has {limit} {noun}; set {node}.devices={limit}.")


def select_environment() -> list[Any]:
    """Return the plugin of Lightning's trainer for a job of SLURM, nothing elsewhere.

    A job of one task that has several devices, as submitit starts it, starts the other processes itself. Jobs of
    several tasks are requeued by their script, after exit code 85: Lightning would write a checkpoint into the working
    folder from within a signal's handler.

    Raises:
        ValueError: the job was started with ``--ntasks`` instead of ``--ntasks-per-node``.
    """
    if "RANK" in os.environ or not environments.SLURMEnvironment.detect():
        return []
    if os.environ["SLURM_NTASKS"] == "1":
        return [environments.LightningEnvironment()]
    try:
        return [environments.SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:  # of a variable that srun does not set as Lightning reads it
        raise ValueError(str(error)) from error


def count_ranks(devices: object, num_nodes: int) -> int:
    """Return the number of processes of a trainer on all nodes.

    >>> count_ranks("4", 2), count_ranks([0, 1], 1)
    (8, 2)

    Args:
        devices: of a node: their number, a list of them, or ``auto``.
        num_nodes: of the trainer.
    """
    if devices in ("auto", -1, "-1"):
        devices = max(1, torch.cuda.device_count())
    num_devices = len(devices) if isinstance(devices, list) else int(str(devices))
    return num_devices * num_nodes
