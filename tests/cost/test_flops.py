"""FLOPs of real forward passes, against torch's counter, and computed ones against counted ones."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import omnihuman.llm.packed as packed
from omnihuman.build import PART_GROUPS, build, compose_config
from omnihuman.cost.flops import FlopCounter, FlopModel, PartFlops, describe_batch
from omnihuman.cost.forecast import build_sample
from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import set_trainable
from omnihuman.types import Batch, _map
from tests.llm.test_causal import SIZES, build_llm, draw_samples, pack

MODELS: dict[str, OmniModel] = {}


def build_model(experiment: str) -> OmniModel:
    """Return the nano model of an experiment with what it trains, once."""
    if experiment not in MODELS:
        config = compose_config([f"+experiment={experiment}"])
        model = build(config.model)
        set_trainable(model, dict(OmegaConf.to_container(config.trainable, resolve=True)))  # type: ignore[call-overload]
        MODELS[experiment] = model.train()
    return MODELS[experiment]


def build_batch(model: OmniModel, frames: int = 2, seconds: float = 1.0, answer: int = 5) -> Batch:
    def fill(tensor: Tensor) -> Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor

    return _map(build_sample(model, frames, seconds, 9, answer), fill)


def count(model: OmniModel, batch: Batch) -> dict[str, PartFlops]:
    counter = FlopCounter(model)
    with counter.count():
        model(batch)
    return counter.parts


def count_convolution_gradients(grad: Any, x: Any, weight: Any, *args: Any, **_: Any) -> int:
    """Return the FLOPs of a convolution's gradients; torch's own formula takes a grouped one for a dense one."""
    mask = args[-1]
    out = (x[0], weight[0], *grad[2:])
    return conv_flop_count(list(x), list(weight), list(out)) * sum(mask[:2])


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param("humanomni_stage3", marks=pytest.mark.slow),
        pytest.param("omni_emotion_stage3", marks=pytest.mark.slow),
        "favchat_stage2",
    ],
)
def test_flops_are_those_of_torch(experiment: str) -> None:
    model = build_model(experiment)
    batch = build_batch(model)
    counted = sum(part.training for part in count(model, batch).values())
    mapping: Any = {torch.ops.aten.convolution_backward: count_convolution_gradients}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model(batch).loss.backward()
    config, length = model.llm.model.config, batch.input_ids.shape[1]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    masked = 3 * 2 * length**2 * config.num_hidden_layers * config.num_attention_heads * head_dim
    assert counted == pytest.approx(counter.get_total_flops() - masked, rel=0.001)


def test_frozen_parts_cost_a_third_of_trained_ones() -> None:
    parts = count(model := build_model("favchat_stage2"), build_batch(model))
    assert parts["encoders.video"].backward == 0 < parts["encoders.video"].forward
    assert parts["fusions.moe"].backward == 2 * parts["fusions.moe"].forward
    assert 1 < parts["llm"].backward / parts["llm"].forward < 1.5, "LoRA: gradients pass through the base"


def test_recomputed_and_kernel_attention_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("favchat_stage2")
    batch = build_batch(model)
    llm = count(model, batch)["llm"]

    def run(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *_: Any, **options: Any) -> Tensor:
        return torch.ops.torch_attn._varlen_attn(query, key, value, starts, None, 9, 9)[0]

    library = torch.library.Library("torch_attn", "IMPL", "CPU")
    library.impl("_varlen_attn", lambda q, k, v, *_: (torch.zeros_like(q), q.new_zeros(1), q.new_zeros(1)))
    monkeypatch.setattr(packed, "_is_on_gpu", lambda tensor: tensor.dtype == torch.bfloat16)
    monkeypatch.setattr(packed, "varlen_attn", run)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_kernel = count(model, batch)["llm"]
    assert (by_kernel.forward, by_kernel.backward) == pytest.approx((llm.forward, llm.backward), rel=1e-6)


def test_amounts_are_those_of_valid_samples() -> None:
    model = build_model("favchat_stage2")
    batch = build_batch(model, frames=3)
    amounts = describe_batch(batch)
    assert (amounts["video steps"], amounts["video squares"], amounts["video samples"]) == (3, 9, 1)
    assert amounts["positions"] == batch.input_ids.numel() and amounts["targets"] == 5
    empty = {name: replace(signal, mask=torch.zeros_like(signal.mask)) for name, signal in batch.signals.items()}
    amounts = describe_batch(replace(batch, signals=empty))
    assert (amounts["video steps"], amounts["video blank"]) == (0, 1)


def foretell(amounts: dict[str, float]) -> dict[str, PartFlops]:
    encoder = 5e6 * amounts["video steps"] + 2e5 * amounts["video squares"] + 7e6 * amounts["video blank"]
    llm = 3e6 * amounts["positions"] + 50 * amounts["position squares"] + 1e6 * amounts["targets"]
    return {"encoders.video": PartFlops(encoder, 0), "llm": PartFlops(llm, 2 * llm)}


def test_flops_are_computed_after_some_batches() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw() -> dict[str, float]:
        frames, *lengths, targets = torch.randint(0, 9, (4,), generator=generator).double().tolist()
        squares = sum((100 + 20 * length) ** 2 for length in lengths)
        return {
            "video steps": frames,
            "video squares": frames**2,
            "video blank": float(frames == 0),
            "positions": 200 + 20 * sum(lengths),
            "position squares": squares,
            "targets": targets,
        }

    model, num_counted = FlopModel(), 0
    while not model.is_settled:
        amounts = draw()
        model.observe(amounts, foretell(amounts))
        num_counted += 1
    assert 4 <= num_counted < 20
    for _ in range(20):
        amounts = draw()
        expected = foretell(amounts | {"video blank": 0.0})
        flops = model.compute(amounts)
        assert sum(flops.values()) == pytest.approx(sum(part.training for part in expected.values()), rel=0.02)


def test_batches_that_cannot_be_foretold_are_counted_up_to_a_limit() -> None:
    model = FlopModel(max_counted=10)
    for number in range(10):
        assert not model.is_settled
        model.observe({"positions": 1.0}, {"llm": PartFlops(float(1 + number % 2), 0)})
    assert model.is_settled


def test_compiled_blocks_are_counted_as_others(tokenizer_folder: str) -> None:
    counts = []
    for backend in (None, "eager"):
        llm = build_llm(tokenizer_folder, architecture=SIZES, compile=backend)
        counter = FlopCounter(SimpleNamespace(llm=llm, **{group: {} for group in PART_GROUPS}))  # type: ignore[arg-type]
        with counter.count():
            llm(*pack(draw_samples(llm, 7, 3)))
        counts.append(counter.parts)
    assert counts[0] == counts[1] and counts[0]["llm"].backward > 0
