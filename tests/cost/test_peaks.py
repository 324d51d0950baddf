"""Peaks of devices by their names."""

import pytest

from omnihuman.cost.peaks import find_peak


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA B200", 2250),
    ],
)
def test_known_devices_have_a_peak(device: str, teraflops: float) -> None:
    assert find_peak(device) == teraflops * 1e12


@pytest.mark.parametrize("device", ["cpu", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA A1000", "AMD Instinct MI300X"])
def test_other_devices_have_none(device: str) -> None:
    assert find_peak(device) is None
