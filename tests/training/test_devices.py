"""Devices: what the machine lacks is named with its key."""

import pytest
import torch

from omnihuman.training.devices import check_devices


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
        (0, "cpu", 3, r"trainer\.devices=3.*trainer\.devices=2"),
        (4, "auto", 8, r"trainer\.devices=8.*4 GPUs"),
        (4, "cpu", 3, r"2 CPU cores"),
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
