"""Every key of the released 7B model has its place here, or a reason why not; every parameter here has its key."""

from ast import literal_eval
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from omnihuman.build import build, compose_config
from omnihuman.convert.humanomni import DROPPED, LAST, from_official, to_official, to_ours
from omnihuman.model.omni import OmniModel
from omnihuman.types import SLOTS, Batch, Signal

OFFICIAL: dict[str, tuple[int, ...]] = {
    key: literal_eval(shape)
    for key, shape in (
        line.split("\t") for line in Path(__file__).with_name("humanomni_7b_keys.tsv").read_text().splitlines()
    )
}


@cache
def model(size: str) -> nn.Module:
    with torch.device("meta"):
        built = build(compose_config([f"size={size}", "random_weights=true"]).model)
    assert isinstance(built, nn.Module)
    return built


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def millions(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)


@pytest.mark.parametrize("segment", ["vision_model.", ""], ids=["transformers 4 names", "transformers 5 names"])
def test_official_7b_keys_cover_our_parameters(segment: str) -> None:
    state = {
        key.replace("vision_model.", segment): torch.empty(shape, device="meta") for key, shape in OFFICIAL.items()
    }
    ours, report = from_official(state)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == shapes(model("7b"))
    assert set(report.taken) | set(report.dropped) == set(state)
    assert set(report.dropped.values()) == {*DROPPED.values(), LAST}
    assert len(report.taken) == len(OFFICIAL) - len(report.dropped)


def test_sizes_are_the_released_ones() -> None:
    for size, stc, face in (("7b", 376.9, 17.0), ("0_5b", 16.6, 1.5)):
        projectors = model(size).get_submodule("projectors")
        assert millions(projectors.get_submodule("interaction")) == pytest.approx(stc, abs=0.11)
        assert millions(projectors.get_submodule("body")) == pytest.approx(stc, abs=0.11)
        assert millions(projectors.get_submodule("face")) == face
    gate = shapes(model("0_5b").get_submodule("fusions.gate"))
    assert gate["layers.0.weight"] == (3584, 768)


def test_every_parameter_of_both_sizes_has_an_official_name() -> None:
    for size in ("7b", "0_5b"):
        for name in shapes(model(size)):
            official = to_official(name)
            assert official is not None, name
            assert to_ours(official) == name


def test_values_arrive_where_their_names_say() -> None:
    generator = torch.Generator().manual_seed(0)
    last = max(int(key.split(".")[6]) for key in OFFICIAL if ".vision_model.encoder.layers." in key)
    state = {key: torch.randn(2, generator=generator) for key in OFFICIAL}
    ours, report = from_official(state)
    tower = "model.vision_tower.vision_tower.vision_model.encoder.layers"
    pairs = {
        "model.mm_projector.sampler_video.0.bias": "projectors.interaction.sampler.0.bias",
        "model.mm_projector.s2_body.b4.se.fc2.weight": "projectors.body.s2.b4.se.fc2.weight",
        "model.mm_projector.mlp_2xgelu_face.2.weight": "projectors.face.layers.2.weight",
        "model.audio_projector.0.bias": "projectors.audio.layers.0.bias",
        "model.bert_gate.2.weight": "fusions.gate.layers.2.weight",
        "lm_head.weight": "llm.model.lm_head.weight",
        f"{tower}.{last - 1}.mlp.fc1.bias": f"encoders.video.layers.{last - 1}.mlp.fc1.bias",
    }
    for official, name in pairs.items():
        assert torch.equal(ours[name], state[official])
    assert f"{tower}.{last}.mlp.fc1.bias" in report.dropped
    assert len(ours) == len(report.taken)


def test_foreign_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 keys .* 'model\.resampler\.query'"):
        from_official({"model.norm.weight": torch.ones(1), "model.resampler.query": torch.ones(1)})


def test_tokens_of_both_sizes() -> None:
    """Planned from headers, before any media is decoded."""
    seven, half = model("7b"), model("0_5b")
    assert isinstance(seven, OmniModel) and isinstance(half, OmniModel)
    assert seven.layouts({"frames": 32, "waveform": 480_000}) == {"video": 3136, "audio": 500}
    assert half.layouts({"frames": 8}) == {"video": 392, "audio": 0}


def nano() -> OmniModel:
    made = build(compose_config(["size=nano"]).model)
    assert isinstance(made, OmniModel)
    return made.eval()


def batch(built: OmniModel) -> Batch:
    """One sample with a picture, sound and words."""
    layouts = built.layouts({"frames": 2, "waveform": 9600})
    random = torch.Generator().manual_seed(0)
    fields = {
        "frames": torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8, generator=random),
        "waveform": torch.rand(9600, generator=random) - 0.5,
        "instruction": "what does the person feel?",
    }
    signals = {name: transform(fields[reads])[None] for name, (reads, transform) in built.transforms.items()}
    ids = [5, *[SLOTS["video"]] * layouts["video"], *[SLOTS["audio"]] * layouts["audio"], 6, 7]
    return Batch(
        signals={name: Signal(x, torch.ones(x.shape[:2], dtype=torch.bool)) for name, x in signals.items()},
        input_ids=torch.tensor([ids]),
        labels=torch.tensor([[-100] * (len(ids) - 1) + [7]]),
        position_ids=torch.arange(len(ids))[None],
        bounds=torch.tensor([0, len(ids)]),
        step_targets=1,
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "whole", [True, False], ids=["with what the official model carries besides", "as written by us"]
)
def test_there_and_back(whole: bool) -> None:
    """Weights written under the official names make the same model again."""
    source, copy = nano(), nano()
    for parameter in copy.parameters():
        parameter.add_(0.1)
    official = {str(to_official(name)): tensor for name, tensor in source.state_dict().items()}
    if whole:
        tower = "model.vision_tower.vision_tower.vision_model"
        blocks = len(source.encoders["video"].layers)  # type: ignore[arg-type]
        block = f"{tower}.encoder.layers.{blocks - 1}."
        official |= {key.replace(block, f"{tower}.encoder.layers.{blocks}."): x for key, x in official.items()}
        official |= {f"{tower}.post_layernorm.bias": torch.zeros(1), f"{tower}.head.probe": torch.zeros(1)}
    ours, report = from_official(official)
    assert bool(report.dropped) == whole
    given = batch(source)
    before = source(given)
    assert not torch.allclose(copy(given).loss, before.loss)
    copy.load_state_dict(ours, strict=True)
    after = copy(given)
    assert torch.equal(after.loss, before.loss)
    for slot, stream in before.streams.items():
        assert torch.equal(after.streams[slot].tokens, stream.tokens)
