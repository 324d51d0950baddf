"""VideoChat2-Mistral: the converted model is its vision encoder, Q-Former and Linear, and Mistral with its LoRA."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Request, convert
from omnihuman.release.source.videochat2 import lora_of, qformer_sizes
from omnihuman.training.finished import load_model
from omnihuman.types import Features, Signal
from tests.release import layouts


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("mistral")
    model = layouts.tower(folder, "mistral", rms_norm_eps=1e-5, sliding_window=None)
    layouts.speaks_mistral(tokenizer_folder, folder)
    return folder, model


def converted(file: Path, mistral: Path, words: str, **asked: Any) -> Path:
    options = {"language_model": str(mistral), "instruction_encoder": words, **asked}
    return convert(Request("videochat2", str(file), file.parent / "out", options))


def logits(model: OmniModel, ids: Tensor) -> Tensor:
    places = torch.arange(ids.shape[1])[None]
    embeds = model.llm.embed(ids)
    made: Tensor = model.llm.model(inputs_embeds=embeds, position_ids=places, use_cache=False,
                                   bounds=(0, ids.shape[1])).logits  # fmt: skip
    return made


@pytest.mark.parametrize("stage", [2, 3])
def test_features_and_logits(
    tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any], stage: Literal[2, 3]
) -> None:
    vision, reader = layouts.videochat2(tmp_path / "stage.pth", stage)
    folder, theirs = mistral[0], deepcopy(mistral[1])
    out = converted(tmp_path / "stage.pth", folder, tokenizer_folder)
    config, ours = load_model(out)
    assert config.data.num_frames == (8 if stage == 3 else 4) and ours.llm.chat["template"] == "mistral"
    frames = torch.randint(0, 256, (1, 4, 3, 224, 224), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    signal = Signal(frames, torch.ones(1, 4, dtype=torch.bool))
    vision.grid, vision.table = ours.encoders["video"].grid, ours.encoders["video"].table
    words = None
    if stage == 3:
        ids = ours.encoders["instruction"].transform("happy or sad?")[None]
        words = ours.encoders["instruction"](Signal(ids, torch.ones_like(ids, dtype=torch.bool)))
    with torch.no_grad():
        expected = reader.eval()(vision(signal), words).tokens
        seen: Features = ours.projectors["general"](ours.encoders["video"](signal), words)
        made = ours.fusions["single"]({"general": seen})["video"].tokens
        assert made.shape == (1, 1, 10, 32) and torch.equal(made, expected)
        ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))
        for key, down in layouts.lora().items() if stage == 3 else ():
            if ".lora_A." in key:
                place = key.removeprefix("mistral_model.base_model.model.").partition(".lora_A.")[0]
                up = layouts.lora()[key.replace(".lora_A.", ".lora_B.")]
                theirs.get_submodule(place).weight += 2 * up @ down  # lora_alpha is twice the rank
        torch.testing.assert_close(logits(ours, ids), theirs(input_ids=ids).logits, rtol=0, atol=2e-5)
    taken = [line for line in (out / "keys.tsv").read_text().splitlines() if "\ttaken\t" in line]
    assert (
        len(taken)
        == len(load_file(out / "weights.safetensors"))
        == len(layouts.lora()) * (stage == 3) + {2: 99, 3: 113}[stage]
    )


def test_merging_lora_changes_no_logit(tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any]) -> None:
    layouts.videochat2(tmp_path / "stage.pth", 3)
    out = converted(tmp_path / "stage.pth", mistral[0], tokenizer_folder)
    ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        apart, merged = (logits(load_model(out, merge_lora=merge)[1], ids) for merge in (False, True))
    torch.testing.assert_close(merged, apart, rtol=0, atol=2e-5)
    assert (out / "instruction_tokenizer/tokenizer.json").is_file() and (out / "tokenizer/tokenizer.json").is_file()


def test_a_mistral_that_is_not_there(tmp_path: Path, tokenizer_folder: str) -> None:
    layouts.videochat2(tmp_path / "stage.pth", 2)
    with pytest.raises(ValueError, match=r"Say where it is with language_model=<folder or hub id>\."):
        converted(tmp_path / "stage.pth", tmp_path / "gone", tokenizer_folder)


def test_files_that_are_not_enough(tmp_path: Path, tokenizer_folder: str, mistral: tuple[Path, Any]) -> None:
    layouts.umt(tmp_path / "l16_25m.pth")
    with pytest.raises(ValueError, match="has no Q-Former: take stage 2's or 3's file; of UMT's own file source=umt"):
        converted(tmp_path / "l16_25m.pth", mistral[0], tokenizer_folder)
    layouts.videochat2(tmp_path / "stage.pth", 3)
    layouts.tower(tmp_path / "wide", "mistral", hidden_size=48)
    shutil.copytree(tokenizer_folder, tmp_path / "wide", dirs_exist_ok=True)
    with pytest.raises(
        ValueError, match=r"is \[32, 64\], projectors.general.linears.0.weight of the model .*\[48, 64\]"
    ):
        converted(tmp_path / "stage.pth", tmp_path / "wide", tokenizer_folder)
    config = json.loads((mistral[0] / "config.json").read_text())
    (tmp_path / "wide/config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    with pytest.raises(ValueError, match="source=mistral reads a 'mistral'"):
        converted(tmp_path / "stage.pth", tmp_path / "wide", tokenizer_folder)


def test_sizes_of_the_released_model() -> None:
    at = "model.encoder.layer.{}."
    shapes: dict[str, tuple[int, ...]] = {
        "queries": (1, 32, 768), "extra_queries": (1, 64, 768), "model.embeddings.word_embeddings.weight": (30523, 768),
    }  # fmt: skip
    for layer in range(12):
        shapes |= {f"{at.format(layer)}attention.attention.query.weight": (768, 768),
                   f"{at.format(layer)}intermediate_query.dense.weight": (3072, 768)}  # fmt: skip
        if layer % 2 == 0:
            shapes[f"{at.format(layer)}crossattention.attention.query.weight"] = (768, 768)
    assert qformer_sizes(shapes, Path("x")) == {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "num_queries": 32, "extra_queries": 64, "cross_attention_frequency": 2, "linears": 1, "text": True,
        "vocab_size": 30523,
    }  # fmt: skip
    assert lora_of({"llm.model.lm_head.weight": (1, 1)}) is None
