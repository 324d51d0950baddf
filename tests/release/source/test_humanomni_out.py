"""Model folders come back as HumanOmni's official layout, bit for bit, and as its own code reads it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from omnihuman.build import build
from omnihuman.convert.humanomni import report
from omnihuman.data.chat import SYSTEM
from omnihuman.release.shards import open_checkpoint
from omnihuman.release.source.humanomni import write_official as write_back
from omnihuman.training.finished import read_config
from tests.release.official import VISION, WORDS, Official, make


@pytest.mark.parametrize("form", ["7b", "0_5b"])
def test_there_and_back_is_bit_identical(
    officials: dict[str, Official], converted: dict[str, Path], form: str, tmp_path: Path
) -> None:
    """All that their model computes with comes back; what it never computes with comes back as zeros or not at all."""
    official = officials[form]
    notes = write_back(converted[form], tmp_path / "back", limit=400_000)
    back = open_checkpoint(tmp_path / "back")
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1
    matter = report(official.state, blocks=2, tied=form == "0_5b").taken
    for key in matter:
        assert torch.equal(back[key], official.state[key]) and back[key].dtype == official.state[key].dtype, key
    rest = set(back) - set(matter)
    assert rest < set(official.state) and not any(back[key].any() for key in rest)
    assert len(rest) == (6 if form == "7b" else 2) and f"zeros for {len(rest)} tensors" in notes[0]
    assert any("R1-Omni's code" in note for note in notes) == (form == "0_5b")
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: said[key] for key in official.config} == official.config
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        assert (tmp_path / "back" / name).read_bytes() == (official.folder / name).read_bytes()
    again = make(Official(tmp_path / "back", *[getattr(official, name) for name in
                          ("siglip", "whisper", "bert", "state", "config")]), tmp_path / "again")  # fmt: skip
    assert (again / "weights.safetensors").stat().st_size == (converted[form] / "weights.safetensors").stat().st_size
    first, second = load_file(again / "weights.safetensors"), load_file(converted[form] / "weights.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_back_from_a_stage_that_began_with_it(
    officials: dict[str, Official], converted: dict[str, Path], tmp_path: Path
) -> None:
    """A run that holds what was trained, begun from a converted folder."""
    folder = shutil.copytree(converted["7b"], tmp_path / "run")
    (folder / "source.json").unlink()
    config = OmegaConf.load(folder / "config.yaml")
    config.init_from = [{"folder": str(converted["7b"])}]
    OmegaConf.save(config, folder / "config.yaml")
    state = load_file(folder / "weights.safetensors")
    state["fusions.gate.layers.2.bias"] += 1
    save_file(state, folder / "weights.safetensors")
    write_back(folder, tmp_path / "back", dtype="bfloat16")
    back = open_checkpoint(tmp_path / "back")
    gate = officials["7b"].state["model.bert_gate.2.bias"]
    assert torch.equal(back["model.bert_gate.2.bias"], (gate + 1).bfloat16())
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert said["mm_vision_tower"] == officials["7b"].config["mm_vision_tower"] and said["torch_dtype"] == "bfloat16"


def test_lora_is_merged(converted: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(converted["0_5b"], tmp_path / "run")
    config = OmegaConf.load(folder / "config.yaml")
    config.model.llm.lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    OmegaConf.save(config, folder / "config.yaml")
    state, name = load_file(folder / "weights.safetensors"), "llm.model.model.layers.0.self_attn.q_proj"
    model = build(read_config(folder).model)
    lora = {key: torch.randn(x.shape) for key, x in model.named_parameters() if "lora_" in key}
    save_file(state | lora, folder / "weights.safetensors")
    write_back(folder, tmp_path / "back")
    a, b = (lora[f"{name}.lora_{letter}.default.weight"] for letter in "AB")
    merged = state[f"{name}.weight"] + 2 * (b @ a)
    back = open_checkpoint(tmp_path / "back")["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(back, merged)


def test_a_tokenizer_of_transformers_5_is_written_as_transformers_4_reads_it(
    converted: dict[str, Path], tmp_path: Path
) -> None:
    """Which has neither ``chat_template.jinja`` nor ``TokenizersBackend``, and asks for the added tokens' places."""
    folder = shutil.copytree(converted["7b"], tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ messages }}")
    write_back(folder, tmp_path / "back")
    said = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    assert (said["tokenizer_class"], said["chat_template"]) == ("Qwen2Tokenizer", "{{ messages }}")
    assert said["additional_special_tokens"] == ["<|im_start|>"] and "extra_special_tokens" not in said
    added = {each["content"]: int(place) for place, each in said["added_tokens_decoder"].items()}
    assert added["<|im_end|>"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(json.loads((tmp_path / "back" / "vocab.json").read_text())) == 1024
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    write_back(folder, tmp_path / "plain")
    template = json.loads((tmp_path / "plain" / "tokenizer_config.json").read_text())["chat_template"]
    tokenizer.chat_template = template
    question = [{"role": "user", "content": "Who?"}]
    asked = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert asked == (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
                     "<|im_start|>assistant\n")  # fmt: skip


def test_what_is_never_used_has_the_shapes_that_their_code_builds(converted: dict[str, Path], tmp_path: Path) -> None:
    """Zeros of another shape stop their loader: the compressor's Linears are as wide as the vision tower."""
    write_back(converted["7b"], tmp_path / "back")
    state = load_file(tmp_path / "back" / "model.safetensors")
    assert state["model.feature_compressor.vlm_key_projector.weight"].shape == (256, VISION["hidden_size"])
    assert state["model.bert_model.pooler.dense.weight"].shape == (WORDS["hidden_size"],) * 2


def test_a_tower_that_their_loader_takes_for_another_is_told(converted: dict[str, Path], tmp_path: Path) -> None:
    for number, (name, bad) in enumerate({"siglip": False, "vit": True, "clips/siglip": True}.items()):
        notes = write_back(converted["7b"], tmp_path / str(number), vision_tower=f"/models/{name}")
        assert any("cannot read this one" in note for note in notes) == bad, name


def test_what_their_code_could_not_build_is_refused(
    converted: dict[str, Path], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"fusions.gate.hidden is 128, theirs 3584; .*depth is 1, theirs [24]"):
        write_back(model_folder("humanomni_stage3"), tmp_path / "out")
    with pytest.raises(ValueError, match=r"encoders.face is .*FaceXFormer, theirs absent"):
        write_back(model_folder("favchat_stage3"), tmp_path / "out")
    trained = shutil.copytree(converted["7b"], tmp_path / "trained")
    config = OmegaConf.load(trained / "config.yaml")
    config.trainable = {"encoders.video.*": 1e-5}
    OmegaConf.save(config, trained / "config.yaml")
    with pytest.raises(ValueError, match=r"trained encoders.video .* never from the checkpoint"):
        write_back(trained, tmp_path / "out")
    with pytest.raises(ValueError, match=r"is there already"):
        write_back(converted["7b"], tmp_path)
    assert not (tmp_path / "out").exists()
