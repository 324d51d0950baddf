"""LLaVA-OneVision, in either layout: the converted model makes the features and the logits of transformers' own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Request, convert
from omnihuman.training.finished import load_model
from omnihuman.types import Features, Signal
from tests.release import layouts

LAYOUTS: tuple[layouts.Layout, ...] = ("original", "transformers 4", "transformers 5")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The whole vision tower: LLaVA-OneVision's code deletes the last of its blocks."""
    folder = tmp_path_factory.mktemp("siglip")
    layouts.tower(folder, "siglip", num_hidden_layers=layouts.VISION["num_hidden_layers"] + 1)
    return str(folder)


def converted(path: Path, tower: str, **asked: Any) -> Path:
    options = {"vision_tower": tower, "frames": asked.pop("frames", None)}
    return convert(Request("llava_onevision", str(path), path.parent / "out", options, **asked))


def saying(path: Path, **changed: Any) -> Path:
    """The folder with other fields in its config.json."""
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    return path


def video(model: OmniModel, frames: torch.Tensor) -> torch.Tensor:
    """What stands at ``<video>``."""
    seen: Features = model.encoders["video"](Signal(frames[None], torch.ones(1, len(frames), dtype=torch.bool)))
    stream = model.fusions["newline"]({"video": model.projectors["video"](seen)})["video"]
    return stream.tokens.flatten(1, 2)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_and_logits(tmp_path: Path, tokenizer_folder: str, tower: str, layout: layouts.Layout) -> None:
    theirs = layouts.llava_onevision(tmp_path / "official", layout, tokenizer_folder)
    out = converted(tmp_path / "official", tower)
    _, ours = load_model(out)
    frames = torch.randint(0, 256, (3, 3, 42, 42), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    with torch.no_grad():
        seen = theirs.model.get_video_features((frames / 127.5 - 1)[None]).pooler_output[0]
        expected = torch.cat([seen[:12], theirs.model.image_newline[None]])
        made = video(ours, frames)
        assert made.shape == expected.shape == (3 * 4 + 1, 32)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
        ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))
        places = torch.arange(20)
        logits = ours.llm.model(inputs_embeds=ours.llm.embed(ids), position_ids=places[None], use_cache=False,
                                bounds=(0, 20)).logits  # fmt: skip
        torch.testing.assert_close(logits, theirs(input_ids=ids).logits, rtol=0, atol=1e-5)
    fates = (out / "keys.tsv").read_text().splitlines()[1:]
    assert len(fates) == len(load_file(tmp_path / "official/model.safetensors"))
    assert sum("\tdropped\tfeatures are read before the final norm" in fate for fate in fates) == 2


def test_what_the_folder_says(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    layouts.llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    official = json.loads((tmp_path / "official/config.json").read_text())
    out = converted(saying(tmp_path / "official", rope_theta=12345.0), tower, dtype="bfloat16", frames=4)
    config, model = load_model(out)
    assert (
        config.data.num_frames == 4 and config.data.markers is False and config.model.encoders.video.aspect == "squash"
    )
    assert model.llm.chat == {"template": "chatml", "system": "You are a helpful assistant."}
    assert model.llm.model.config.rope_parameters["rope_theta"] == 12345.0
    assert model.layouts({"frames": 4})["video"] == 4 * 4 + 1
    assert {tensor.dtype for tensor in load_file(out / "weights.safetensors").values()} == {torch.bfloat16}
    said = json.loads((out / "source.json").read_text())
    assert said["source"] == "llava_onevision" and said["config"] == official | {"rope_theta": 12345.0}
    assert (out / "tokenizer/tokenizer.json").is_file() and len((out / "digest").read_text().split()) == 2


def test_a_tower_that_is_whole(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    """With all blocks, the original reads below the last one; transformers says itself which state it reads."""
    path = tmp_path / "official"
    layouts.llava_onevision(path, "original", tokenizer_folder)
    file = path / "model.safetensors"
    state = load_file(file)
    extra = {key.replace("layers.2.", "layers.3."): x for key, x in state.items() if "encoder.layers.2." in key}
    save_file(state | {key: x.clone() for key, x in extra.items()}, file)
    out = converted(path, tower)
    dropped = [line for line in (out / "keys.tsv").read_text().splitlines() if "read below this block" in line]
    assert len(dropped) == 16 and all(".layers.3." in line for line in dropped)

    layouts.llava_onevision(tmp_path / "other" / "official", "transformers 4", tokenizer_folder)
    other = converted(saying(tmp_path / "other" / "official", vision_feature_layer=-2), tower)
    assert len(load_model(other)[1].encoders["video"].layers) == 2


def test_other_newlines(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    """LLaVA-Video, of the same layout, ends every row of a frame."""
    layouts.llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    out = converted(saying(tmp_path / "official", mm_newline_position="grid"), tower)
    assert load_model(out)[1].layouts({"frames": 2})["video"] == 2 * 2 * 3


WRONG: dict[str, tuple[layouts.Layout, dict[str, Any], str]] = {
    "a projector": ("original", {"mm_projector_type": "linear"}, "type is 'linear', ours can be mlp2x_gelu only"),
    "pooling": ("original", {"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode is 'average'"),
    "a language model": ("original", {"architectures": ["LlavaLlamaForCausalLM"]}, "is it another LLaVA?"),
    "a class token": ("transformers 5", {"vision_feature_select_strategy": "default"}, "ours can be full only"),
    "several states": ("transformers 5", {"vision_feature_layer": [-2, -5]}, "ours reads one state only"),
    "a state": ("transformers 5", {"vision_feature_layer": -9}, "select_layer -9 is none of the 3 blocks"),
    "a tower": ("original", {}, r"Say|say where it is with vision_tower="),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_config_that_is_not_ours(tmp_path: Path, tokenizer_folder: str, tower: str, what: str) -> None:
    layout, changed, message = WRONG[what]
    layouts.llava_onevision(tmp_path / "official", layout, tokenizer_folder)
    with pytest.raises(ValueError, match=message):
        converted(saying(tmp_path / "official", **changed), "./gone" if what == "a tower" else tower)
    assert not (tmp_path / "out").exists()


def test_sizes_that_contradict_the_tensors(tmp_path: Path, tokenizer_folder: str, tower: str) -> None:
    path = tmp_path / "official"
    layouts.llava_onevision(path, "original", tokenizer_folder)
    with pytest.raises(ValueError, match=re.escape("lm_head.weight is [1100, 32], llm.model.lm_head.weight of")):
        converted(saying(path, vocab_size=1101), tower)
    saying(path, vocab_size=1100)
    layouts.tower(tmp_path / "wide", "siglip", hidden_size=20, num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"wide is 20 wide, mm_projector of .* reads 16: give vision_tower="):
        converted(path, str(tmp_path / "wide"))
    file = path / "model.safetensors"
    save_file({key: x for key, x in load_file(file).items() if "image_newline" not in key}, file)
    with pytest.raises(ValueError, match=r"'fusions.newline.newline'.*its image_newline is not there"):
        converted(path, tower)
