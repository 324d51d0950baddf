"""Model folders are exported in HumanOmni's official layout, bit for bit, and as its own code reads it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from omnihuman.build import build
from omnihuman.official.checkpoint import open_checkpoint
from omnihuman.official.humanomni.keys import report_keys
from omnihuman.official.humanomni.read import write_official as export_official
from omnihuman.training.run_search import read_config
from tests.official.folders import TEXT, VISION, OfficialFolder, convert_official


@pytest.mark.parametrize(("preset", "num_zeros"), [("7b", 6), ("0_5b", 2)])
def test_round_trip_is_bit_identical(
    officials: dict[str, OfficialFolder], converted: dict[str, Path], preset: str, num_zeros: int, tmp_path: Path
) -> None:
    """Every parameter that the official model uses is exported; the others are zeros or absent."""
    official = officials[preset]
    notes = export_official(converted[preset], tmp_path / "exported", max_shard_size=400_000)
    exported = open_checkpoint(tmp_path / "exported")
    assert len(list((tmp_path / "exported").glob("*.safetensors"))) > 1
    used = report_keys(official.state, num_blocks=2, is_tied=preset == "0_5b").names
    for key in used:
        assert torch.equal(exported[key], official.state[key]) and exported[key].dtype == official.state[key].dtype, key
    unused = set(exported) - set(used)
    assert unused < set(official.state) and not any(exported[key].any() for key in unused)
    assert len(unused) == num_zeros and f"zeros for {num_zeros} tensors" in notes[0]
    assert any("R1-Omni's code" in note for note in notes) == (preset == "0_5b")

    again = convert_official(replace(official, folder=tmp_path / "exported"), tmp_path / "again")
    first, second = again / "weights.safetensors", converted[preset] / "weights.safetensors"
    assert first.stat().st_size == second.stat().st_size
    weights = load_file(first)
    for name, tensor in load_file(second).items():
        assert torch.equal(weights[name], tensor)


@pytest.mark.parametrize("preset", ["7b", "0_5b"])
def test_round_trip_keeps_config_and_tokenizer(
    officials: dict[str, OfficialFolder], converted: dict[str, Path], preset: str, tmp_path: Path
) -> None:
    official = officials[preset]
    export_official(converted[preset], tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert {key: config[key] for key in official.config} == official.config
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        assert (tmp_path / "exported" / name).read_bytes() == (official.folder / name).read_bytes()


def test_export_of_a_run_that_started_from_a_converted_folder(
    officials: dict[str, OfficialFolder], converted: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(converted["7b"], tmp_path / "run")
    (folder / "official.json").unlink()
    config = OmegaConf.load(folder / "config.yaml")
    config.init_from = [{"folder": str(converted["7b"])}]
    OmegaConf.save(config, folder / "config.yaml")
    state = load_file(folder / "weights.safetensors")
    state["fusions.gate.layers.2.bias"] += 1
    save_file(state, folder / "weights.safetensors")
    export_official(folder, tmp_path / "exported", dtype="bfloat16")
    exported = open_checkpoint(tmp_path / "exported")
    gate = officials["7b"].state["model.bert_gate.2.bias"]
    assert torch.equal(exported["model.bert_gate.2.bias"], (gate + 1).bfloat16())
    fields = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert (
        fields["mm_vision_tower"] == officials["7b"].config["mm_vision_tower"] and fields["torch_dtype"] == "bfloat16"
    )


def test_lora_is_merged(converted: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(converted["0_5b"], tmp_path / "run")
    config = OmegaConf.load(folder / "config.yaml")
    config.model.llm.lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    OmegaConf.save(config, folder / "config.yaml")
    state, name = load_file(folder / "weights.safetensors"), "llm.model.model.layers.0.self_attn.q_proj"
    model = build(read_config(folder).model)
    lora = {key: torch.randn(tensor.shape) for key, tensor in model.named_parameters() if "lora_" in key}
    save_file(state | lora, folder / "weights.safetensors")
    export_official(folder, tmp_path / "exported")
    down, up = lora[f"{name}.lora_A.default.weight"], lora[f"{name}.lora_B.default.weight"]
    exported = open_checkpoint(tmp_path / "exported")["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(exported, state[f"{name}.weight"] + 2 * (up @ down))


def copy_with_tokenizer_of_transformers_5(source: Path, folder: Path) -> Any:
    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    return tokenizer


def test_tokenizer_has_the_form_of_transformers_4(converted: dict[str, Path], tmp_path: Path) -> None:
    """transformers 4 has no ``chat_template.jinja`` and no ``TokenizersBackend``, and needs ids of added tokens."""
    folder = tmp_path / "run"
    tokenizer = copy_with_tokenizer_of_transformers_5(converted["7b"], folder)
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ messages }}")
    export_official(folder, tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "tokenizer_config.json").read_text())
    assert (config["tokenizer_class"], config["chat_template"]) == ("Qwen2Tokenizer", "{{ messages }}")
    assert config["additional_special_tokens"] == ["<|im_start|>"] and "extra_special_tokens" not in config
    ids = {token["content"]: int(number) for number, token in config["added_tokens_decoder"].items()}
    assert ids["<|im_end|>"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(json.loads((tmp_path / "exported" / "vocab.json").read_text())) == 1024


def test_tokenizer_without_a_template_gets_chatml(converted: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tokenizer = copy_with_tokenizer_of_transformers_5(converted["7b"], folder)
    (folder / "tokenizer" / "chat_template.jinja").unlink(missing_ok=True)
    export_official(folder, tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "tokenizer_config.json").read_text())
    tokenizer.chat_template = config["chat_template"]
    question = [{"role": "user", "content": "Who?"}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert prompt == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_unused_parameters_have_the_official_shapes(converted: dict[str, Path], tmp_path: Path) -> None:
    """The official loader fails on other shapes; the compressor's Linears are as wide as the vision tower."""
    export_official(converted["7b"], tmp_path / "exported")
    state = load_file(tmp_path / "exported" / "model.safetensors")
    assert state["model.feature_compressor.vlm_key_projector.weight"].shape == (256, VISION["hidden_size"])
    assert state["model.bert_model.pooler.dense.weight"].shape == (TEXT["hidden_size"], TEXT["hidden_size"])


@pytest.mark.parametrize(("name", "fails"), [("siglip", False), ("vit", True), ("clips/siglip", True)])
def test_note_on_a_path_that_the_official_loader_refuses(
    converted: dict[str, Path], tmp_path: Path, name: str, fails: bool
) -> None:
    notes = export_official(converted["7b"], tmp_path / "exported", vision_tower=f"/models/{name}")
    assert any("this path fails" in note for note in notes) == fails


def test_model_of_other_code_raises(
    converted: dict[str, Path], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"fusions\.gate\.hidden is 128, .*3584; .*depth is 1, .*[24]"):
        export_official(model_folder("humanomni_stage3"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"encoders\.face is .*FaceXFormer, .*absent"):
        export_official(model_folder("favchat_stage3"), tmp_path / "out")
    trained = shutil.copytree(converted["7b"], tmp_path / "trained")
    config = OmegaConf.load(trained / "config.yaml")
    config.trainable = {"encoders.video.*": 1e-5}
    OmegaConf.save(config, trained / "config.yaml")
    with pytest.raises(ValueError, match=r"trained encoders\.video .*format=huggingface"):
        export_official(trained, tmp_path / "out")
    with pytest.raises(ValueError, match=r"exists already"):
        export_official(converted["7b"], tmp_path)
    assert not (tmp_path / "out").exists()
