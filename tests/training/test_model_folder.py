"""Model folders: their configs and weights."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from omnihuman.build import compose_config
from omnihuman.training.chain import resolve_chain
from omnihuman.training.model_folder import load_model
from omnihuman.training.run_search import find_run_folder, read_config
from omnihuman.training.weights import save_weights


def replace_weights(folder: Path, state: dict[str, torch.Tensor]) -> None:
    save_weights(folder / "weights.safetensors", state, state, {})


def test_complete_folder_can_be_moved(complete_folder: Path) -> None:
    folder = complete_folder.rename(complete_folder.with_name("moved"))
    _, model = load_model(folder, dtype="bfloat16")
    weights = load_file(folder / "weights.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name].bfloat16()) and not parameter.requires_grad
    assert model.llm.model.lm_head.weight is model.llm.model.get_input_embeddings().weight


def test_model_has_the_dtype_of_its_weights(complete_folder: Path) -> None:
    weights = load_file(complete_folder / "weights.safetensors")
    replace_weights(complete_folder, {name: tensor.half() for name, tensor in weights.items()})
    _, model = load_model(complete_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}


def test_weights_that_are_not_finite_are_refused(complete_folder: Path) -> None:
    """By ``load_model``, which every verb and ``base=`` read a folder with."""
    file = complete_folder / "weights.safetensors"
    weights = load_file(file)
    weights["fusions.gate.layers.0.weight"][0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"weights\.safetensors: fusions\.gate"):
        load_model(complete_folder)


def test_folder_without_the_marker_is_refused(complete_folder: Path) -> None:
    (complete_folder / "finished").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        load_model(complete_folder)
    with pytest.raises(ValueError, match=r"init_from: .*finished"):
        resolve_chain(
            compose_config(["+experiment=humanomni_stage3", f"init_from=[{{folder: {complete_folder}}}]"]), []
        )


def test_missing_parameters_raise(complete_folder: Path) -> None:
    weights = load_file(complete_folder / "weights.safetensors")
    replace_weights(complete_folder, {name: weights[name] for name in weights if "fusions.gate" not in name})
    with pytest.raises(ValueError, match=r"\b4 parameters .*missing.*\['fusions\.gate"):
        load_model(complete_folder)


def test_unknown_dtype_raises(complete_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype=int8: .*\bfloat32\b"):
        load_model(complete_folder, dtype="int8")


def test_run_is_a_name_or_a_path(complete_folder: Path) -> None:
    assert read_config(complete_folder).folder == str(complete_folder)
    size, name, runs = *complete_folder.parts[-2:], complete_folder.parents[1]
    for verb in ("generate", "evaluate", "report", "serve", "chat", "export"):
        for overrides in ([f"run={complete_folder}"], [f"run={name}", f"runs={runs}"]):
            config = compose_config(overrides, verb)
            OmegaConf.update(config, "size", size, force_add=True)
            assert find_run_folder(config) == complete_folder


def test_folder_without_weights_raises(complete_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing .*no finished run"):
        read_config(complete_folder / "nothing")
