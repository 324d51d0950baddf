"""weights.safetensors: strict both ways."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from omnihuman.training.weights import load_weights, save_weights


def model() -> nn.Module:
    return nn.ModuleDict({"projectors": nn.ModuleDict({"face": nn.Linear(2, 3), "body": nn.Linear(2, 3)})})


def write(folder: Path, names: str = "projectors") -> Path:
    saved = model()
    file = folder / "weights.safetensors"
    save_weights(file, saved.state_dict(), [n for n in saved.state_dict() if n.startswith(names)], {"experiment": "x"})
    return file


def test_round_trip_and_report(tmp_path: Path) -> None:
    saved, fresh = model(), model()
    file = tmp_path / "weights.safetensors"
    save_weights(file, saved.state_dict(), saved.state_dict(), {})
    report = load_weights(fresh, file, "projectors.face.*")
    assert torch.equal(fresh["projectors"]["face"].weight, saved["projectors"]["face"].weight)
    assert not torch.equal(fresh["projectors"]["body"].weight, saved["projectors"]["body"].weight)
    assert (len(report.loaded), len(report.left)) == (2, 2) and "projectors.face" in str(report)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "projectors.face.weight")
    with pytest.raises(ValueError, match=r"missing.*projectors\.face\.bias"):
        load_weights(model(), file, "projectors.face.*")


def test_a_foreign_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"projectors.eyes.weight": torch.ones(1)}, file)
    with pytest.raises(ValueError, match=r"foreign.*projectors\.eyes\.weight"):
        load_weights(model(), file)


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'fusions\.\*'; the file holds \['projectors\.body'"):
        load_weights(model(), write(tmp_path), ["projectors.face.*", "fusions.*"])


def test_a_shape_that_differs_names_both(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"projectors.face.bias": torch.ones(4)}, file)
    with pytest.raises(ValueError, match=r"\(4,\) there, \(3,\) here"):
        load_weights(model(), file)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle"])
def test_what_is_no_weights_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "weights.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        load_weights(model(), file)


def test_a_lora_base_weight_keeps_its_name(tmp_path: Path) -> None:
    plain = nn.ModuleDict({"llm": nn.ModuleDict({"q": nn.Linear(2, 2)})})
    file = tmp_path / "weights.safetensors"
    save_weights(file, plain.state_dict(), plain.state_dict(), {})
    adapted = nn.ModuleDict({"llm": nn.ModuleDict({"q": nn.ModuleDict({"base_layer": nn.Linear(2, 2)})})})
    load_weights(adapted, file)
    assert torch.equal(adapted["llm"]["q"]["base_layer"].weight, plain["llm"]["q"].weight)
