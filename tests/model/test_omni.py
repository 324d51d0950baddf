"""The one model: packing changes nothing, absence is absence, misfits are named."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from omnihuman.build import build, compose_config
from omnihuman.model.omni import OmniModel
from omnihuman.types import IGNORE_INDEX, SLOTS, Batch, Signal

SAMPLES = [{"video": 8, "audio": 24}, {"video": 8}, {"audio": 12}, {"video": 1}, {}]


@pytest.fixture(scope="module")
def model() -> OmniModel:
    torch.manual_seed(0)
    built: OmniModel = build(compose_config(["+experiment=humanomni_stage3"]).model)
    return built.eval()


def made(model: OmniModel, which: list[int]) -> Batch:
    """Some of the samples as one packed row, each the same whatever stands beside it."""
    ids: list[int] = []
    bounds, signals = [0], {"video": [], "audio": [], "instruction": []}
    for index in which:
        sample, generator = SAMPLES[index], torch.Generator().manual_seed(index)
        frames, hops = sample.get("video", 0), sample.get("audio", 0)
        counts = model.layouts({"frames": frames, "waveform": hops * 160})
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
    row = torch.tensor([ids])
    labels = torch.where(row.roll(-1) == 13, row, torch.where(row == 13, row, IGNORE_INDEX))
    positions = torch.cat([torch.arange(b - a) for a, b in itertools.pairwise(bounds)])[None]
    padded = {name: padded_signal(moments, blanks[name]) for name, moments in signals.items()}
    return Batch(padded, row, labels, positions, torch.tensor(bounds), step_targets=1)


def padded_signal(moments: list[torch.Tensor], blank: torch.Tensor) -> Signal:
    longest = max(1, *(len(m) for m in moments))
    values = blank.new_zeros(len(moments), longest, *blank.shape[1:])
    for row, moment in zip(values, moments, strict=True):
        row[: len(moment)] = moment
    lengths = torch.tensor([len(m) for m in moments])
    return Signal(values, torch.arange(longest) < lengths[:, None])


def test_packed_loss_and_gradients_equal_the_samples_one_by_one(model: OmniModel) -> None:
    """Samples that see and hear, only see, only hear, see a still, or neither."""
    model.requires_grad_(True)
    model.zero_grad()
    alone = torch.stack([model(made(model, [index])).loss for index in range(len(SAMPLES))]).sum()
    alone.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    together = model(made(model, list(range(len(SAMPLES)))))
    together.loss.backward()
    torch.testing.assert_close(together.loss, alone, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(
                parameter.grad, expected[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )
    model.zero_grad()


@pytest.mark.parametrize("which", [[2], [3], [4]], ids=["only sound", "only a still", "only text"])
def test_every_trainable_part_takes_part_whatever_a_rank_holds(model: OmniModel, which: list[int]) -> None:
    model.requires_grad_(True)
    model.zero_grad()
    model(made(model, which)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad()


def test_frozen_towers_keep_no_graph(model: OmniModel) -> None:
    model.requires_grad_(False)
    model.projectors.requires_grad_(True)
    seen: list[bool] = []
    hooks = [
        e.register_forward_hook(lambda m, i, o: seen.append(o.tokens.requires_grad)) for e in model.encoders.values()
    ]
    model(made(model, [0])).loss.backward()
    for hook in hooks:
        hook.remove()
    assert seen == [False] * 3
    model.requires_grad_(True)


def test_one_siglip_pass_serves_all_three_branches(model: OmniModel) -> None:
    frames: list[int] = []
    hook = model.encoders["video"].layers[0].register_forward_hook(lambda m, i, o: frames.append(len(i[0])))
    model(made(model, [0, 1, 2, 3]))
    hook.remove()
    assert frames == [17]  # the real frames of all samples, once


def test_layouts_agree_with_the_features(model: OmniModel) -> None:
    output = model(made(model, [0, 1, 2, 3, 4]))
    for slot, stream in output.streams.items():
        counts = stream.mask.flatten(1).sum(1).tolist()
        planned = [
            model.layouts({"frames": s.get("video", 0), "waveform": s.get("audio", 0) * 160})[slot] for s in SAMPLES
        ]
        assert counts == planned


def test_generation_of_a_batch_equals_one_by_one(model: OmniModel) -> None:
    together = model.generate(made(model, [0, 2, 3]), max_new_tokens=6)
    assert together == [model.generate(made(model, [index]), max_new_tokens=6)[0] for index in (0, 2, 3)]


def misfits() -> Iterator[Any]:
    gone = "end nowhere"
    yield pytest.param(["model.drop=[fusions.gate,fusions.compress]"], gone, id="streams without a fusion")
    yield pytest.param(["model.drop=[projectors.audio]"], "add projectors", id="a slot of another width")
    yield pytest.param(["model.drop=[projectors.face]"], "'face'", id="a fusion without its stream")
    yield pytest.param(["model.drop=[projectors.nose]"], r"nose.*face", id="dropping what is not there")
    yield pytest.param(["projector@model.projectors.face=mlp"], "one shape", id="shapes")
    yield pytest.param(["+model.sources.nose=video"], "nose", id="a source for no projector")
    yield pytest.param(["model.sources.face=smell"], r"face.*smell", id="a projector of no stream")


@pytest.mark.parametrize(("overrides", "message"), misfits())
def test_a_misfit_names_what_does_not_fit(overrides: list[str], message: str) -> None:
    config = compose_config(["+experiment=humanomni_stage3", *overrides])
    with pytest.raises(Exception, match=message):
        built = build(config.model)
        built.layouts({"frames": 8, "waveform": 16000})


def test_an_unknown_part_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(Exception, match=r"(?s)projector/perceiver.*stc_videollama2"):
        compose_config(["+experiment=humanomni_stage3", "projector@model.projectors.face=perceiver"])
