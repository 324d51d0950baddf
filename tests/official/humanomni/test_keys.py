"""Every key of the released 7B model has our name or a reason to drop it; every parameter of ours has a key."""

from ast import literal_eval
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from omnihuman.build import build, compose_config
from omnihuman.modality import SLOTS
from omnihuman.model.omni import OmniModel
from omnihuman.official.humanomni.keys import ABOVE_FEATURES, DROPPED, convert_state, map_key, map_to_official
from omnihuman.types import Batch, Signal


def read_official_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every key of the released 7B model."""
    shapes = {}
    for line in Path(__file__).with_name("7b_keys.tsv").read_text().splitlines():
        key, shape = line.split("\t")
        shapes[key] = literal_eval(shape)
    return shapes


OFFICIAL = read_official_shapes()


@cache
def build_model(size: str) -> nn.Module:
    with torch.device("meta"):
        model = build(compose_config([f"size={size}", "random_weights=true"]).model)
    assert isinstance(model, nn.Module)
    return model


def shapes_by_name(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def count_millions(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)


@pytest.mark.parametrize("segment", ["vision_model.", ""], ids=["transformers 4 names", "transformers 5 names"])
def test_official_7b_keys_cover_our_parameters(segment: str) -> None:
    official = {}
    for key, shape in OFFICIAL.items():
        official[key.replace("vision_model.", segment)] = torch.empty(shape, device="meta")
    state, report = convert_state(official)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes_by_name(build_model("7b"))
    assert set(report.names) | set(report.dropped) == set(official)
    assert set(report.dropped.values()) == {*DROPPED.values(), ABOVE_FEATURES}
    assert len(report.names) == len(OFFICIAL) - len(report.dropped)


def test_sizes_equal_the_released_ones() -> None:
    for size, stc, face in (("7b", 376.9, 17.0), ("0_5b", 16.6, 1.5)):
        projectors = build_model(size).get_submodule("projectors")
        assert count_millions(projectors.get_submodule("interaction")) == pytest.approx(stc, abs=0.11)
        assert count_millions(projectors.get_submodule("body")) == pytest.approx(stc, abs=0.11)
        assert count_millions(projectors.get_submodule("face")) == face
    gate = shapes_by_name(build_model("0_5b").get_submodule("fusions.gate"))
    assert gate["layers.0.weight"] == (3584, 768)


def test_every_parameter_of_both_sizes_has_an_official_name() -> None:
    for size in ("7b", "0_5b"):
        for name in shapes_by_name(build_model(size)):
            official = map_to_official(name)
            assert official is not None, name
            assert map_key(official) == name


def test_values_follow_their_names() -> None:
    generator = torch.Generator().manual_seed(0)
    last = max(int(key.split(".")[6]) for key in OFFICIAL if ".vision_model.encoder.layers." in key)
    official = {key: torch.randn(2, generator=generator) for key in OFFICIAL}
    state, report = convert_state(official)
    tower = "model.vision_tower.vision_tower.vision_model.encoder.layers"
    names = {
        "model.mm_projector.sampler_video.0.bias": "projectors.interaction.sampler.0.bias",
        "model.mm_projector.s2_body.b4.se.fc2.weight": "projectors.body.s2.b4.se.fc2.weight",
        "model.mm_projector.mlp_2xgelu_face.2.weight": "projectors.face.layers.2.weight",
        "model.audio_projector.0.bias": "projectors.audio.layers.0.bias",
        "model.bert_gate.2.weight": "fusions.gate.layers.2.weight",
        "lm_head.weight": "llm.model.lm_head.weight",
        f"{tower}.{last - 1}.mlp.fc1.bias": f"encoders.video.layers.{last - 1}.mlp.fc1.bias",
    }
    for key, name in names.items():
        assert torch.equal(state[name], official[key])
    assert f"{tower}.{last}.mlp.fc1.bias" in report.dropped
    assert len(state) == len(report.names)


def test_unknown_key_raises() -> None:
    with pytest.raises(ValueError, match=r"1 keys .* 'model\.resampler\.query'"):
        convert_state({"model.norm.weight": torch.ones(1), "model.resampler.query": torch.ones(1)})


def test_number_of_tokens_of_both_sizes() -> None:
    """Counts are known before any media is decoded."""
    seven, half = build_model("7b"), build_model("0_5b")
    assert isinstance(seven, OmniModel) and isinstance(half, OmniModel)
    assert seven.count_tokens({"frames": 32, "waveform": 480_000}) == {"video": 3136, "audio": 500}
    assert half.count_tokens({"frames": 8}) == {"video": 392, "audio": 0}


def build_nano() -> OmniModel:
    model = build(compose_config(["size=nano"]).model)
    assert isinstance(model, OmniModel)
    return model.eval()


def make_batch(model: OmniModel) -> Batch:
    """One sample with frames, audio and text."""
    layouts = model.count_tokens({"frames": 2, "waveform": 9600})
    random = torch.Generator().manual_seed(0)
    fields = {
        "frames": torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8, generator=random),
        "waveform": torch.rand(9600, generator=random) - 0.5,
        "instruction": "what does the person feel?",
    }
    signals = {name: transform(fields[reads])[None] for name, (reads, transform) in model.transforms.items()}
    ids = [5, *[SLOTS["video"]] * layouts["video"], *[SLOTS["audio"]] * layouts["audio"], 6, 7]
    return Batch(
        signals={name: Signal(x, torch.ones(x.shape[:2], dtype=torch.bool)) for name, x in signals.items()},
        input_ids=torch.tensor([ids]),
        labels=torch.tensor([[-100] * (len(ids) - 1) + [7]]),
        position_ids=torch.arange(len(ids))[None],
        bounds=(0, len(ids)),
        step_targets=1,
    )


@torch.no_grad()
@pytest.mark.parametrize("is_complete", [True, False], ids=["official checkpoint", "our export"])
def test_round_trip_keeps_the_loss(is_complete: bool) -> None:
    """Weights under the official names give the same model again."""
    source, copy = build_nano(), build_nano()
    for parameter in copy.parameters():
        parameter.add_(0.1)
    official = {str(map_to_official(name)): tensor for name, tensor in source.state_dict().items()}
    if is_complete:
        official |= make_unread_keys(source, official)
    state, report = convert_state(official)
    assert bool(report.dropped) == is_complete
    batch = make_batch(source)
    before = source(batch)
    assert not torch.allclose(copy(batch).loss, before.loss)
    copy.load_state_dict(state, strict=True)
    after = copy(batch)
    assert torch.equal(after.loss, before.loss)
    for slot, stream in before.streams.items():
        assert torch.equal(after.streams[slot].tokens, stream.tokens)


def make_unread_keys(model: OmniModel, official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The last block, the final norm and the head of the vision tower, which an official checkpoint has."""
    tower = "model.vision_tower.vision_tower.vision_model"
    blocks = len(model.encoders["video"].layers)  # type: ignore[arg-type]
    last = f"{tower}.encoder.layers.{blocks - 1}."
    keys = {f"{tower}.post_layernorm.bias": torch.zeros(1), f"{tower}.head.probe": torch.zeros(1)}
    for key, tensor in official.items():
        if key.startswith(last):
            keys[key.replace(last, f"{tower}.encoder.layers.{blocks}.")] = tensor
    return keys
