"""Forecasts, against counts by hand."""

import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from omnihuman.build import build, compose_config, compose_part
from omnihuman.cost.forecast import Forecast, Forecaster, build_sample
from omnihuman.cost.meter import MetaCounter, measure_call
from omnihuman.llm.causal import CausalLM
from omnihuman.model.trainable import set_trainable
from omnihuman.training.precision import build_precision

HIDDEN, MLP, LAYERS, VOCABULARY = 16, 40, 3, 400
ARCHITECTURE = {
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": MLP,
    "vocab_size": VOCABULARY,
}


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster()


def forecast(forecaster: Forecaster, experiment: str, *overrides: str) -> Forecast:
    return forecaster(compose_config([f"+experiment={experiment}", *overrides], "plan"))


def build_llm(tokenizer_folder: str, mode: str) -> CausalLM:
    """Return a language model on the meta device: ``all`` trainable, ``none``, or ``lora`` alone."""
    adapters = {"r": 2, "target_modules": ["q_proj"]} if mode == "lora" else None
    with torch.device("meta"):
        llm = CausalLM(
            tokenizer_folder, template=compose_part("llm/template", "chatml"), architecture=ARCHITECTURE, lora=adapters
        )
    llm.requires_grad_(mode == "all")
    if mode == "lora":
        set_trainable(llm, {"model.*": 1.0})
    return llm


@pytest.mark.parametrize(
    ("mode", "has_input_gradient", "passes"),
    [("all", False, 3), ("all", True, 3), ("none", False, 1), ("none", True, 2), ("lora", False, 2), ("lora", True, 2)],
)
def test_cost_of_a_language_model_is_the_count_by_hand(
    tokenizer_folder: str, mode: str, has_input_gradient: bool, passes: int
) -> None:
    llm = build_llm(tokenizer_folder, mode)
    length, answer = 50, 6
    labels = torch.full((1, length), -100)
    labels[0, -answer:] = 1
    embeds = torch.empty(1, length, HIDDEN, device="meta", requires_grad=has_input_gradient)
    positions = torch.arange(length)[None]
    meter = MetaCounter()
    with meter:
        cost = measure_call(meter, llm, lambda: llm(embeds, labels, positions, [0, length]), embeds)
    query_and_output, key_and_value, mlp = 2 * HIDDEN * HIDDEN, 2 * HIDDEN * 8, 3 * HIDDEN * MLP
    block = query_and_output + key_and_value + mlp
    adapters = LAYERS * (HIDDEN * 2 + 2 * HIDDEN) if mode == "lora" else 0
    products = 2 * (LAYERS * block + adapters) * length + 2 * HIDDEN * VOCABULARY * answer
    attention = LAYERS * 4 * length * length * HIDDEN // 2
    # older versions of transformers compute the angles of the positions by a product
    assert cost.products - products in (0, 2 * 2 * length) and cost.attention == attention
    parameters = sum(parameter.numel() for parameter in llm.parameters())
    trained_share = {"all": 1.0, "none": 0.0, "lora": adapters / parameters}[mode]
    product_passes = passes + trained_share * (mode == "lora")
    attention_passes = min(3, 2 * passes - 1)
    expected = product_passes * cost.products + attention_passes * attention
    assert cost.training(trained_share) == pytest.approx(expected)


def test_humanomni_7b_fits_together_and_no_weights_are_loaded(
    forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    cost = forecast(forecaster, "humanomni_stage3", "size=7b")
    assert cost.slots == {"video": 3136, "audio": 167}
    assert cost.length == 3136 + 167 + 64 + 16 and cost.packed == 2
    parts = {part.name: part for part in cost.parts}
    assert parts["encoders.video"].shape == (32, 729, 1152) and parts["fusions.compress"].tokens == 3136
    assert parts["llm"].parameters == 7_615_616_512 == parts["llm"].trained
    # a frozen part costs its forward pass; a trained one with recomputed blocks costs four, its head three
    assert parts["encoders.video"].training == parts["encoders.video"].forward
    assert parts["llm"].training / parts["llm"].forward == pytest.approx(4, abs=1e-3)
    assert parts["projectors.face"].training == 3 * parts["projectors.face"].forward
    trained = 4 * sum(part.trained for part in cost.parts)
    frozen = sum(part.parameters - part.trained for part in cost.parts)
    assert trained + 2 * frozen < cost.memory["weights"] < trained + 2.01 * frozen  # vectors are in float32
    assert 3.0e9 < cost.memory["16-bit copies"] < 3.2e9  # of one block of the LLM, its head, and the projectors
    assert (cost.memory["gradients"], cost.memory["AdamW"]) == (trained, 2 * trained)
    assert cost.gib == sum(cost.memory.values()) / 2**30
    assert cost.hours == pytest.approx(cost.training * 100_000 / 300e12 / 3600)


def test_base_of_lora_costs_the_gradients_that_pass_through(forecaster: Forecaster) -> None:
    cost = forecast(forecaster, "favchat_stage2")
    llm = cost.parts[-1]
    assert llm.name == "llm" and 0 < llm.trained < 0.2 * llm.parameters
    assert 2 < llm.training / llm.forward < 2.5
    assert cost.memory["gradients"] == 4 * sum(part.trained for part in cost.parts)


def test_fsdp_shards_everything_but_frozen_encoders(forecaster: Forecaster) -> None:
    overrides = ("trainer=fsdp", "data.batch_size=64")
    one = forecast(forecaster, "humanomni_stage3", *overrides, "devices=1")
    four = forecast(forecaster, "humanomni_stage3", *overrides, "devices=4")
    encoders = 4 * sum(part.parameters for part in one.parts if part.name.startswith("encoders."))
    assert four.memory["weights"] == pytest.approx(encoders + (one.memory["weights"] - encoders) / 4)
    assert four.memory["gradients"] == one.memory["gradients"] / 4
    assert "gathered" in four.memory and "gathered" not in one.memory
    assert four.hours == pytest.approx(one.hours / 4)


def test_ddp_does_not_shard(forecaster: Forecaster) -> None:
    one = forecast(forecaster, "humanomni_stage3")
    four = forecast(forecaster, "humanomni_stage3", "trainer=ddp", "devices=4")
    assert four.memory["weights"] == one.memory["weights"]


def test_cells_share_their_parts(forecaster: Forecaster) -> None:
    first = forecast(forecaster, "humanomni_stage3")
    num_parts, num_costs = len(forecaster._parts), len(forecaster._costs)
    assert forecast(forecaster, "humanomni_stage3") == first
    assert (len(forecaster._parts), len(forecaster._costs)) == (num_parts, num_costs)
    longer = forecast(forecaster, "humanomni_stage3", "text_tokens=60", "answer_tokens=20")
    assert longer.length == first.length and longer.parts[-1].forward > first.parts[-1].forward
    forecast(forecaster, "humanomni_stage3", "projector@model.projectors.face=linear_half")
    assert len(forecaster._parts) == num_parts + 1


def test_slot_without_audio_is_empty(forecaster: Forecaster) -> None:
    silent = forecast(forecaster, "humanomni_stage3", "audio_seconds=0")
    assert silent.slots["audio"] == 0 and silent.slots["video"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.max_tokens=100"], "holds 100"),
        (["projector@model.projectors.face=mlp"], r"gate .*one shape"),
        (["+trainable.nothing=1"], "matches no parameter"),
        (["fusion@model.fusions.gate=slow_fast"], r"slow_fast .*one stream"),
        (["+model.projectors.face.width=3"], "width"),
    ],
)
def test_impossible_config_raises(forecaster: Forecaster, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecast(forecaster, "humanomni_stage3", *overrides)


class PeakMemory(TorchDispatchMode):
    """Adds up the bytes of all storages that exist at the same time.

    Args:
        tensors: that exist already.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.remove, storage._cdata)

    def remove(self, key: int) -> None:
        self.now -= self.sizes.pop(key)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return output


LARGER = (
    "model.llm.architecture={model_type: qwen2, vocab_size: 4096, hidden_size: 384, num_hidden_layers: 6, "
    "num_attention_heads: 8, num_key_value_heads: 2, intermediate_size: 1024, tie_word_embeddings: false}"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "more"),
    [
        ("32-true", ("recipe.activation_checkpointing=false",)),
        ("bf16", ("recipe.activation_checkpointing=false",)),
        ("bf16", ("recipe.activation_checkpointing=true",)),
        ("bf16", ("recipe.activation_checkpointing=true", "model.llm.lora={r: 8, target_modules: all-linear}")),
    ],
)
def test_memory_is_that_of_a_step(forecaster: Forecaster, precision: str, more: tuple[str, ...]) -> None:
    """Gradients come as activations go, so the forecast is somewhat above the peak."""
    overrides = [f"recipe.precision={precision}", "model.llm.weights=null", LARGER, "frames=2", "text_tokens=250"]
    overrides += ["data.batch_size=1", "data.max_tokens=4000", *more]
    config = compose_config(["+experiment=humanomni_stage3", *overrides], "plan")
    model, plugin = build(config.model), build_precision(precision, "cpu")
    set_trainable(model, dict(config.trainable))
    plugin.convert_module(model).train()
    batch = build_sample(model, 2, config.audio_seconds, 250, config.answer_tokens)
    signals = {
        name: replace(signal, values=torch.zeros_like(signal.values, device="cpu"))
        for name, signal in batch.signals.items()
    }
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, foreach=False)
    for parameter in parameters:
        moments = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.ones_like(parameter)}
        optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}
    state = tree_leaves(list(optimizer.state.values()))
    with PeakMemory([*model.parameters(), *state]) as memory:
        with plugin.forward_context():
            loss = model(replace(batch, signals=signals)).loss
        loss.backward()
        optimizer.step()
    expected = sum(forecaster(config).memory.values())
    assert 0.8 * expected < memory.peak < expected
