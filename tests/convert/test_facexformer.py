"""Every key of FaceXFormer's official checkpoint has its place here, or a reason why not."""

from pathlib import Path

import pytest
import torch

from omnihuman.build import build, compose_part
from omnihuman.convert.facexformer import DROPPED, ENTRY, from_official, read, to_ours
from omnihuman.encoder.facexformer import FaceXFormer

WIDTHS, DEPTHS, HEADS = (128, 256, 512, 1024), (2, 2, 18, 2), (4, 8, 16, 32)


def official() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released encoder, as measured."""
    shapes: dict[str, tuple[int, ...]] = {
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
            key = f"backbone.0.{2 * stage + 1}.{block}"
            shapes |= {f"{key}.{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
            for name, out, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 4, 1), ("mlp.3", 1, 4)):
                shapes |= {f"{key}.{name}.weight": (out * width, into * width), f"{key}.{name}.bias": (out * width,)}
            shapes[f"{key}.attn.relative_position_bias_table"] = (169, heads)
            shapes[f"{key}.attn.relative_position_index"] = (2401,)
        if stage < 3:
            merging = f"backbone.0.{2 * stage + 2}"
            shapes |= {f"{merging}.norm.weight": (4 * width,), f"{merging}.norm.bias": (4 * width,)}
            shapes[f"{merging}.reduction.weight"] = (2 * width, 4 * width)
    return shapes


@pytest.fixture(scope="module")
def real_size() -> FaceXFormer:
    with torch.device("meta"):
        made = build(compose_part("encoder", "facexformer/7b", ["+random_weights=true"]))
    assert isinstance(made, FaceXFormer)
    return made


def test_official_keys_cover_our_parameters(real_size: FaceXFormer) -> None:
    shapes = official()
    assert len(shapes) == 360
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    ours, report = from_official(state)
    parameters = dict(real_size.named_parameters())
    assert {name: tensor.shape for name, tensor in ours.items()} == {key: p.shape for key, p in parameters.items()}
    assert set(report.taken) | set(report.dropped) == set(state)
    # the measured figure has the final norm, which nothing here reads
    count = sum(parameter.numel() for parameter in parameters.values()) + 2 * 1024
    assert round(count / 1e6, 2) == 87.50


def test_heads_and_positions_are_dropped_with_a_reason() -> None:
    extra = (
        "pe_layer.positional_encoding_gaussian_matrix",
        "face_decoder.output_upscaling.0.weight",
        "backbone.1.bias",
    )
    ours, report = from_official(dict.fromkeys((*official(), *extra), torch.zeros(1)))
    assert not any("decoder" in name or "pe_layer" in name for name in ours)
    assert set(report.dropped.values()) == set(DROPPED.values())
    assert all(to_ours(key) is None for key in extra)


def test_values_arrive_where_their_names_say() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(2, generator=generator) for key in official()}
    ours, _ = from_official(state)
    pairs = {
        "backbone.0.0.2.weight": "features.0.2.weight",
        "backbone.0.5.17.attn.relative_position_bias_table": "features.5.17.attn.relative_position_bias_table",
        "backbone.0.4.reduction.weight": "features.4.reduction.weight",
        "linear_c.2.proj.weight": "linears.2.weight",
        "linear_fuse.weight": "fuse.weight",
    }
    assert all(torch.equal(ours[name], state[key]) for key, name in pairs.items())


@pytest.mark.parametrize("key", ["head.weight", "backbone.2.weight", "linear_c.0.weight", "module.linear_fuse.weight"])
def test_a_stranger_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"1 keys of the checkpoint are unknown to FaceXFormer, the first is '{key}'"):
        from_official({key: torch.zeros(1)})


def test_reads_the_entry_of_the_official_file(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({ENTRY: {"linear_fuse.weight": torch.ones(2)}, "epoch": 3}, file)
    assert read(file)["linear_fuse.weight"].tolist() == [1, 1]


def test_what_is_no_official_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        read(tmp_path / "absent.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"has no 'state_dict_backbone', it has \['model'\]"):
        read(tmp_path / "other.pt")
    torch.save({ENTRY: {}, "args": Path("x")}, tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match="other pickles are never read"):
        read(tmp_path / "pickled.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:100])
    with pytest.raises(ValueError, match="no plain checkpoint"):
        read(tmp_path / "cut.pt")
