"""A model that is built without memory gets the values of one that is built in memory."""

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omnihuman.build import build, compose_config
from omnihuman.nn.deferred import Recording, active_recording

CPU = torch.device("cpu")


class Part(nn.Module):
    """Initializations as parts have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8, padding_idx=0)
        self.conv = nn.Conv2d(3, 8, 2)
        self.norm = nn.LayerNorm(8)
        self.queries = nn.Parameter(torch.randn(4, 8) * 0.02)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.zeros(5), std=0.1))
        self.gate = nn.Parameter(torch.tensor(0.5))
        self.square = nn.Linear(8, 8)
        nn.init.orthogonal_(self.square.weight)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight
        self.overwritten = nn.Linear(8, 8)
        nn.init.normal_(self.overwritten.weight)
        self.positions = nn.Parameter(torch.empty(6))
        with torch.no_grad():
            self.positions.copy_(torch.arange(6).sin())
        self.register_buffer("angles", 1 / 10000 ** (torch.arange(0, 8, 2) / 8))
        self.register_buffer("scale", torch.ones(3))


def build_deferred() -> tuple[nn.Module, Recording]:
    recording = Recording()
    with recording:
        part = Part()
    recording.finish(part)
    return part, recording


def test_values_are_those_of_a_build_in_memory() -> None:
    torch.manual_seed(3)
    expected, state = Part(), torch.get_rng_state()
    torch.manual_seed(3)
    part, recording = build_deferred()
    assert all(parameter.is_meta for parameter in part.parameters()) and active_recording() is None
    assert part.head.weight is part.embed.weight
    for name, buffer in expected.named_buffers():
        assert torch.equal(buffer, part.get_buffer(name))
    parameters = dict(expected.named_parameters())
    values = dict(recording.replay([*parameters], CPU))
    assert values.keys() == parameters.keys()
    assert all(torch.equal(values[name], parameters[name]) for name in parameters)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    for name, value in recording.replay(["queries"], CPU):  # some again, whatever was drawn since
        assert name == "queries" and torch.equal(value, expected.queries)


def test_one_value_is_in_memory_at_a_time() -> None:
    part, recording = build_deferred()
    alive = weakref.WeakSet[Tensor]()
    names = [name for name, _ in part.named_parameters() if name not in ("gate", "positions")]  # which are in memory
    for _, value in recording.replay(names, CPU):
        assert not [tensor for tensor in alive if tensor is not value], "no cycle holds it either"
        alive.add(value)
        del value
    assert not alive


def test_nothing_is_drawn_for_what_a_file_has() -> None:
    part, recording = build_deferred()
    torch.manual_seed(7)
    alone = nn.init.trunc_normal_(torch.zeros(5), std=0.1)
    recording.state = torch.Generator().manual_seed(7).get_state()
    loaded = [name for name, _ in part.named_parameters() if name != "bias"]
    for name in loaded:
        recording.assign(part.get_parameter(name), torch.ones_like(part.get_parameter(name), device="cpu"), "a file")
    recording.forget(loaded)
    values = dict(recording.replay(["bias", "square.weight"], CPU))
    assert torch.equal(values["bias"], alone) and values["square.weight"].unique().tolist() == [1]


def test_value_of_a_file_is_a_map_of_it(tmp_path: Path) -> None:
    part, recording = build_deferred()
    value = torch.ones(8, 3, 2, 2, dtype=torch.bfloat16)
    recording.assign(part.conv.weight, value, "a file")
    replayed = dict(recording.replay(["conv.weight"], CPU))["conv.weight"]
    assert replayed.data_ptr() == value.data_ptr() and replayed.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "experiment",
    [
        "favchat_stage2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("humanomni_stage3", "omni_emotion_stage2")),
    ],
)
def test_every_part_can_be_built_without_memory(experiment: str) -> None:
    """Encoders, projectors, fusions, the language model and LoRA."""
    config = compose_config([f"+experiment={experiment}"]).model
    torch.manual_seed(5)
    expected = build(config)
    torch.manual_seed(5)
    recording = Recording()
    with recording:
        model = build(config)
    recording.finish(model)
    assert all(parameter.is_meta for parameter in model.parameters())
    for name, buffer in expected.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name)), name
    parameters = dict(expected.named_parameters())
    count = 0
    for name, value in recording.replay([*parameters], CPU):
        assert torch.equal(value.to(parameters[name].dtype), parameters[name]), name
        count += 1
    assert count == len(parameters)
