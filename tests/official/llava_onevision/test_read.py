"""LLaVA-OneVision, in either layout: the converted model has the features and the logits of transformers' model."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoProcessor
from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor

import omnihuman
from omnihuman.hub.export import export
from omnihuman.inference.answerer import Answerer
from omnihuman.llm.packed import Segments
from omnihuman.model.omni import OmniModel
from omnihuman.official.conversion import Request, convert
from omnihuman.training.model_folder import load_model
from omnihuman.training.run_search import read_config
from omnihuman.types import Features, Signal
from tests.inference.test_prompting import write_clip
from tests.official import layouts

LAYOUTS: tuple[layouts.Layout, ...] = ("original", "transformers 4", "transformers 5")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The complete vision tower, with the block that LLaVA-OneVision's code deletes."""
    folder = tmp_path_factory.mktemp("siglip")
    layouts.write_tower(folder, "siglip", num_hidden_layers=layouts.VISION["num_hidden_layers"] + 1)
    return str(folder)


def convert_folder(path: Path, tower: str, frames: int | None = None, dtype: str | None = None) -> Path:
    options = {"vision_tower": tower, "frames": frames}
    return convert(Request("llava_onevision", str(path), path.parent / "out", options, dtype))


def set_fields(path: Path, **fields: Any) -> Path:
    """Change fields of config.json, and return the folder."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return path


def encode_video(model: OmniModel, frames: torch.Tensor) -> torch.Tensor:
    """Return the tokens of ``<video>``."""
    features: Features = model.encoders["video"](Signal(frames[None], torch.ones(1, len(frames), dtype=torch.bool)))
    stream = model.fusions["newline"]({"video": model.projectors["video"](features)})["video"]
    return stream.tokens.flatten(1, 2)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_and_logits_equal_those_of_transformers(
    tmp_path: Path, tokenizer_folder: str, tower: str, layout: layouts.Layout
) -> None:
    official = layouts.write_llava_onevision(tmp_path / "official", layout, tokenizer_folder)
    out = convert_folder(tmp_path / "official", tower)
    _, model = load_model(out)
    frames = torch.randint(0, 256, (3, 3, 42, 42), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    with torch.no_grad():
        features = official.model.get_video_features((frames / 127.5 - 1)[None]).pooler_output[0]
        expected = torch.cat([features[:12], official.model.image_newline[None]])
        tokens = encode_video(model, frames)
        assert tokens.shape == expected.shape == (3 * 4 + 1, 32)
        torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
        ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))
        logits = model.llm.model(
            inputs_embeds=model.llm.embed(ids),
            position_ids=torch.arange(20)[None],
            use_cache=False,
            segments=Segments((0, 20), ids.device),
        ).logits
        torch.testing.assert_close(logits, official(input_ids=ids).logits, rtol=0, atol=1e-5)
    lines = (out / "keys.tsv").read_text().splitlines()[1:]
    assert len(lines) == len(load_file(tmp_path / "official/model.safetensors"))
    assert sum("\tdropped\tfeatures are read before the final norm" in line for line in lines) == 2


def test_images_equal_those_of_transformers(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    """An image alone is asked in tiles, several ones are whole, and a batch may have both and a video."""
    official = layouts.write_llava_onevision(tmp_path / "official", "transformers 5", tokenizer_folder)
    out = convert_folder(set_fields(tmp_path / "official", vision_aspect_ratio="anyres_max_2"), tower, frames=2)
    answerer = Answerer.load(out, device="cpu")
    files = []
    for name, size in {"wide": (130, 41), "tall": (30, 70)}.items():
        image = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(image).save(files[-1])
    clip = write_clip(tmp_path / "clip.mp4", 4)
    prompts = [answerer.read_question("Who?", image=file) for file in files]
    prompts += [answerer.read_question("Who?", image=files), answerer.read_question("Who?", video=clip)]
    prompts.append(answerer.read_question("Who?"))
    half, side = [0.5] * 3, {"height": 42, "width": 42}
    processor = LlavaOnevisionImageProcessor(
        image_mean=half, image_std=half, size=side, image_grid_pinpoints=layouts.PINPOINTS
    )
    for prompt, images in zip(prompts, [files[:1], files[1:], files, [], []], strict=True):
        alone = answerer.embed_prompts([prompt])[0]
        ids = torch.tensor(prompt.packable.input_ids)
        if images:
            inputs = processor([[Image.open(file) for file in images]], return_tensors="pt")
            features = official.model.get_image_features(**inputs, vision_aspect_ratio="anyres_max_2").pooler_output
            torch.testing.assert_close(alone[ids < 0], torch.cat(list(features)), rtol=0, atol=1e-5)
        assert prompt.counts["video"] == int((ids < 0).sum())
    separate = [answerer.embed_prompts([prompt])[0] for prompt in prompts]
    for together, expected in zip(answerer.embed_prompts(prompts), separate, strict=True):
        torch.testing.assert_close(together, expected, rtol=0, atol=1e-5)
    omnihuman.register()
    export(out, tmp_path / "release")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "release")
    released = AutoProcessor.from_pretrained(tmp_path / "release")
    for prompt, image in zip(prompts[1:3], (files[1], files), strict=True):
        ids = model.generate(**released(text="Who?", image=image), max_new_tokens=3)[0].tolist()
        assert tuple(ids) == answerer.answer_prompts([prompt], max_new_tokens=3)[0].ids
    as_trained = Answerer.load(out, device="cpu", official=False)
    assert as_trained.read_question("Who?", image=files[0]).counts["video"] == 4 + 1


def test_config_of_the_model_folder(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    layouts.write_llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    official = json.loads((tmp_path / "official/config.json").read_text())
    out = convert_folder(set_fields(tmp_path / "official", rope_theta=12345.0), tower, frames=4, dtype="bfloat16")
    config, model = load_model(out)
    assert config.data.num_frames == 4 and config.data.markers is False
    assert config.model.encoders.video.aspect == "squash"
    assert (model.llm.template.name, model.llm.template.system) == ("chatml", "You are a helpful assistant.")
    assert model.llm.model.config.rope_parameters["rope_theta"] == 12345.0
    assert model.count_tokens({"frames": 4})["video"] == 4 * 4 + 1
    assert {tensor.dtype for tensor in load_file(out / "weights.safetensors").values()} == {torch.bfloat16}
    source = json.loads((out / "official.json").read_text())
    assert source["official"] == "llava_onevision" and source["config"] == official | {"rope_theta": 12345.0}
    assert (out / "tokenizer/tokenizer.json").is_file() and len((out / "digest").read_text().split()) == 2


def test_complete_tower_of_the_original_layout(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    """The original code reads the features below the last block."""
    path = tmp_path / "official"
    layouts.write_llava_onevision(path, "original", tokenizer_folder)
    file = path / "model.safetensors"
    state = load_file(file)
    for key, tensor in list(state.items()):
        if "encoder.layers.2." in key:
            state[key.replace("layers.2.", "layers.3.")] = tensor.clone()
    save_file(state, file)
    out = convert_folder(path, tower)
    dropped = [line for line in (out / "keys.tsv").read_text().splitlines() if "read below this block" in line]
    assert len(dropped) == 16 and all(".layers.3." in line for line in dropped)


def test_layer_of_the_transformers_layout(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    layouts.write_llava_onevision(tmp_path / "official", "transformers 4", tokenizer_folder)
    out = convert_folder(set_fields(tmp_path / "official", vision_feature_layer=-2), tower)
    _, model = load_model(out)
    assert len(model.encoders["video"].layers) == 2


def test_newlines_of_llava_video(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    """LLaVA-Video, which has the same layout, ends every row of a frame with a newline."""
    layouts.write_llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    out = convert_folder(set_fields(tmp_path / "official", mm_newline_position="grid"), tower)
    _, model = load_model(out)
    assert model.count_tokens({"frames": 2})["video"] == 2 * 2 * 3


@pytest.mark.parametrize("fields", [{"mm_patch_merge_type": "flat"}, {"mm_newline_position": "no_token"}])
def test_videos_without_newlines(tmp_path: Path, tokenizer_folder: str, tower: str, fields: dict[str, str]) -> None:
    layouts.write_llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    out = convert_folder(set_fields(tmp_path / "official", **fields), tower)
    config = read_config(out)
    assert config.model.fusions.newline.mode == "none"
    dropped = [line for line in (out / "keys.tsv").read_text().splitlines() if "no newline tokens" in line]
    assert len(dropped) == 1 and "model.image_newline" in dropped[0]


UNSUPPORTED: dict[str, tuple[layouts.Layout, dict[str, Any], str]] = {
    "projector": (
        "original",
        {"mm_projector_type": "linear"},
        "mm_projector_type 'linear'; .*mlp2x_gelu",
    ),
    "merging": ("original", {"mm_patch_merge_type": "unpad"}, "mm_patch_merge_type 'unpad'; .*spatial_unpad"),
    "newlines": (
        "original",
        {"mm_patch_merge_type": "spatial", "mm_newline_position": "grid"},
        "mm_newline_position=grid needs .*mm_patch_merge_type=spatial",
    ),
    "pooling": ("original", {"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode 'average'"),
    "language model": (
        "original",
        {"architectures": ["LlavaLlamaForCausalLM"]},
        "architectures .*LlavaQwenForCausalLM",
    ),
    "class token": ("transformers 5", {"vision_feature_select_strategy": "default"}, "'default'; .*full"),
    "several layers": ("transformers 5", {"vision_feature_layer": [-2, -5]}, "vision_feature_layer .*one layer"),
    "layer": ("transformers 5", {"vision_feature_layer": -9}, r"select_layer -9 .*\b3 blocks"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_config_raises(tmp_path: Path, tokenizer_folder: str, tower: str, case: str) -> None:
    layout, fields, message = UNSUPPORTED[case]
    layouts.write_llava_onevision(tmp_path / "official", layout, tokenizer_folder)
    with pytest.raises(ValueError, match=message):
        convert_folder(set_fields(tmp_path / "official", **fields), tower)
    assert not (tmp_path / "out").exists()


def test_missing_tower_raises(tmp_path: Path, tokenizer_folder: str) -> None:
    layouts.write_llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    with pytest.raises(ValueError, match=r"missing.*vision_tower="):
        convert_folder(tmp_path / "official", "./missing")


def test_sizes_that_contradict_the_tensors_raise(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    path = tmp_path / "official"
    layouts.write_llava_onevision(path, "original", tokenizer_folder)
    with pytest.raises(ValueError, match=re.escape("lm_head.weight is [1100, 32], llm.model.lm_head.weight of")):
        convert_folder(set_fields(path, vocab_size=1101), tower)
    set_fields(path, vocab_size=1100)
    layouts.write_tower(tmp_path / "wide", "siglip", hidden_size=20, num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"wide is 20 wide.*mm_projector .*\b16: .*vision_tower="):
        convert_folder(path, str(tmp_path / "wide"))


def test_missing_newline_raises(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    path = tmp_path / "official"
    layouts.write_llava_onevision(path, "original", tokenizer_folder)
    file = path / "model.safetensors"
    state = load_file(file)
    del state["model.image_newline"]
    save_file(state, file)
    with pytest.raises(ValueError, match=r"'fusions\.newline\.newline'.*image_newline .*missing"):
        convert_folder(path, tower)
