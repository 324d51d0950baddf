"""Model folders: their configs and weights, and stages that start from them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from omnihuman.build import build, compose_config
from omnihuman.training.chain import resolve_chain
from omnihuman.training.model_folder import build_with_weights, load_model, read_config, rebase
from omnihuman.training.run_search import find_run_folder
from omnihuman.training.stage import run_stage
from omnihuman.training.weights import save_weights


@pytest.fixture
def complete_folder(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder with all weights, such as a converted checkpoint."""
    folder = tmp_path / "complete"
    shutil.copytree(model_folder("humanomni_stage3"), folder)
    config = OmegaConf.load(folder / "config.yaml")
    model = build(config.model)
    shutil.copytree(config.model.llm.tokenizer, folder / "tokenizer")
    architecture = {key: value for key, value in model.llm.model.config.to_dict().items() if key[0] != "_"}
    config.model.llm.architecture, config.model.llm.weights = architecture, None
    config.model.llm.tokenizer = "${folder}/tokenizer"
    for encoder in config.model.encoders.values():
        encoder.weights = None
    config.data.num_frames = 5
    OmegaConf.save(config, folder / "config.yaml")
    (folder / "weights.safetensors").unlink()
    save_weights(folder / "weights.safetensors", model.state_dict(), dict(model.named_parameters()), {})
    return folder


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


def test_stage_starts_from_a_folder(complete_folder: Path, corpus: Path, tmp_path: Path) -> None:
    overrides = [
        "+experiment=humanomni_stage3",
        f"base={complete_folder}",
        "data=json",
        f"data.records={corpus}/train.json",
        f"data.root={corpus}",
        "data.num_workers=0",
        f"runs={tmp_path}",
        "trainer.max_steps=1",
        "recipe.batch_size=2",
        "validation.views=[]",
        "validate_first=false",
    ]
    run = run_stage(compose_config(overrides), overrides)
    assert run.folder == tmp_path / "nano/humanomni_stage3/base=complete"
    before, after = load_file(complete_folder / "weights.safetensors"), load_file(run.weights)
    assert before.keys() <= after.keys() | {"llm.model.lm_head.weight"}
    changed = [name for name in before if name in after and not torch.equal(before[name], after[name])]
    assert {name.split(".")[0] for name in changed} == {"projectors", "fusions", "llm"}
    config, _ = load_model(run.folder)
    assert config.data.num_frames == config.frames == 5 and config.base == str(complete_folder)


def test_overrides_apply_to_the_base(complete_folder: Path) -> None:
    overrides = [
        "+experiment=humanomni_stage3",
        f"base={complete_folder}",
        "fusion@model.fusions.compress=weighted_sum",
        "frames=3",
        "model.llm.lora={r: 2, target_modules: all-linear}",
    ]
    composed = compose_config(overrides)
    config = rebase(composed, overrides)
    assert composed == compose_config(overrides), "rebase leaves its argument as it is"
    assert "WeightedSum" in config.model.fusions.compress._target_ and config.data.num_frames == 3
    assert config.model.llm.lora.r == 2 and "InstructionGate" in config.model.fusions.gate._target_
    without = list(config.init_from[0].without)
    assert without == ["fusions.compress.*", "llm.lora.*"]
    model, names = build_with_weights(config.model, complete_folder / "weights.safetensors", without, allow_new=True)
    assert any("lora_A" in name for name, _ in model.named_parameters()) and len(names) > 100
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert [parent.run.folder for parent in resolve_chain(config, overrides).parents] == [complete_folder]


def test_base_with_another_model_raises(complete_folder: Path) -> None:
    overrides = ["+experiment=humanomni_stage3", f"base={complete_folder}"]
    with pytest.raises(ValueError, match="replaces the model"):
        rebase(compose_config(["+experiment=favchat_stage1", *overrides[1:]]), [*overrides, "model=favchat"])


def test_finetune_takes_the_whole_model_of_the_base(complete_folder: Path) -> None:
    overrides = ["+experiment=finetune", f"base={complete_folder}", "fusion@model.fusions.compress=weighted_sum"]
    config = rebase(compose_config(overrides), overrides)
    base = read_config(complete_folder)
    assert config.model.variant == base.model.variant == "humanomni" and config.model.encoders == base.model.encoders
    assert "WeightedSum" in config.model.fusions.compress._target_
    assert config.data.views == config.validation.views == ["VAF"] and config.data.tasks is None
    assert config.size == base.size and config.frames == base.data.num_frames
    typed = [*overrides, "data.views=[VF,A]"]
    assert rebase(compose_config(typed), typed).data.views == ["VF", "A"]


def test_finetune_without_a_base_raises() -> None:
    with pytest.raises(ValueError, match="add base="):
        rebase(compose_config(["+experiment=finetune"]), ["+experiment=finetune"])


def test_unknown_base_raises() -> None:
    with pytest.raises(ValueError, match=r"nowhere .*no finished run"):
        rebase(compose_config(["+experiment=humanomni_stage3", "base=nowhere"]), [])


def test_without_base_the_config_stays() -> None:
    config = compose_config(["+experiment=humanomni_stage3"])
    assert rebase(config, ["+experiment=humanomni_stage3"]) is config
