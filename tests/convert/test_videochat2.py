"""Every key of VideoChat2's and UMT's checkpoints has its place here, or a reason why not."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnihuman.convert.videochat2 import DROPPED, LAST, from_official, read
from omnihuman.encoder.umt import UMT
from omnihuman.projector.qformer import QFormer

BLOCKS, DIM, WIDTH = 3, 8, 12
"""Blocks of the whole vision encoder, its width and the Q-Former's."""

State = dict[str, Tensor]


def drawn(shapes: dict[str, tuple[int, ...]]) -> State:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def tower(prefix: str = "vision_encoder.encoder.", norm: bool = True) -> State:
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (DIM, 3, 1, 4, 4), "patch_embed.proj.bias": (DIM,)}
    for block in range(BLOCKS if norm else BLOCKS - 1):
        inside = {"norm1": (DIM,), "norm2": (DIM,), "attn.proj": (DIM, DIM), "mlp.fc1": (16, DIM), "mlp.fc2": (DIM, 16)}
        shapes |= {f"blocks.{block}.{name}.weight": shape for name, shape in inside.items()}
        shapes |= {f"blocks.{block}.{name}.bias": shape[:1] for name, shape in inside.items()}
        shapes |= {f"blocks.{block}.attn.{name}": (DIM,) for name in ("q_bias", "v_bias")}
        shapes[f"blocks.{block}.attn.qkv.weight"] = (3 * DIM, DIM)
    shapes |= {"norm.weight": (DIM,), "norm.bias": (DIM,)} if norm else {}
    return drawn({f"{prefix}{name}": shape for name, shape in shapes.items()})


def qformer(has_text: bool) -> State:
    """Two layers under the official names, the first of them looking at the video."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in (0, 1):
        base = f"encoder.layer.{layer}."
        for kind, keys in (("attention", WIDTH), ("crossattention", DIM)):
            if kind == "attention" or layer == 0:
                shapes |= {f"{base}{kind}.self.{name}.weight": (WIDTH, width)
                           for name, width in (("query", WIDTH), ("key", keys), ("value", keys))}  # fmt: skip
                shapes |= {f"{base}{kind}.self.{name}.bias": (WIDTH,) for name in ("query", "key", "value")}
                shapes |= {f"{base}{kind}.output.dense.weight": (WIDTH, WIDTH)}
                shapes |= {f"{base}{kind}.output.{name}": (WIDTH,)
                           for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}  # fmt: skip
        for end in ("", "_query") if has_text else ("_query",):
            shapes |= {
                f"{base}intermediate{end}.dense.weight": (24, WIDTH),
                f"{base}intermediate{end}.dense.bias": (24,),
            }
            shapes |= {f"{base}output{end}.dense.weight": (WIDTH, 24)}
            shapes |= {f"{base}output{end}.{name}": (WIDTH,)
                       for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}  # fmt: skip
    shapes |= {f"embeddings.LayerNorm.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    if has_text:
        shapes |= {
            "embeddings.word_embeddings.weight": (11, WIDTH),
            "embeddings.position_embeddings.weight": (512, WIDTH),
        }
    made = drawn({f"qformer.bert.{name}": shape for name, shape in shapes.items()})
    return made | drawn({"query_tokens": (1, 4, WIDTH), "extra_query_tokens": (1, 6, WIDTH)})


def norm() -> State:
    return drawn({"vision_layernorm.weight": (DIM,), "vision_layernorm.bias": (DIM,)})


def heads() -> State:
    """What only stage 1 has; its vision encoder is frozen and not written."""
    names = ("vision_temp_embed", "vision_proj.weight", "text_proj.bias", "itm_head.weight", "temp",
             "qformer.cls.predictions.bias", "qformer.bert.embeddings.position_ids")  # fmt: skip
    return drawn(dict.fromkeys(names, (1,)))


def lora() -> State:
    base = "mistral_model.base_model.model"
    names = (f"{base}.model.layers.0.self_attn.q_proj.lora_A.default.weight", f"{base}.lm_head.lora_B.default.weight")
    return drawn(dict.fromkeys(names, (2, 2)))


STAGE_2 = (
    tower(norm=False)
    | norm()
    | qformer(False)
    | drawn({"mistral_proj.weight": (20, WIDTH), "mistral_proj.bias": (20,)})
)
STAGE_3 = (
    tower(norm=False) | norm() | qformer(True) | drawn({"mistral_proj.weight": (20, WIDTH), "mistral_proj.bias": (20,)})
)


def under(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def reader(text: bool) -> QFormer:
    return QFormer(
        DIM, 20, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_queries=4,
        extra_queries=6, text=text, vocab_size=11,
    )  # fmt: skip


@pytest.mark.parametrize("before", ["", "module.", "model.", "module.model."])
def test_every_parameter_of_ours_is_there(before: str) -> None:
    """Stage 3, with an instruction to the Q-Former and LoRA on the language model."""
    official = {f"{before}{key}": tensor for key, tensor in (STAGE_3 | lora()).items()}
    ours, report = from_official(official, blocks=BLOCKS - 1)
    encoder = UMT(image_size=8, patch_size=4, hidden_size=DIM, intermediate_size=16, num_hidden_layers=BLOCKS,
                  num_attention_heads=2, table_side=2)  # fmt: skip
    encoder.load_state_dict(under(ours, "encoders.video."))
    reader(text=True).load_state_dict(under(ours, "projectors.general."))
    assert set(under(ours, "llm.model.")) == {
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "lm_head.lora_B.default.weight",
    }
    assert set(report.taken) == set(official) and not report.dropped
    assert all(torch.equal(ours[name], official[key]) for key, name in report.taken.items())


def test_without_text_the_q_former_is_blip_2_s() -> None:
    ours, _ = from_official(STAGE_2, blocks=BLOCKS - 1)
    reader(text=False).load_state_dict(under(ours, "projectors.general."))


def test_stage_1_has_heads_and_no_vision_encoder() -> None:
    ours, report = from_official(norm() | qformer(True) | heads(), blocks=BLOCKS - 1)
    assert set(report.dropped) == set(heads())
    assert {name.split(".")[0] for name in ours} == {"encoders", "projectors"}
    assert len(under(ours, "encoders.")) == 2


@pytest.mark.parametrize("prefix", ["encoder.", "vision_encoder.encoder."])
def test_umt_s_own_files(prefix: str) -> None:
    outside = prefix.removesuffix("encoder.")
    more = {f"{outside}clip_decoder.0.head.weight": (1,), f"{outside}pool_norm.weight": (1,)}
    more |= {"text_encoder.bert.encoder.layer.0.output.dense.weight": (1,)} if outside else {}
    ours, report = from_official(tower(prefix) | drawn(more), blocks=BLOCKS - 1)
    assert set(more) < set(report.dropped)
    last = {key for key, reason in report.dropped.items() if reason == LAST}
    assert len(last) == 13 and all(key.startswith(f"{prefix}blocks.2.") for key in last)
    assert {key for key in report.dropped if key not in more} == last | {f"{prefix}norm.weight", f"{prefix}norm.bias"}
    assert len(ours) == 2 + 13 * (BLOCKS - 1)


def test_every_reason_is_given_somewhere() -> None:
    state = tower() | heads() | drawn(dict.fromkeys((
        "vision_encoder.clip_decoder.0.norm.weight", "vision_encoder.pool_norm.bias", "text_encoder.bert.pooler.bias",
        "mistral_model.model.layers.0.self_attn.rotary_emb.inv_freq"), (1,)))  # fmt: skip
    _, report = from_official(state, blocks=BLOCKS - 1)
    assert set(report.dropped.values()) == {*DROPPED.values(), LAST}


@pytest.mark.parametrize("key", ["visual.blocks.0.norm1.weight", "blocks.0.norm1.weight", "vision_encoder.norm.weight"])
def test_a_key_under_a_wrong_prefix(key: str) -> None:
    """``strict=False`` would leave it out and say so in a log at most."""
    with pytest.raises(ValueError, match=f"1 keys .* the first is '{key}'"):
        from_official(STAGE_2 | {key: torch.ones(1)}, blocks=BLOCKS - 1)


def test_nothing_to_read() -> None:
    with pytest.raises(ValueError, match=r"nothing of the checkpoint .* \['temp'\]"):
        from_official({"temp": torch.ones(1)})
    with pytest.raises(ValueError, match="nothing of the checkpoint"):
        from_official({})


def test_part_of_a_vision_encoder() -> None:
    with pytest.raises(ValueError, match=r"part of a vision encoder of 5 blocks: blocks\.3, blocks\.4 are missing"):
        from_official(tower(), blocks=5)
    whole = tower()
    with pytest.raises(ValueError, match=r"blocks: patch_embed are missing"):
        from_official(
            {key: x for key, x in whole.items() if not key.endswith("proj.bias") or "blocks" in key}, blocks=2
        )


def test_the_same_parameter_twice() -> None:
    with pytest.raises(ValueError, match=r"holds encoders\.video\.patch_embed\.weight twice"):
        from_official(tower() | tower("encoder."), blocks=BLOCKS - 1)


def test_files(tmp_path: Path) -> None:
    state = norm()
    for number, wrapped in enumerate((state, {"model": state, "epoch": 1}, {"module": {"model": state}})):
        torch.save(wrapped, tmp_path / f"{number}.pth")
        made = read(tmp_path / f"{number}.pth")
        assert made.keys() == state.keys() and all(torch.equal(made[key], state[key]) for key in state)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        read(tmp_path / "gone.pth")
    (tmp_path / "text.pth").write_text("version https://git-lfs")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    torch.save({"model": norm(), "config": Path("a")}, tmp_path / "objects.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"model": Path("a")}, protocol=2))
    for name in ("text", "objects", "pickle"):
        with pytest.raises(ValueError, match=f"{name}.pth is no plain checkpoint, other pickles are never read"):
            read(tmp_path / f"{name}.pth")
    with pytest.raises(ValueError, match="holds a list, no names"):
        read(tmp_path / "list.pth")
