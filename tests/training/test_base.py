"""Stages that start from a model folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from omnihuman.build import compose_config
from omnihuman.cost.forecast import build_meta_model
from omnihuman.training.base import rebase
from omnihuman.training.chain import Chain, list_stages, resolve_chain
from omnihuman.training.model_folder import build_with_weights, load_model
from omnihuman.training.run_search import read_config
from omnihuman.training.runs import FINISHED, Run
from omnihuman.training.stage import run_stage


def write_base(folder: Path, experiment: str, *overrides: str, **changes: Any) -> Path:
    """Write a model folder without tensors: what a stage takes is in its config."""
    config = compose_config([f"+experiment={experiment}", *overrides])
    config.stages = list_stages(experiment)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False, force_add=True)
    run = Run(folder, "0" * 16, "1" * 16)
    run.open(config)
    run.weights.touch()
    (folder / FINISHED).touch()
    return folder


def resolve(experiment: str, base: Path, *overrides: str) -> Chain:
    command_line = [f"+experiment={experiment}", f"base={base}", *overrides]
    return resolve_chain(compose_config(command_line), command_line)


def list_parents(chain: Chain) -> list[str]:
    return [parent.run.folder.relative_to(parent.run.folder.parents[1]).as_posix() for parent in chain.parents]


def test_recipe_stays_the_experiments(tmp_path: Path) -> None:
    """FaVChat's second stage from a run of its first: LoRA, rates and data are those of the second."""
    base = write_base(tmp_path / "base", "favchat_stage1", model__projectors__general__num_queries=5, frames=3)
    chain, plain = resolve("favchat_stage2", base), compose_config(["+experiment=favchat_stage2"])
    config = chain.config
    assert config.model.projectors.general.num_queries == 5, "a size"
    assert config.model.llm.lora == plain.model.llm.lora is not None
    for key in ("trainable", "recipe", "data", "validation", "frames"):
        assert config[key] == plain[key], key
    assert list_parents(chain) == [f"{tmp_path.name}/base"]
    assert chain.stages == ("favchat_stage2", "favchat_stage1")


def test_parents_that_the_base_lacks_train_from_it(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "humanomni_stage1")
    chain = resolve("humanomni_stage3", base, "data.markers=false")
    assert list_parents(chain) == [f"{tmp_path.name}/base", "humanomni_stage2/base=base"], "as its own command names it"
    audio = chain.parents[1]
    assert list_parents(audio) == [f"{tmp_path.name}/base"]
    assert [entry.get("only") for entry in chain.config.init_from] == [None, "projectors.audio.*"]
    assert chain.config.model.drop == [] and "audio" in chain.config.model.encoders
    assert list(audio.config.init_from[0].without) == [
        f"{part}.*"
        for part in (
            "encoders.video",
            "encoders.instruction",
            "projectors.interaction",
            "projectors.body",
            "projectors.face",
            "fusions.gate",
            "fusions.compress",
        )
    ]


def test_base_of_no_stage_is_where_the_first_stage_starts(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "favchat_stage1", stages=[])
    chain = resolve("favchat_stage3", base)
    while chain.parents[-1].overrides:
        assert list_parents(chain)[0] == f"{tmp_path.name}/base" and len(chain.parents) == 2
        chain = chain.parents[-1]
    assert chain.config.name == "favchat_stage1" and list_parents(chain) == [f"{tmp_path.name}/base"]


def test_stage_continues_from_a_run_of_itself(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "omni_emotion_stage3")
    assert list_parents(resolve("omni_emotion_stage3", base)) == [f"{tmp_path.name}/base"]


def test_part_of_another_class_stays_the_experiments(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "omni_emotion_stage3", "fusion@model.fusions.join=frame_attend")
    chain = resolve("omni_emotion_stage3", base)
    assert "ClipConcat" in chain.config.model.fusions.join._target_
    assert list(chain.config.init_from[0].without) == ["fusions.join.*"]
    chain = resolve("omni_emotion_stage3", base, "fusion@model.fusions.join=frame_attend")
    assert list(chain.config.init_from[0].without) == ["fusions.join.*"], "chosen anew"


def test_wiring_of_a_part_stays_the_experiments(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "humanomni_stage1")
    compress = resolve("humanomni_stage1_face", base).config.model.fusions.compress
    assert list(compress.inputs) == ["face"]


def test_projector_that_reads_the_instruction_does_so_in_the_stage(tmp_path: Path) -> None:
    """As the Q-Former of VideoChat2's third stage, whose weights have text."""
    base = write_base(tmp_path / "base", "favchat_stage1", "model=favchat_text", stages=[])
    model = resolve("favchat_stage1", base).config.model
    assert model.conditions == {"general": "instruction", "facial": "instruction"}
    assert "instruction" in model.encoders and model.projectors.general.text


def test_adapters_of_a_base_stay_where_the_llm_is_frozen(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "favchat_stage2", model__llm__lora={"r": 3, "target_modules": "all-linear"})
    assert resolve("favchat_stage1", base).config.model.llm.lora.r == 3
    assert resolve("favchat_stage3", base).config.model.llm.lora.r == 3, "its size"
    assert resolve("favchat_stage3", base, "model.llm.lora.r=4").config.model.llm.lora.r == 4
    with pytest.raises(ValueError, match=r"base=.*LoRA.*lora=merge"):
        resolve("humanomni_stage1", base)


def test_size_is_the_bases(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "omni_emotion_video", "size=7b")
    chain = resolve("omni_emotion_stage2", base)
    assert chain.config.size == "7b" and chain.run.folder == Path("runs/7b/omni_emotion_stage2/base=base")
    assert resolve("omni_emotion_stage2", base, "size=nano").config.size == "nano"


@pytest.mark.parametrize("size", ["nano", "7b"])
def test_weights_of_the_package_and_the_hub_stay_names(tmp_path: Path, size: str) -> None:
    """A run that starts from a base is read on another machine; with random weights, nothing of the hub is loaded."""
    base = write_base(tmp_path / "base", "humanomni_stage1", f"size={size}")
    config = resolve("humanomni_stage1", base, "random_weights=true").config
    for node in (config.model.llm, config.model.encoders.video):
        assert OmegaConf.is_interpolation(node, "weights"), "as in a run without a base"
    assert (config.model.llm.weights is None) == (size == "7b")
    model = build_meta_model(config)
    assert model.llm.hidden_size == (3584 if size == "7b" else 192)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_base_without_a_part_of_the_stage_raises(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "humanomni_stage2", model__llm___target_="omnihuman.llm.causal.Other")
    with pytest.raises(ValueError, match=r"omnihuman\.llm\.causal\.Other"):
        resolve("favchat_stage1", base)


def test_stage_starts_from_a_folder(complete_folder: Path, corpus: Path, tmp_path: Path) -> None:
    overrides = [
        "+experiment=humanomni_stage3",
        f"base={complete_folder}",
        "data=json",
        f"data.records={corpus}/train.json",
        f"data.root={corpus}",
        "data.num_workers=0",
        "data.features=null",
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
    assert config.data.num_frames == config.frames == 8 and config.base == str(complete_folder)


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
    assert without == ["fusions.compress.*"]
    model, names = build_with_weights(config.model, complete_folder / "weights.safetensors", without, allow_new=True)
    assert any("lora_A" in name for name, _ in model.named_parameters()) and len(names) > 100
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert [parent.run.folder for parent in resolve_chain(composed, overrides).parents] == [complete_folder]


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
