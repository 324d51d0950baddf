"""VideoChat2-Mistral: the converted model has the features of its parts and the logits of Mistral with LoRA."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnihuman.llm.packed import Segments
from omnihuman.model.omni import OmniModel
from omnihuman.official.conversion import Request, convert
from omnihuman.official.videochat2.read import infer_lora, infer_qformer_sizes
from omnihuman.training.model_folder import load_model
from omnihuman.types import Features, Signal
from tests.official import layouts


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mistral")
    model = layouts.write_tower(folder, "mistral", rms_norm_eps=1e-5, sliding_window=None)
    layouts.write_mistral_tokenizer(tokenizer_folder, folder)
    return folder, model


def convert_file(file: Path, mistral: Path, bert: str) -> Path:
    options = {"language_model": str(mistral), "instruction_encoder": bert}
    return convert(Request("videochat2", str(file), file.parent / "out", options))


def compute_logits(model: OmniModel, ids: Tensor) -> Tensor:
    length = ids.shape[1]
    output = model.llm.model(
        inputs_embeds=model.llm.embed(ids),
        position_ids=torch.arange(length)[None],
        use_cache=False,
        segments=Segments((0, length), torch.device("cpu")),
    )
    logits: Tensor = output.logits
    return logits


def draw_ids() -> Tensor:
    return torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stage", [2, 3])
def test_features_equal_those_of_the_official_parts(
    tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any], stage: Literal[2, 3]
) -> None:
    vision, qformer = layouts.write_videochat2(tmp_path / "stage.pth", stage)
    config, model = load_model(convert_file(tmp_path / "stage.pth", mistral[0], tokenizer_folder))
    assert config.data.num_frames == (8 if stage == 3 else 4) and model.llm.template.name == "mistral"
    frames = torch.randint(0, 256, (1, 4, 3, 224, 224), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    signal = Signal(frames, torch.ones(1, 4, dtype=torch.bool))
    vision.grid, vision.table = model.encoders["video"].grid, model.encoders["video"].table
    instruction = None
    if stage == 3:
        ids = model.encoders["instruction"].transform("happy or sad?")[None]
        instruction = model.encoders["instruction"](Signal(ids, torch.ones_like(ids, dtype=torch.bool)))
    with torch.no_grad():
        expected = qformer.eval()(vision(signal), instruction).tokens
        features: Features = model.projectors["general"](model.encoders["video"](signal), instruction)
        tokens = model.fusions["single"]({"general": features})["video"].tokens
        assert tokens.shape == (1, 1, 10, 32) and torch.equal(tokens, expected)


@pytest.mark.parametrize(("stage", "num_keys"), [(2, 99), (3, 113)])
def test_logits_equal_those_of_mistral_with_lora(
    tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any], stage: Literal[2, 3], num_keys: int
) -> None:
    layouts.write_videochat2(tmp_path / "stage.pth", stage)
    out = convert_file(tmp_path / "stage.pth", mistral[0], tokenizer_folder)
    _, model = load_model(out)
    official = deepcopy(mistral[1])
    if stage == 3:
        lora = layouts.make_lora()
        num_keys += len(lora)
        merge_lora(official, lora)
    ids = draw_ids()
    with torch.no_grad():
        torch.testing.assert_close(compute_logits(model, ids), official(input_ids=ids).logits, rtol=0, atol=2e-5)
    lines = [line for line in (out / "keys.tsv").read_text().splitlines() if "\ttaken\t" in line]
    assert len(lines) == len(load_file(out / "weights.safetensors")) == num_keys


@torch.no_grad()
def merge_lora(model: Any, lora: dict[str, Tensor]) -> None:
    """Add LoRA to the weights; lora_alpha is twice the rank."""
    for key, down in lora.items():
        if ".lora_A." in key:
            name = key.removeprefix("mistral_model.base_model.model.").partition(".lora_A.")[0]
            up = lora[key.replace(".lora_A.", ".lora_B.")]
            model.get_submodule(name).weight += 2 * up @ down


def test_merging_lora_keeps_the_logits(tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any]) -> None:
    layouts.write_videochat2(tmp_path / "stage.pth", 3)
    out = convert_file(tmp_path / "stage.pth", mistral[0], tokenizer_folder)
    _, separate = load_model(out, merge_lora=False)
    _, merged = load_model(out, merge_lora=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compute_logits(merged, draw_ids()), compute_logits(separate, draw_ids()), rtol=0, atol=2e-5
        )
    assert (out / "instruction_tokenizer/tokenizer.json").is_file() and (out / "tokenizer/tokenizer.json").is_file()


def test_missing_mistral_raises(tmp_path: Path, tokenizer_folder: str) -> None:
    layouts.write_videochat2(tmp_path / "stage.pth", 2)
    with pytest.raises(ValueError, match=r"\blanguage_model=<"):
        convert_file(tmp_path / "stage.pth", tmp_path / "missing", tokenizer_folder)


def test_file_without_a_qformer_raises(tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any]) -> None:
    layouts.write_umt(tmp_path / "l16_25m.pth")
    with pytest.raises(ValueError, match=r"no Q-Former: .*stage 2 or 3.*official=umt"):
        convert_file(tmp_path / "l16_25m.pth", mistral[0], tokenizer_folder)


def test_language_model_that_does_not_fit_raises(
    tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any]
) -> None:
    layouts.write_videochat2(tmp_path / "stage.pth", 3)
    layouts.write_tower(tmp_path / "wide", "mistral", hidden_size=48)
    shutil.copytree(tokenizer_folder, tmp_path / "wide", dirs_exist_ok=True)
    message = r"is \[32, 64\], projectors.general.linears.0.weight .*\[48, 64\]"
    with pytest.raises(ValueError, match=message):
        convert_file(tmp_path / "stage.pth", tmp_path / "wide", tokenizer_folder)
    config = json.loads((mistral[0] / "config.json").read_text())
    (tmp_path / "wide/config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    with pytest.raises(ValueError, match=r"official=mistral .*'mistral'"):
        convert_file(tmp_path / "stage.pth", tmp_path / "wide", tokenizer_folder)


def test_sizes_of_the_released_qformer() -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "queries": (1, 32, 768),
        "extra_queries": (1, 64, 768),
        "model.embeddings.word_embeddings.weight": (30523, 768),
    }
    for layer in range(12):
        prefix = f"model.encoder.layer.{layer}."
        shapes[f"{prefix}attention.attention.query.weight"] = (768, 768)
        shapes[f"{prefix}intermediate_query.dense.weight"] = (3072, 768)
        if layer % 2 == 0:
            shapes[f"{prefix}crossattention.attention.query.weight"] = (768, 768)
    assert infer_qformer_sizes(shapes, Path("x")) == {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "num_queries": 32,
        "extra_queries": 64,
        "cross_attention_frequency": 2,
        "linears": 1,
        "text": True,
        "vocab_size": 30523,
    }
    assert infer_lora({"llm.model.lm_head.weight": (1, 1)}) is None
