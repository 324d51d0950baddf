"""The one model: packing changes nothing, absent modalities are absent, bad wiring raises."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from omnihuman.build import build, compose_config
from omnihuman.modality import SLOTS
from omnihuman.model.omni import OmniModel
from omnihuman.types import IGNORE_INDEX, Batch, Signal

SAMPLES = [{"video": 8, "audio": 24}, {"video": 8}, {"audio": 12}, {"video": 1}, {}]
"""Frames and mel hops of each sample."""
ALL = list(range(len(SAMPLES)))


@pytest.fixture(scope="module")
def model() -> OmniModel:
    torch.manual_seed(0)
    built: OmniModel = build(compose_config(["+experiment=humanomni_stage3"]).model)
    return built.eval()


def count_tokens(model: OmniModel, index: int) -> dict[str, int]:
    sample = SAMPLES[index]
    return model.count_tokens({"frames": sample.get("video", 0), "waveform": sample.get("audio", 0) * 160})


def make_batch(model: OmniModel, indices: list[int]) -> Batch:
    """Pack samples, each with the same values in any batch."""
    ids: list[int] = []
    bounds, signals = [0], {"video": [], "audio": [], "instruction": []}
    for index in indices:
        sample, generator = SAMPLES[index], torch.Generator().manual_seed(index)
        frames, hops = sample.get("video", 0), sample.get("audio", 0)
        counts = count_tokens(model, index)
        ids += [5, *[SLOTS["video"]] * counts["video"], 6, *[SLOTS["audio"]] * counts["audio"], 7 + index, 9, 11, 13]
        bounds.append(len(ids))
        signals["video"].append(torch.randint(0, 256, (frames, 3, 112, 112), generator=generator, dtype=torch.uint8))
        signals["audio"].append(torch.randn(hops, 80, generator=generator))
        signals["instruction"].append(torch.randint(10, 50, (4 + index,), generator=generator))
    blanks = {
        "video": torch.zeros(1, 3, 112, 112, dtype=torch.uint8),
        "audio": torch.zeros(1, 80),
        "instruction": torch.zeros(1, dtype=torch.long),
    }
    packed = torch.tensor([ids])
    labels = torch.where((packed == 13) | (packed.roll(-1) == 13), packed, IGNORE_INDEX)
    positions = torch.cat([torch.arange(end - start) for start, end in itertools.pairwise(bounds)])[None]
    padded = {name: pad_signal(values, blanks[name]) for name, values in signals.items()}
    return Batch(padded, packed, labels, positions, tuple(bounds), step_targets=1)


def pad_signal(samples: list[torch.Tensor], blank: torch.Tensor) -> Signal:
    lengths = torch.tensor([len(sample) for sample in samples])
    longest = max(1, int(lengths.max()))
    values = blank.new_zeros(len(samples), longest, *blank.shape[1:])
    for padded, sample in zip(values, samples, strict=True):
        padded[: len(sample)] = sample
    return Signal(values, torch.arange(longest) < lengths[:, None])


def test_packed_loss_and_gradients_equal_the_samples_one_by_one(model: OmniModel) -> None:
    """Samples with video and audio, video, audio, a single frame, and text alone."""
    model.requires_grad_(True)
    model.zero_grad()
    alone = torch.stack([model(make_batch(model, [index])).loss for index in ALL]).sum()
    alone.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    packed = model(make_batch(model, ALL))
    packed.loss.backward()
    torch.testing.assert_close(packed.loss, alone, atol=1e-5, rtol=1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if name in expected}
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-4)
    model.zero_grad()


@pytest.mark.parametrize("indices", [[2], [3], [4]], ids=["audio alone", "a single frame", "text alone"])
def test_every_trainable_part_takes_part_in_every_batch(model: OmniModel, indices: list[int]) -> None:
    model.requires_grad_(True)
    model.zero_grad()
    model(make_batch(model, indices)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad()


def test_frozen_encoders_keep_no_graph(model: OmniModel) -> None:
    model.requires_grad_(False)
    model.projectors.requires_grad_(True)
    flags: list[bool] = []
    hooks = []
    for encoder in model.encoders.values():
        hooks.append(encoder.register_forward_hook(lambda m, i, output: flags.append(output.tokens.requires_grad)))
    model(make_batch(model, [0])).loss.backward()
    for hook in hooks:
        hook.remove()
    assert flags == [False] * 3
    model.requires_grad_(True)


def test_one_siglip_pass_serves_all_three_branches(model: OmniModel) -> None:
    frames: list[int] = []
    hook = model.encoders["video"].layers[0].register_forward_hook(lambda m, i, o: frames.append(len(i[0])))
    model(make_batch(model, [0, 1, 2, 3]))
    hook.remove()
    assert frames == [17]  # the valid frames of all samples, once


def test_layouts_agree_with_the_features(model: OmniModel) -> None:
    output = model(make_batch(model, ALL))
    for slot, stream in output.streams.items():
        assert stream.mask.flatten(1).sum(1).tolist() == [count_tokens(model, index)[slot] for index in ALL]


def test_selected_parts_fill_the_slot(model: OmniModel) -> None:
    assert model.select_parts({"audio"}) == {"encoders.audio", "projectors.audio"}
    parts = model.select_parts({"video"})
    assert {"encoders.video", "encoders.instruction", "projectors.body", "fusions.gate", "fusions.compress"} < parts
    assert not parts & {"encoders.audio", "projectors.audio"}


def test_generation_of_a_batch_equals_one_by_one(model: OmniModel) -> None:
    answers = model.generate(make_batch(model, [0, 2, 3]), max_new_tokens=6)
    assert answers == [model.generate(make_batch(model, [index]), max_new_tokens=6)[0] for index in (0, 2, 3)]


def bad_wirings() -> Iterator[Any]:
    unused = "end nowhere"
    yield pytest.param(["model.drop=[fusions.gate,fusions.compress]"], unused, id="streams without a fusion")
    yield pytest.param(["model.drop=[projectors.audio]"], "add projectors", id="a slot of another width")
    yield pytest.param(["model.drop=[projectors.face]"], "'face'", id="a fusion without its stream")
    yield pytest.param(["model.drop=[projectors.nose]"], r"nose.*face", id="dropping an unknown part")
    yield pytest.param(["projector@model.projectors.face=mlp"], r"fusions\.gate: .*one shape", id="layouts")
    yield pytest.param(["+model.projector_inputs.nose=video"], "nose", id="an input of an unknown projector")
    yield pytest.param(["model.projector_inputs.face=smell"], r"face.*smell", id="an unknown input")
    yield pytest.param(
        ["+model.reads.video=faces", "encoder@model.encoders.video=whisper"], "'video' to faces", id="field"
    )
    yield pytest.param(["+model.reads.nose=faces"], r"unknown encoders.*nose", id="a field for an unknown encoder")
    yield pytest.param(["encoder@model.encoders.audio=siglip"], "<audio> stands for waveform", id="a slot's field")
    yield pytest.param(["+model.conditions={face: instruction}"], "MLPProjector .*no condition", id="a condition")
    yield pytest.param(["projector@model.projectors.face=qformer_favchat_text"], "needs a condition", id="no condition")


@pytest.mark.parametrize(("overrides", "message"), bad_wirings())
def test_bad_wiring_names_both_sides(overrides: list[str], message: str) -> None:
    config = compose_config(["+experiment=humanomni_stage3", *overrides])
    with pytest.raises(Exception, match=message):
        build(config.model).count_tokens({"frames": 8, "waveform": 16000})


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(Exception, match=r"(?s)projector/perceiver.*stc_videollama2"):
        compose_config(["+experiment=humanomni_stage3", "projector@model.projectors.face=perceiver"])
