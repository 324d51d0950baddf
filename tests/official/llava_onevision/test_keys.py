"""Both layouts of LLaVA-OneVision, in every spelling, map to the same parameters of Omni-Emotion's video path."""

import re

import pytest
import torch
from torch import Tensor

from omnihuman.build import build, compose_config
from omnihuman.official.llava_onevision.keys import ABOVE_FEATURES, DROPPED, count_blocks, report_keys
from omnihuman.official.towers.keys import TIED_HEAD

DROPPED_PARTS = (
    "encoders.face",
    "encoders.audio",
    "projectors.face",
    "projectors.audio",
    "fusions.frames_video",
    "fusions.frames_face",
    "fusions.join",
)

Shapes = dict[str, tuple[int, ...]]

SPELLINGS = {
    "original": {
        "vision": "model.vision_tower.vision_tower.vision_model.",
        "first": "model.mm_projector.0.",
        "second": "model.mm_projector.2.",
        "newline": "model.image_newline",
        "llm": "model.",
        "head": "lm_head.",
    },
    "original, with transformers 5": {
        "vision": "model.vision_tower.vision_tower.",
        "first": "model.mm_projector.0.",
        "second": "model.mm_projector.2.",
        "newline": "model.image_newline",
        "llm": "model.",
        "head": "lm_head.",
    },
    "transformers 4": {
        "vision": "vision_tower.vision_model.",
        "first": "multi_modal_projector.linear_1.",
        "second": "multi_modal_projector.linear_2.",
        "newline": "image_newline",
        "llm": "language_model.model.",
        "head": "language_model.lm_head.",
    },
    "transformers 5": {
        "vision": "model.vision_tower.",
        "first": "model.multi_modal_projector.linear_1.",
        "second": "model.multi_modal_projector.linear_2.",
        "newline": "model.image_newline",
        "llm": "model.language_model.",
        "head": "lm_head.",
    },
    "saved by transformers 5": {
        "vision": "vision_tower.",
        "first": "multi_modal_projector.linear_1.",
        "second": "multi_modal_projector.linear_2.",
        "newline": "image_newline",
        "llm": "language_model.model.",
        "head": "language_model.lm_head.",
    },
}

VISION, VISION_FFN, DIM, FFN, KEY_VALUE, VOCABULARY = 1152, 4304, 3584, 18944, 512, 152064
"""Sizes of the released 7B model."""


def official_state(spelling: dict[str, str], num_blocks: int = 26, num_layers: int = 28) -> dict[str, Tensor]:
    """Keys and shapes of the released 7B model, in a spelling."""
    shapes = {spelling["vision"] + name: shape for name, shape in vision_shapes(num_blocks).items()}
    shapes |= llm_shapes(spelling["llm"], num_layers)
    shapes |= {
        f"{spelling['first']}weight": (DIM, VISION),
        f"{spelling['first']}bias": (DIM,),
        f"{spelling['second']}weight": (DIM, DIM),
        f"{spelling['second']}bias": (DIM,),
        spelling["newline"]: (DIM,),
        f"{spelling['head']}weight": (VOCABULARY, DIM),
    }
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def vision_shapes(num_blocks: int) -> Shapes:
    shapes: Shapes = {
        "embeddings.patch_embedding.weight": (VISION, 3, 14, 14),
        "embeddings.patch_embedding.bias": (VISION,),
        "embeddings.position_embedding.weight": (729, VISION),
        "post_layernorm.weight": (VISION,),
        "post_layernorm.bias": (VISION,),
    }
    for block in range(num_blocks):
        prefix = f"encoder.layers.{block}."
        linears = {f"self_attn.{name}_proj": (VISION, VISION) for name in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (VISION_FFN, VISION), "mlp.fc2": (VISION, VISION_FFN)}
        for name, (outputs, inputs) in linears.items():
            shapes |= {f"{prefix}{name}.weight": (outputs, inputs), f"{prefix}{name}.bias": (outputs,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{prefix}{norm}.weight": (VISION,), f"{prefix}{norm}.bias": (VISION,)}
    return shapes


def llm_shapes(prefix: str, num_layers: int) -> Shapes:
    shapes: Shapes = {f"{prefix}embed_tokens.weight": (VOCABULARY, DIM), f"{prefix}norm.weight": (DIM,)}
    for layer in range(num_layers):
        at = f"{prefix}layers.{layer}."
        for name, outputs in (("q", DIM), ("k", KEY_VALUE), ("v", KEY_VALUE)):
            shapes |= {
                f"{at}self_attn.{name}_proj.weight": (outputs, DIM),
                f"{at}self_attn.{name}_proj.bias": (outputs,),
            }
        shapes |= {
            f"{at}self_attn.o_proj.weight": (DIM, DIM),
            f"{at}mlp.gate_proj.weight": (FFN, DIM),
            f"{at}mlp.up_proj.weight": (FFN, DIM),
            f"{at}mlp.down_proj.weight": (DIM, FFN),
            f"{at}input_layernorm.weight": (DIM,),
            f"{at}post_attention_layernorm.weight": (DIM,),
        }
    return shapes


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_official_keys_cover_our_parameters(spelling: str) -> None:
    state = official_state(SPELLINGS[spelling])
    report = report_keys(state)
    overrides = ["model=omni_emotion", "size=7b", "random_weights=true", f"model.drop=[{','.join(DROPPED_PARTS)}]"]
    with torch.device("meta"):
        model = build(compose_config(overrides).model)
    shapes = {name: tuple(state[key].shape) for key, name in report.names.items()}
    assert shapes == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert set(report.names) | set(report.dropped) == set(state)
    dropped = sorted(re.sub(".*post", "post", key) for key in report.dropped)
    assert dropped == ["post_layernorm.bias", "post_layernorm.weight"]
    assert count_blocks(state) == 26


def test_blocks_above_the_features_are_dropped() -> None:
    """Other code may save the complete tower after fine-tuning."""
    state = official_state(SPELLINGS["original"], num_blocks=27, num_layers=1)
    report = report_keys(state, num_blocks=26)
    last = [key for key, reason in report.dropped.items() if reason == ABOVE_FEATURES]
    assert len(last) == 16 and all(".layers.26." in key for key in last)
    assert not any(".layers.26." in name for name in report.names.values())
    assert any("model.layers.0." in name for name in report.names.values())


def test_tied_head_is_dropped() -> None:
    for spelling in SPELLINGS.values():
        report = report_keys(official_state(spelling, 1, 1), is_tied=True)
        assert report.dropped[f"{spelling['head']}weight"] == TIED_HEAD


def test_every_reason_occurs() -> None:
    extra = (
        "vision_tower.vision_model.embeddings.position_ids",
        "vision_tower.vision_model.head.probe",
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
    )
    report = report_keys([*official_state(SPELLINGS["transformers 4"], 1, 1), *extra])
    assert set(report.dropped.values()) == set(DROPPED.values())


@pytest.mark.parametrize(
    "key", ["model.mm_projector.readout.0.weight", "visual.blocks.0.norm1.weight", "model.audio_tower.x"]
)
def test_unknown_key_raises(key: str) -> None:
    with pytest.raises(ValueError, match=rf"LLaVA-OneVision.*'{key}'"):
        report_keys([key])


def test_two_spellings_of_one_parameter_raise() -> None:
    with pytest.raises(ValueError, match=r"fusions\.newline\.newline twice"):
        report_keys(["image_newline", "model.image_newline"])
