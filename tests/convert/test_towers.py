"""Single models of the hub: every spelling of a key has one name, or a reason why not."""

import pytest

from omnihuman.convert.towers import TOWERS, report, to_part

SAME: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a patch of SigLIP": (
        "siglip",
        ("vision_model.embeddings.patch_embedding.weight", "embeddings.patch_embedding.weight"),
        "embeddings.patch_embedding.weight",
    ),
    "a block of SigLIP": (
        "siglip",
        ("vision_model.encoder.layers.26.mlp.fc1.bias", "encoder.layers.26.mlp.fc1.bias"),
        "encoder.layers.26.mlp.fc1.bias",
    ),
    "Whisper": (
        "whisper",
        ("model.encoder.layers.3.fc1.weight", "encoder.layers.3.fc1.weight", "layers.3.fc1.weight"),
        "layers.3.fc1.weight",
    ),
    "BERT": (
        "bert",
        ("bert.encoder.layer.0.output.LayerNorm.gamma", "encoder.layer.0.output.LayerNorm.weight"),
        "encoder.layer.0.output.LayerNorm.weight",
    ),
    "BERT's first norm": (
        "bert",
        ("bert.embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
        "embeddings.LayerNorm.bias",
    ),
    "Qwen2": ("qwen2", ("model.layers.0.self_attn.q_proj.bias",), "model.layers.0.self_attn.q_proj.bias"),
    "Mistral": ("mistral", ("lm_head.weight",), "lm_head.weight"),
}

DROPPED = {
    "siglip": ("text_model.head.weight", "vision_model.head.probe", "head.probe", "logit_scale",
               "vision_model.embeddings.position_ids"),
    "whisper": ("model.decoder.layers.0.encoder_attn.k_proj.weight", "decoder.embed_tokens.weight", "proj_out.weight",
                "projector.bias", "classifier.weight"),
    "bert": ("bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids"),
    "qwen2": ("model.layers.0.self_attn.rotary_emb.inv_freq",),
    "mistral": ("model.layers.0.self_attn.rotary_emb.inv_freq",),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_spellings(what: str) -> None:
    source, keys, name = SAME[what]
    for key in keys:
        assert to_part(key, source) == name and report([key], source).taken == {key: name}
    if len(keys) > 1:
        with pytest.raises(ValueError, match=r"holds .* twice"):
            report(keys, source)


@pytest.mark.parametrize("source", TOWERS)
def test_what_is_dropped_and_why(source: str) -> None:
    made = report(DROPPED[source], source)
    assert not made.taken and set(made.dropped.values()) == set(TOWERS[source].dropped.values())


@pytest.mark.parametrize("source", TOWERS)
def test_a_stranger(source: str) -> None:
    with pytest.raises(ValueError, match=f"unknown to {source}, the first is 'visual.proj'"):
        report(["visual.proj"], source)


def test_a_head_that_is_the_embedding() -> None:
    assert report(["lm_head.weight"], "qwen2", tied=True).dropped == {"lm_head.weight": "the head is the embedding"}
