"""Peak arithmetic rates of devices."""

import re

PEAKS = (
    (r"\bMIG\b", None),  # a share of a device, whose name does not tell how large
    (r"\b(GB|B)200\b", 2250e12),
    (r"\b(H100|H200|H800) (PCIe|NVL)\b", {"PCIe": 756e12, "NVL": 835e12}),
    (r"\b(GH200|H100|H200|H800)\b", 989e12),
    (r"\bH20\b", 148e12),
    (r"\b(A100|A800)\b", 312e12),
    (r"\bL40S\b", 362e12),
    (r"\bL4\b", 121e12),
    (r"\bA40\b", 150e12),
    (r"\bA10\b", 125e12),
)
"""Pattern of a name -> FLOP/s of dense bf16 products, from the data sheets of NVIDIA; the first match counts."""


def find_peak(device: str) -> float | None:
    """Return the FLOP/s of dense bf16 products of a device, ``None`` if it is not known.

    Args:
        device: its name, as ``torch.cuda.get_device_name`` returns it.

    >>> find_peak("NVIDIA H100 80GB HBM3"), find_peak("NVIDIA H100 PCIe"), find_peak("some CPU")
    (989000000000000.0, 756000000000000.0, None)
    """
    for pattern, peak in PEAKS:
        if match := re.search(pattern, device):
            return peak[match[2]] if isinstance(peak, dict) else peak
    return None
