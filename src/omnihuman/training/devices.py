"""Check of the devices that a config asks for, before anything is built for them."""

import os

import torch


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
    if not isinstance(devices, int) or isinstance(devices, bool):
        return
    limit, noun = os.cpu_count() or 1, "CPU cores and no GPU"
    if num_gpus and accelerator != "cpu":
        limit, noun = num_gpus, "GPUs"
    if devices > limit:
        raise ValueError(f"{node}.devices={devices}: this machine has {limit} {noun}; set {node}.devices={limit}.")
