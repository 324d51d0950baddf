"""Tensors with NaN or infinity are found in every dtype."""

import pytest
import torch

from omnihuman.nn.finite import check_finite, is_finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_is_found(dtype: torch.dtype, value: float) -> None:
    tensor = torch.randn(1003).to(dtype)
    assert is_finite(tensor)
    tensor[-2] = value
    assert not is_finite(tensor) and not is_finite(tensor.view(17, 59).T)
    with pytest.raises(ValueError, match=r"a\.bin: layer\.weight"):
        check_finite("a.bin", "layer.weight", tensor)


def test_integers_and_empty_tensors_are_finite() -> None:
    assert is_finite(torch.arange(3)) and is_finite(torch.ones(0)) and is_finite(torch.tensor([True]))
