"""Model folders: what is read from them, and stages that start from them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from omnihuman.build import build, compose_config
from omnihuman.training.chain import link
from omnihuman.training.finished import filled, load_model, read_config, rebase
from omnihuman.training.runs import run_folder
from omnihuman.training.stage import run_stage
from omnihuman.training.weights import save_weights


@pytest.fixture
def whole(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder that holds all weights, as a converted checkpoint does."""
    folder = tmp_path / "whole"
    shutil.copytree(model_folder("humanomni_stage3"), folder)
    config = OmegaConf.load(folder / "config.yaml")
    model = build(config.model)
    shutil.copytree(config.model.llm.tokenizer, folder / "tokenizer")
    config.model.llm.architecture, config.model.llm.weights = model.llm.model.config.to_dict(), None
    config.model.llm.tokenizer = "${folder}/tokenizer"
    for encoder in config.model.encoders.values():
        encoder.weights = None
    config.data.num_frames = 5
    OmegaConf.save(config, folder / "config.yaml")
    (folder / "weights.safetensors").unlink()
    save_weights(folder / "weights.safetensors", model.state_dict(), dict(model.named_parameters()), {})
    return folder


def test_a_whole_folder_needs_nothing_else(whole: Path) -> None:
    moved = whole.rename(whole.with_name("moved"))
    _, model = load_model(moved, dtype="bfloat16")
    written = load_file(moved / "weights.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, written[name].bfloat16()) and not parameter.requires_grad
    assert model.llm.model.lm_head.weight is model.llm.model.get_input_embeddings().weight


def test_it_is_what_it_was_saved_as(whole: Path) -> None:
    state = {name: tensor.half() for name, tensor in load_file(whole / "weights.safetensors").items()}
    save_weights(whole / "weights.safetensors", state, state, {})
    _, model = load_model(whole)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}


def test_what_a_whole_folder_lacks_is_named(whole: Path) -> None:
    state = {
        name: tensor for name, tensor in load_file(whole / "weights.safetensors").items() if "fusions.gate" not in name
    }
    save_weights(whole / "weights.safetensors", state, state, {})
    with pytest.raises(ValueError, match=r"4 parameters are not there, the first \['fusions\.gate"):
        load_model(whole)


def test_a_run_is_named_or_lies_somewhere(whole: Path) -> None:
    config = compose_config([f"run={whole}"], "generate")
    assert run_folder(config) == whole and read_config(whole).folder == str(whole)
    assert run_folder(compose_config(["run=a", "runs=r", "variant=b"], "generate")) == Path("r/nano/a/b")
    with pytest.raises(ValueError, match=r"experiment=nothing"):
        read_config(whole / "nothing")


def test_a_stage_starts_from_a_folder(whole: Path, corpus: Path, tmp_path: Path) -> None:
    given = ["+experiment=humanomni_stage3", f"base={whole}", "data=jsonl", f"data.records={corpus}/train.json",
             f"data.root={corpus}", f"runs={tmp_path}", "trainer.max_steps=1", "data.num_workers=0",
             "answers.modals=[]", "stage.batch_size=2", "validate_first=false"]  # fmt: skip
    run = run_stage(compose_config(given), given)
    assert run.folder == tmp_path / "nano/humanomni_stage3/base=whole"
    before, after = (load_file(folder / "weights.safetensors") for folder in (whole, run.folder))
    assert before.keys() <= after.keys() | {"llm.model.lm_head.weight"}
    moved = {name.split(".")[0] for name in before if name in after and not torch.equal(before[name], after[name])}
    assert moved == {"projectors", "fusions", "llm"}
    config, _ = load_model(run.folder)
    assert config.data.num_frames == config.frames == 5 and config.base == str(whole)


def test_the_command_line_still_holds(whole: Path) -> None:
    given = ["+experiment=humanomni_stage3", f"base={whole}", "fusion@model.fusions.compress=weighted_sum", "frames=3",
             "model.llm.lora={r: 2, target_modules: all-linear}"]  # fmt: skip
    config = compose_config(given)
    rebase(config, given)
    assert "WeightedSum" in config.model.fusions.compress._target_ and config.data.num_frames == 3
    assert config.model.llm.lora.r == 2 and "InstructionGate" in config.model.fusions.gate._target_
    without = list(config.init_from[0].without)
    model, names = filled(config.model, whole / "weights.safetensors", without, new=True)
    assert any("lora_A" in name for name, _ in model.named_parameters()) and len(names) > 100
    assert not any(parameter.is_meta for parameter in model.parameters()) and without == [
        "fusions.compress.*",
        "llm.lora.*",
    ]
    assert [parent.run.folder for parent in link(config, given).parents] == [whole]
    with pytest.raises(ValueError, match="brings its own model"):
        rebase(compose_config(given[:2]), [*given[:2], "model=favchat"])
    with pytest.raises(ValueError, match="no finished run"):
        rebase(compose_config([*given[:1], "base=nowhere"]), [])
