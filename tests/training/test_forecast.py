from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from omnihuman.build import compose_config
from omnihuman.llm.causal import CausalLM
from omnihuman.training.forecast import Forecast, Forecaster
from omnihuman.training.meter import OnMeta, measure
from omnihuman.training.trainable import set_trainable


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return Forecaster()


def of(forecaster: Forecaster, experiment: str, *overrides: str) -> Forecast:
    return forecaster(compose_config([f"+experiment={experiment}", *overrides], "plan"))


@pytest.mark.parametrize(
    ("trains", "flows", "passes"),
    [("all", False, 3), ("all", True, 3), ("none", False, 1), ("none", True, 2), ("lora", False, 2), ("lora", True, 2)],
)
def test_a_language_model_costs_what_is_counted_by_hand(
    tokenizer_folder: str, trains: str, flows: bool, passes: int
) -> None:
    sizes = {"model_type": "qwen2", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 40, "vocab_size": 400}  # fmt: skip
    adapters = {"r": 2, "target_modules": ["q_proj"]} if trains == "lora" else None
    with torch.device("meta"):
        llm = CausalLM(tokenizer_folder, architecture=sizes, lora=adapters)
    llm.requires_grad_(trains == "all")
    if trains == "lora":
        set_trainable(llm, {"model.*": 1.0})
    length, answer = 50, 6
    labels = torch.full((1, length), -100)
    labels[0, -answer:] = 1
    embeds = torch.empty(1, length, 16, device="meta", requires_grad=flows)
    meter = OnMeta()
    with meter:
        positions = torch.arange(length)[None]
        reading = measure(meter, llm, lambda: llm(embeds, labels, positions, [0, length]), embeds)
    block = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 40  # q, k and v, o, and the three of the MLP
    added = 3 * (16 * 2 + 2 * 16) if trains == "lora" else 0
    products = 2 * (3 * block + added) * length + 2 * 16 * 400 * answer
    attention = 3 * 4 * length * length * 16 // 2
    # older transformers make the angles of the positions by a product
    assert reading.products - products in (0, 2 * 2 * length) and reading.attention == attention
    parameters = sum(parameter.numel() for parameter in llm.parameters())
    share = {"all": 1.0, "none": 0.0, "lora": added / parameters}[trains]
    passes_of_products = passes + share * (trains == "lora")
    assert reading.training(share) == pytest.approx(
        passes_of_products * reading.products + min(3, 2 * passes - 1) * attention
    )


def test_the_real_humanomni_fits_together_and_nothing_is_read(
    forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    found = of(forecaster, "humanomni_stage3", "size=7b")
    assert found.slots == {"video": 3136, "audio": 167}
    assert found.length == 3136 + 167 + 64 + 16 and found.packed == 2
    parts = {part.name: part for part in found.parts}
    assert parts["encoders.video"].shape == (32, 729, 1152) and parts["fusions.compress"].tokens == 3136
    assert parts["llm"].parameters == 7_615_616_512 == parts["llm"].trained
    # frozen: once; trained, in blocks that are computed again: all but the head four times
    assert parts["encoders.video"].training == parts["encoders.video"].forward
    assert parts["llm"].training / parts["llm"].forward == pytest.approx(4, abs=1e-3)
    assert parts["projectors.face"].training == 3 * parts["projectors.face"].forward
    trained = 4 * sum(part.trained for part in found.parts)
    assert found.memory["weights"] == 4 * sum(part.parameters for part in found.parts)
    assert (found.memory["gradients"], found.memory["AdamW"]) == (trained, 2 * trained)
    assert found.gib == sum(found.memory.values()) / 2**30
    assert found.hours == pytest.approx(found.training * 100_000 / 300e12 / 3600)


def test_with_adapters_the_base_pays_for_gradients_that_pass_through(forecaster: Forecaster) -> None:
    found = of(forecaster, "favchat_stage2")
    llm = found.parts[-1]
    assert llm.name == "llm" and 0 < llm.trained < 0.2 * llm.parameters
    assert 2 < llm.training / llm.forward < 2.5
    assert found.memory["gradients"] == 4 * sum(part.trained for part in found.parts)


def test_shards_hold_a_part_of_all_but_frozen_encoders(forecaster: Forecaster) -> None:
    one, four = (
        of(forecaster, "humanomni_stage3", "trainer=fsdp", f"devices={devices}", "data.batch_size=64")
        for devices in (1, 4)
    )
    encoders = 4 * sum(part.parameters for part in one.parts if part.name.startswith("encoders."))
    assert four.memory["weights"] == pytest.approx(encoders + (one.memory["weights"] - encoders) / 4)
    assert four.memory["gradients"] == one.memory["gradients"] / 4
    assert "gathered" in four.memory and "gathered" not in one.memory
    assert four.hours == pytest.approx(one.hours / 4)
    whole = of(forecaster, "humanomni_stage3", "trainer=ddp", "devices=4", "data.batch_size=64")
    assert whole.memory["weights"] == one.memory["weights"]


def test_parts_are_built_once_for_all_cells(forecaster: Forecaster) -> None:
    first = of(forecaster, "humanomni_stage3")
    built, read = len(forecaster._built), len(forecaster._readings)
    assert of(forecaster, "humanomni_stage3") == first
    assert (len(forecaster._built), len(forecaster._readings)) == (built, read)
    longer = of(forecaster, "humanomni_stage3", "text=60", "answer=20")
    assert longer.length == first.length and longer.parts[-1].forward > first.parts[-1].forward
    of(forecaster, "humanomni_stage3", "projector@model.projectors.face=linear_half")
    assert len(forecaster._built) == built + 1


def test_without_sound_its_slot_is_empty(forecaster: Forecaster) -> None:
    silent = of(forecaster, "humanomni_stage3", "seconds=0")
    assert silent.slots["audio"] == 0 and silent.slots["video"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.max_tokens=100"], "a packed row holds 100"),
        (["projector@model.projectors.face=mlp"], "gate adds streams of one shape"),
        (["+trainable.nothing=1"], "matches no parameter"),
        (["fusion@model.fusions.gate=slow_fast"], "compresses one stream"),
        (["+model.projectors.face.width=3"], "width"),
    ],
)
def test_what_cannot_run_is_refused(forecaster: Forecaster, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(forecaster, "humanomni_stage3", *overrides)
