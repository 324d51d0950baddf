"""Single models of the hub: every spelling of a key maps to one name, or to a reason to drop it."""

import pytest

from omnihuman.official.towers.keys import KEY_MAPS, map_key, report_keys

SPELLINGS: dict[str, tuple[str, tuple[str, ...], str]] = {
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
    "siglip": (
        "text_model.head.weight",
        "vision_model.head.probe",
        "head.probe",
        "logit_scale",
        "vision_model.embeddings.position_ids",
    ),
    "whisper": (
        "model.decoder.layers.0.encoder_attn.k_proj.weight",
        "decoder.embed_tokens.weight",
        "proj_out.weight",
        "projector.bias",
        "classifier.weight",
    ),
    "bert": ("bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids"),
    "qwen2": ("model.layers.0.self_attn.rotary_emb.inv_freq",),
    "mistral": ("model.layers.0.self_attn.rotary_emb.inv_freq",),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_every_spelling_has_the_same_name(case: str) -> None:
    source, keys, name = SPELLINGS[case]
    for key in keys:
        assert map_key(key, source) == name
        assert report_keys([key], source).names == {key: name}
    if len(keys) > 1:
        with pytest.raises(ValueError, match=r"has .* twice"):
            report_keys(keys, source)


@pytest.mark.parametrize("source", KEY_MAPS)
def test_unread_keys_are_dropped_with_a_reason(source: str) -> None:
    report = report_keys(DROPPED[source], source)
    assert not report.names
    assert set(report.dropped.values()) == set(KEY_MAPS[source].dropped.values())


@pytest.mark.parametrize("source", KEY_MAPS)
def test_unknown_key_raises(source: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{source}\b.*'visual\.proj'"):
        report_keys(["visual.proj"], source)


def test_tied_head_is_dropped() -> None:
    report = report_keys(["lm_head.weight"], "qwen2", is_tied=True)
    assert report.dropped == {"lm_head.weight": "the head is the embedding"}
