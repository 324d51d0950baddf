"""weights.safetensors: missing, unexpected and misshapen keys raise."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from omnihuman.training.weights import load_weights, read_dtype, save_weights


def build_model() -> nn.Module:
    return nn.ModuleDict({"projectors": nn.ModuleDict({"face": nn.Linear(2, 3), "body": nn.Linear(2, 3)})})


def write_weights(folder: Path, prefix: str = "projectors") -> Path:
    file = folder / "weights.safetensors"
    state = build_model().state_dict()
    save_weights(file, state, [name for name in state if name.startswith(prefix)], {"experiment": "x"})
    return file


def test_selected_weights_are_loaded_and_reported(tmp_path: Path) -> None:
    saved, model = build_model(), build_model()
    file = tmp_path / "weights.safetensors"
    save_weights(file, saved.state_dict(), saved.state_dict(), {})
    report = load_weights(model, file, "projectors.face.*")
    assert torch.equal(model["projectors"]["face"].weight, saved["projectors"]["face"].weight)
    assert not torch.equal(model["projectors"]["body"].weight, saved["projectors"]["body"].weight)
    assert (len(report.loaded), len(report.ignored)) == (2, 2) and "projectors.face" in str(report)


def test_without_excludes_selected_weights(tmp_path: Path) -> None:
    report = load_weights(build_model(), write_weights(tmp_path), without=["projectors.body.*"])
    assert report.loaded == ("projectors.face.bias", "projectors.face.weight")


def test_missing_key_raises(tmp_path: Path) -> None:
    file = write_weights(tmp_path, "projectors.face.weight")
    with pytest.raises(ValueError, match=r"missing.*projectors\.face\.bias"):
        load_weights(build_model(), file, "projectors.face.*")


def test_unexpected_key_raises(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"projectors.eyes.weight": torch.ones(1)}, file)
    with pytest.raises(ValueError, match=r"unexpected.*projectors\.eyes\.weight"):
        load_weights(build_model(), file)


def test_pattern_without_a_match_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'fusions\.\*'; .*\['projectors\.body'"):
        load_weights(build_model(), write_weights(tmp_path), ["projectors.face.*", "fusions.*"])


def test_wrong_shape_raises_with_both_shapes(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"projectors.face.bias": torch.ones(4)}, file)
    with pytest.raises(ValueError, match=r"shape \(4,\); .*\(3,\)"):
        load_weights(build_model(), file)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle"])
def test_invalid_file_raises(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        load_weights(build_model(), file)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_neither_read_nor_written(tmp_path: Path, value: float) -> None:
    model, file = build_model(), tmp_path / "weights.safetensors"
    state = model.state_dict()
    state["projectors.body.weight"][1, 1] = value
    with pytest.raises(ValueError, match=r"projectors\.body\.weight"):
        save_weights(file, state, state, {})
    assert not list(tmp_path.iterdir())
    save_file(state, file)
    with pytest.raises(ValueError, match=r"weights\.safetensors: projectors\.body\.weight"):
        load_weights(build_model(), file)
    load_weights(build_model(), file, "projectors.face.*")


def test_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    state = build_model().state_dict()
    metadata = {key: key for key in ("experiment", "digest", "a", "b", "c", "d")}
    contents = set()
    for number in range(4):
        save_weights(tmp_path / str(number), state, reversed(list(state)), metadata)
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1


def test_dtype_of_mixed_weights_is_none(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(1, dtype=torch.bfloat16)}, file)
    assert read_dtype(file) == "bfloat16"
    save_file({"a": torch.ones(1, dtype=torch.bfloat16), "b": torch.ones(1)}, file)
    assert read_dtype(file) is None


def test_base_weight_of_lora_is_loaded_by_its_plain_name(tmp_path: Path) -> None:
    plain = nn.ModuleDict({"llm": nn.ModuleDict({"q": nn.Linear(2, 2)})})
    file = tmp_path / "weights.safetensors"
    save_weights(file, plain.state_dict(), plain.state_dict(), {})
    adapted = nn.ModuleDict({"llm": nn.ModuleDict({"q": nn.ModuleDict({"base_layer": nn.Linear(2, 2)})})})
    load_weights(adapted, file)
    assert torch.equal(adapted["llm"]["q"]["base_layer"].weight, plain["llm"]["q"].weight)
