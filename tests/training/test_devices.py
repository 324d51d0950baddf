"""Devices: what the machine lacks is named with its key."""

import pytest
import torch

from omnihuman.training.devices import check_devices, select_environment


def set_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


@pytest.mark.parametrize(
    ("count", "accelerator", "devices", "message"),
    [
        (0, "gpu", 1, r"trainer\.accelerator=gpu.*trainer\.accelerator=cpu"),
        (0, "cuda", "auto", r"trainer\.accelerator=cuda"),
        (0, "auto", 8, r"trainer\.devices=8.*2 CPU cores"),
        (4, "auto", 8, r"trainer\.devices=8.*4 GPUs"),
    ],
)
def test_missing_device_raises(
    count: int, accelerator: str, devices: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(monkeypatch, count)
    with pytest.raises(ValueError, match=message):
        check_devices(accelerator, devices)


@pytest.mark.parametrize(
    ("count", "accelerator", "devices"),
    [(0, "auto", 2), (0, "cpu", "auto"), (4, "gpu", 4), (4, "auto", -1), (4, "auto", [0, 3]), (4, "auto", "auto")],
)
def test_devices_of_the_machine_pass(
    count: int, accelerator: str, devices: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpus(monkeypatch, count)
    check_devices(accelerator, devices)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, []),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ["LightningEnvironment"]),
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "3"}, ["SLURMEnvironment"]),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "RANK": "1"}, []),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash"}, []),
    ],
)
def test_environment_is_that_of_the_launcher(
    variables: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    plugins = select_environment()
    assert [type(plugin).__name__ for plugin in plugins] == names
    assert not any(getattr(plugin, "auto_requeue", False) for plugin in plugins)


def test_job_of_tasks_without_their_number_per_node_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    with pytest.raises(ValueError, match="--ntasks-per-node=8"):
        select_environment()
