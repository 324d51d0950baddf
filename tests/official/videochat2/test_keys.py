"""Every key of VideoChat2's and UMT's checkpoints has our name, or a reason why it is dropped."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnihuman.encoder.umt import UMT
from omnihuman.official.checkpoint import open_checkpoint
from omnihuman.official.videochat2.keys import ABOVE_FEATURES, DROPPED, convert_state
from omnihuman.projector.qformer import QFormer

NUM_BLOCKS, DIM, WIDTH = 3, 8, 12
"""Blocks of the complete vision encoder, its width, and the width of the Q-Former."""

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def make_random(shapes: Shapes) -> State:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def make_vision(prefix: str = "vision_encoder.encoder.", has_norm: bool = True) -> State:
    """The vision encoder; the complete one has a final norm, that of VideoChat2 ends below the last block."""
    shapes: Shapes = {"patch_embed.proj.weight": (DIM, 3, 1, 4, 4), "patch_embed.proj.bias": (DIM,)}
    for block in range(NUM_BLOCKS if has_norm else NUM_BLOCKS - 1):
        layers: Shapes = {
            "norm1": (DIM,),
            "norm2": (DIM,),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (16, DIM),
            "mlp.fc2": (DIM, 16),
        }
        for name, shape in layers.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{block}.attn.q_bias": (DIM,), f"blocks.{block}.attn.v_bias": (DIM,)}
        shapes[f"blocks.{block}.attn.qkv.weight"] = (3 * DIM, DIM)
    if has_norm:
        shapes |= {"norm.weight": (DIM,), "norm.bias": (DIM,)}
    return make_random({f"{prefix}{name}": shape for name, shape in shapes.items()})


def make_qformer(has_text: bool) -> State:
    """Two layers under the official names; the first one has cross-attention to the video."""
    shapes: Shapes = {"embeddings.LayerNorm.weight": (WIDTH,), "embeddings.LayerNorm.bias": (WIDTH,)}
    if has_text:
        shapes["embeddings.word_embeddings.weight"] = (11, WIDTH)
        shapes["embeddings.position_embeddings.weight"] = (512, WIDTH)
    for layer in (0, 1):
        prefix = f"encoder.layer.{layer}."
        shapes |= attention_shapes(f"{prefix}attention.", WIDTH)
        if layer == 0:
            shapes |= attention_shapes(f"{prefix}crossattention.", DIM)
        shapes |= feed_forward_shapes(prefix, "_query")
        if has_text:
            shapes |= feed_forward_shapes(prefix, "")
    state = make_random({f"qformer.bert.{name}": shape for name, shape in shapes.items()})
    return state | make_random({"query_tokens": (1, 4, WIDTH), "extra_query_tokens": (1, 6, WIDTH)})


def attention_shapes(prefix: str, key_width: int) -> Shapes:
    shapes: Shapes = {f"{prefix}output.dense.weight": (WIDTH, WIDTH)}
    for name, width in (("query", WIDTH), ("key", key_width), ("value", key_width)):
        shapes |= {f"{prefix}self.{name}.weight": (WIDTH, width), f"{prefix}self.{name}.bias": (WIDTH,)}
    for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias"):
        shapes[f"{prefix}output.{name}"] = (WIDTH,)
    return shapes


def feed_forward_shapes(prefix: str, suffix: str) -> Shapes:
    return {
        f"{prefix}intermediate{suffix}.dense.weight": (24, WIDTH),
        f"{prefix}intermediate{suffix}.dense.bias": (24,),
        f"{prefix}output{suffix}.dense.weight": (WIDTH, 24),
        f"{prefix}output{suffix}.dense.bias": (WIDTH,),
        f"{prefix}output{suffix}.LayerNorm.weight": (WIDTH,),
        f"{prefix}output{suffix}.LayerNorm.bias": (WIDTH,),
    }


def make_norm() -> State:
    return make_random({"vision_layernorm.weight": (DIM,), "vision_layernorm.bias": (DIM,)})


def make_linear() -> State:
    return make_random({"mistral_proj.weight": (20, WIDTH), "mistral_proj.bias": (20,)})


def make_heads() -> State:
    """The parameters of stage 1 alone; its vision encoder is frozen and not saved."""
    names = (
        "vision_temp_embed",
        "vision_proj.weight",
        "text_proj.bias",
        "itm_head.weight",
        "temp",
        "qformer.cls.predictions.bias",
        "qformer.bert.embeddings.position_ids",
    )
    return make_random(dict.fromkeys(names, (1,)))


def make_lora() -> State:
    base = "mistral_model.base_model.model"
    names = (f"{base}.model.layers.0.self_attn.q_proj.lora_A.default.weight", f"{base}.lm_head.lora_B.default.weight")
    return make_random(dict.fromkeys(names, (2, 2)))


STAGE_2 = make_vision(has_norm=False) | make_norm() | make_qformer(has_text=False) | make_linear()
STAGE_3 = make_vision(has_norm=False) | make_norm() | make_qformer(has_text=True) | make_linear()


def select_prefix(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def build_qformer(text: bool) -> QFormer:
    return QFormer(
        DIM,
        20,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_queries=4,
        extra_queries=6,
        text=text,
        vocab_size=11,
    )


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_official_keys_cover_our_parameters(prefix: str) -> None:
    """Stage 3, with an instruction to the Q-Former and LoRA on the language model."""
    official = {f"{prefix}{key}": tensor for key, tensor in (STAGE_3 | make_lora()).items()}
    state, report = convert_state(official, num_blocks=NUM_BLOCKS - 1)
    encoder = UMT(
        image_size=8,
        patch_size=4,
        hidden_size=DIM,
        intermediate_size=16,
        num_hidden_layers=NUM_BLOCKS,
        num_attention_heads=2,
        table_side=2,
    )
    encoder.load_state_dict(select_prefix(state, "encoders.video."))
    build_qformer(text=True).load_state_dict(select_prefix(state, "projectors.general."))
    assert set(select_prefix(state, "llm.model.")) == {
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "lm_head.lora_B.default.weight",
    }
    assert set(report.names) == set(official) and not report.dropped
    for key, name in report.names.items():
        assert torch.equal(state[name], official[key])


def test_without_text_the_qformer_is_that_of_blip2() -> None:
    state, _ = convert_state(STAGE_2, num_blocks=NUM_BLOCKS - 1)
    build_qformer(text=False).load_state_dict(select_prefix(state, "projectors.general."))


def test_stage_1_has_heads_and_no_vision_encoder() -> None:
    official = make_norm() | make_qformer(has_text=True) | make_heads()
    state, report = convert_state(official, num_blocks=NUM_BLOCKS - 1)
    assert set(report.dropped) == set(make_heads())
    assert {name.split(".")[0] for name in state} == {"encoders", "projectors"}
    assert len(select_prefix(state, "encoders.")) == 2


@pytest.mark.parametrize("prefix", ["encoder.", "vision_encoder.encoder."])
def test_umt_files(prefix: str) -> None:
    outside = prefix.removesuffix("encoder.")
    extra: Shapes = {f"{outside}clip_decoder.0.head.weight": (1,), f"{outside}pool_norm.weight": (1,)}
    if outside:
        extra["text_encoder.bert.encoder.layer.0.output.dense.weight"] = (1,)
    state, report = convert_state(make_vision(prefix) | make_random(extra), num_blocks=NUM_BLOCKS - 1)
    assert set(extra) < set(report.dropped)
    last = {key for key, reason in report.dropped.items() if reason == ABOVE_FEATURES}
    assert len(last) == 13 and all(key.startswith(f"{prefix}blocks.2.") for key in last)
    assert set(report.dropped) - set(extra) == last | {f"{prefix}norm.weight", f"{prefix}norm.bias"}
    assert len(state) == 2 + 13 * (NUM_BLOCKS - 1)


def test_every_reason_occurs() -> None:
    names = (
        "vision_encoder.clip_decoder.0.norm.weight",
        "vision_encoder.pool_norm.bias",
        "text_encoder.bert.pooler.bias",
        "mistral_model.model.layers.0.self_attn.rotary_emb.inv_freq",
    )
    official = make_vision() | make_heads() | make_random(dict.fromkeys(names, (1,)))
    _, report = convert_state(official, num_blocks=NUM_BLOCKS - 1)
    assert set(report.dropped.values()) == {*DROPPED.values(), ABOVE_FEATURES}


@pytest.mark.parametrize("key", ["visual.blocks.0.norm1.weight", "blocks.0.norm1.weight", "vision_encoder.norm.weight"])
def test_key_with_wrong_prefix_raises(key: str) -> None:
    """``strict=False`` of the official loader would skip it."""
    with pytest.raises(ValueError, match=rf"\b1 keys .*'{key}'"):
        convert_state(STAGE_2 | {key: torch.ones(1)}, num_blocks=NUM_BLOCKS - 1)


def test_checkpoint_without_our_parameters_raises() -> None:
    with pytest.raises(ValueError, match=r"no key .*\['temp'\].*VideoChat2-Mistral"):
        convert_state({"temp": torch.ones(1)})
    with pytest.raises(ValueError, match=r"no key .*\[\].*VideoChat2-Mistral"):
        convert_state({})


def test_incomplete_vision_encoder_raises() -> None:
    with pytest.raises(ValueError, match=r"vision encoder .*\b5 blocks: blocks\.3, blocks\.4 .*missing"):
        convert_state(make_vision(), num_blocks=5)
    state = make_vision()
    del state["vision_encoder.encoder.patch_embed.proj.bias"]
    with pytest.raises(ValueError, match=r"blocks: patch_embed .*missing"):
        convert_state(state, num_blocks=2)


def test_duplicate_parameter_raises() -> None:
    with pytest.raises(ValueError, match=r"encoders\.video\.patch_embed\.weight twice"):
        convert_state(make_vision() | make_vision("encoder."), num_blocks=NUM_BLOCKS - 1)


def test_wrapped_files_are_read(tmp_path: Path) -> None:
    state = make_norm()
    for number, content in enumerate((state, {"model": state, "epoch": 1}, {"module": {"model": state}})):
        torch.save(content, tmp_path / f"{number}.pth")
        loaded = open_checkpoint(tmp_path / f"{number}.pth", wrappers=("model", "module"))
        assert loaded.keys() == state.keys()
        for key, tensor in state.items():
            assert torch.equal(loaded[key], tensor)


def test_invalid_files_raise(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    torch.save({"model": make_norm(), "config": Path("a")}, tmp_path / "objects.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"model": Path("a")}, protocol=2))
    for name in ("objects", "pickle"):
        with pytest.raises(ValueError, match=rf"{name}\.pth .*plain checkpoint.*pickles"):
            open_checkpoint(tmp_path / f"{name}.pth")
    with pytest.raises(ValueError, match="list"):
        open_checkpoint(tmp_path / "list.pth")
