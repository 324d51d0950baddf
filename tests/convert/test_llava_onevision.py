"""Both layouts of LLaVA-OneVision, in every spelling, are the same parameters of Omni-Emotion's video path."""

import re

import pytest
import torch
from torch import Tensor

from omnihuman.build import build, compose_config
from omnihuman.convert.llava_onevision import DROPPED, LAST, blocks_of, report
from omnihuman.convert.towers import HEAD

DROP = ("encoders.face", "encoders.audio", "projectors.face", "projectors.audio", "fusions.frames_video",
        "fusions.frames_face", "fusions.join")  # fmt: skip

SPELT = {
    "original": {
        "vision": "model.vision_tower.vision_tower.vision_model.", "first": "model.mm_projector.0.",
        "second": "model.mm_projector.2.", "newline": "model.image_newline", "llm": "model.", "head": "lm_head.",
    },
    "original, of transformers 5": {
        "vision": "model.vision_tower.vision_tower.", "first": "model.mm_projector.0.",
        "second": "model.mm_projector.2.", "newline": "model.image_newline", "llm": "model.", "head": "lm_head.",
    },
    "transformers 4": {
        "vision": "vision_tower.vision_model.", "first": "multi_modal_projector.linear_1.",
        "second": "multi_modal_projector.linear_2.", "newline": "image_newline", "llm": "language_model.model.",
        "head": "language_model.lm_head.",
    },
    "transformers 5": {
        "vision": "model.vision_tower.", "first": "model.multi_modal_projector.linear_1.",
        "second": "model.multi_modal_projector.linear_2.", "newline": "model.image_newline",
        "llm": "model.language_model.", "head": "lm_head.",
    },
    "as transformers 5 saves it": {
        "vision": "vision_tower.", "first": "multi_modal_projector.linear_1.",
        "second": "multi_modal_projector.linear_2.", "newline": "image_newline", "llm": "language_model.model.",
        "head": "language_model.lm_head.",
    },
}  # fmt: skip


def official(spelt: dict[str, str], blocks: int = 26, layers: int = 28) -> dict[str, Tensor]:
    """Keys and shapes of the released 7B model."""
    vision, wide, inner, dim, ffn, key, words = 1152, 4304, 1152, 3584, 18944, 512, 152064
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (vision, 3, 14, 14), "embeddings.patch_embedding.bias": (vision,),
        "embeddings.position_embedding.weight": (729, vision), "post_layernorm.weight": (vision,),
        "post_layernorm.bias": (vision,),
    }  # fmt: skip
    for block in range(blocks):
        at = f"encoder.layers.{block}."
        linears = {f"self_attn.{name}_proj": (vision, inner) for name in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": (wide, vision), "mlp.fc2": (vision, wide)}
        shapes |= {f"{at}{name}.weight": shape for name, shape in linears.items()}
        shapes |= {f"{at}{name}.bias": shape[:1] for name, shape in linears.items()}
        shapes |= {f"{at}layer_norm{n}.{kind}": (vision,) for n in (1, 2) for kind in ("weight", "bias")}
    named = {spelt["vision"] + name: shape for name, shape in shapes.items()}
    named |= {f"{spelt['first']}weight": (dim, vision), f"{spelt['second']}weight": (dim, dim)}
    named |= {f"{spelt[place]}bias": (dim,) for place in ("first", "second")} | {spelt["newline"]: (dim,)}
    for layer in range(layers):
        at = f"{spelt['llm']}layers.{layer}."
        outs = {"q": dim, "k": key, "v": key}
        named |= {f"{at}self_attn.{name}_proj.weight": (out, dim) for name, out in outs.items()}
        named |= {f"{at}self_attn.{name}_proj.bias": (out,) for name, out in outs.items()}
        named |= {f"{at}self_attn.o_proj.weight": (dim, dim), f"{at}mlp.down_proj.weight": (dim, ffn)}
        named |= {f"{at}mlp.{name}_proj.weight": (ffn, dim) for name in ("gate", "up")}
        named |= {f"{at}{name}_layernorm.weight": (dim,) for name in ("input", "post_attention")}
    named |= {f"{spelt['llm']}embed_tokens.weight": (words, dim), f"{spelt['llm']}norm.weight": (dim,)}
    named[f"{spelt['head']}weight"] = (words, dim)
    return {key: torch.empty(shape, device="meta") for key, shape in named.items()}


@pytest.mark.parametrize("spelling", SPELT)
def test_every_parameter_of_the_released_size_is_there(spelling: str) -> None:
    state = official(SPELT[spelling])
    made = report(state)
    with torch.device("meta"):
        model = build(compose_config(["model=omni_emotion", "size=7b", "random_weights=true",
                                      f"model.drop=[{','.join(DROP)}]"]).model)  # fmt: skip
    have = {name: tuple(state[key].shape) for key, name in made.taken.items()}
    assert have == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert set(made.taken) | set(made.dropped) == set(state)
    assert sorted(re.sub(".*post", "post", key) for key in made.dropped) == [
        "post_layernorm.bias", "post_layernorm.weight"]  # fmt: skip
    assert blocks_of(state) == 26


def test_blocks_above_the_one_that_is_read() -> None:
    """Fine-tuned by other code, the tower may be whole."""
    state = official(SPELT["original"], blocks=27, layers=1)
    made = report(state, blocks=26)
    last = [key for key, reason in made.dropped.items() if reason == LAST]
    assert len(last) == 16 and all(".layers.26." in key for key in last)
    assert not any(".layers.26." in name for name in made.taken.values())
    assert any("model.layers.0." in name for name in made.taken.values())


def test_a_head_that_is_the_embedding() -> None:
    for spelt in SPELT.values():
        made = report(official(spelt, 1, 1), tied=True)
        assert made.dropped[f"{spelt['head']}weight"] == HEAD


def test_every_reason_is_given_somewhere() -> None:
    more = ("vision_tower.vision_model.embeddings.position_ids", "vision_tower.vision_model.head.probe",
            "language_model.model.layers.0.self_attn.rotary_emb.inv_freq")  # fmt: skip
    spelt = SPELT["transformers 4"]
    made = report([*official(spelt, 1, 1), *more])
    assert set(made.dropped.values()) == set(DROPPED.values())


@pytest.mark.parametrize(
    "key", ["model.mm_projector.readout.0.weight", "visual.blocks.0.norm1.weight", "model.audio_tower.x"]
)
def test_a_stranger_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"unknown to LLaVA-OneVision, the first is '{key}'"):
        report([key])


def test_two_spellings_of_one_parameter() -> None:
    with pytest.raises(ValueError, match=r"holds fusions\.newline\.newline twice"):
        report(["image_newline", "model.image_newline"])
