"""Every key of FaceXFormer's official checkpoint has our name, or a reason why it is dropped."""

import pytest
import torch

from omnihuman.build import build, compose_part
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.official.facexformer.keys import DROPPED, convert_state, map_key

WIDTHS, DEPTHS, HEADS = (128, 256, 512, 1024), (2, 2, 18, 2), (4, 8, 16, 32)

Shapes = dict[str, tuple[int, ...]]


def official_shapes() -> Shapes:
    """Names and shapes of the released encoder, as measured."""
    shapes: Shapes = {
        "backbone.0.0.0.weight": (128, 3, 4, 4),
        "backbone.0.0.0.bias": (128,),
        "backbone.0.0.2.weight": (128,),
        "backbone.0.0.2.bias": (128,),
        "backbone.1.weight": (1024,),
        "backbone.1.bias": (1024,),
        "linear_fuse.weight": (256, 1024, 1, 1),
    }
    for stage, (width, depth, heads) in enumerate(zip(WIDTHS, DEPTHS, HEADS, strict=True)):
        shapes |= {f"linear_c.{stage}.proj.weight": (256, width), f"linear_c.{stage}.proj.bias": (256,)}
        for block in range(depth):
            shapes |= block_shapes(f"backbone.0.{2 * stage + 1}.{block}", width, heads)
        if stage < 3:
            merging = f"backbone.0.{2 * stage + 2}"
            shapes |= {f"{merging}.norm.weight": (4 * width,), f"{merging}.norm.bias": (4 * width,)}
            shapes[f"{merging}.reduction.weight"] = (2 * width, 4 * width)
    return shapes


def block_shapes(prefix: str, width: int, heads: int) -> Shapes:
    shapes: Shapes = {
        f"{prefix}.attn.relative_position_bias_table": (169, heads),
        f"{prefix}.attn.relative_position_index": (2401,),
    }
    for norm in ("norm1", "norm2"):
        shapes |= {f"{prefix}.{norm}.weight": (width,), f"{prefix}.{norm}.bias": (width,)}
    for name, outputs, inputs in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 4, 1), ("mlp.3", 1, 4)):
        shapes[f"{prefix}.{name}.weight"] = (outputs * width, inputs * width)
        shapes[f"{prefix}.{name}.bias"] = (outputs * width,)
    return shapes


@pytest.fixture(scope="module")
def released_encoder() -> FaceXFormer:
    with torch.device("meta"):
        encoder = build(compose_part("encoder", "facexformer", ["+random_weights=true"], "7b"))
    assert isinstance(encoder, FaceXFormer)
    return encoder


def test_official_keys_cover_our_parameters(released_encoder: FaceXFormer) -> None:
    shapes = official_shapes()
    assert len(shapes) == 360
    official = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    state, report = convert_state(official)
    parameters = dict(released_encoder.named_parameters())
    assert state.keys() == parameters.keys()
    for name, tensor in state.items():
        assert tensor.shape == parameters[name].shape
    assert set(report.names) | set(report.dropped) == set(official)
    # The released count includes the final norm, which we do not read.
    count = sum(parameter.numel() for parameter in parameters.values()) + 2 * 1024
    assert round(count / 1e6, 2) == 87.50


def test_heads_and_positions_are_dropped_with_a_reason() -> None:
    extra = (
        "pe_layer.positional_encoding_gaussian_matrix",
        "face_decoder.output_upscaling.0.weight",
        "backbone.1.bias",
    )
    state, report = convert_state(dict.fromkeys((*official_shapes(), *extra), torch.zeros(1)))
    assert not any("decoder" in name or "pe_layer" in name for name in state)
    assert set(report.dropped.values()) == set(DROPPED.values())
    for key in extra:
        assert map_key(key) is None


def test_values_follow_their_names() -> None:
    generator = torch.Generator().manual_seed(0)
    official = {key: torch.randn(2, generator=generator) for key in official_shapes()}
    state, _ = convert_state(official)
    names = {
        "backbone.0.0.2.weight": "features.0.2.weight",
        "backbone.0.5.17.attn.relative_position_bias_table": "features.5.17.attn.relative_position_bias_table",
        "backbone.0.4.reduction.weight": "features.4.reduction.weight",
        "linear_c.2.proj.weight": "linears.2.weight",
        "linear_fuse.weight": "fuse.weight",
    }
    for key, name in names.items():
        assert torch.equal(state[name], official[key])


@pytest.mark.parametrize("key", ["head.weight", "backbone.2.weight", "linear_c.0.weight", "module.linear_fuse.weight"])
def test_unknown_key_raises(key: str) -> None:
    with pytest.raises(ValueError, match=rf"FaceXFormer.*'{key}'"):
        convert_state({key: torch.zeros(1)})
