"""The table: which parameters learn, and at which rate."""

import pytest
import torch
from torch import nn

from omnihuman.model.omni import eval_frozen
from omnihuman.training.trainable import effective_table, set_trainable


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projectors = nn.ModuleDict({"face": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
        self.encoders = nn.ModuleDict({"video": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))})
        self.llm = nn.Linear(2, 2)

    def train(self, mode: bool = True) -> "Parts":
        super().train(mode)
        eval_frozen(self)
        return self


def test_the_first_pattern_that_names_a_parameter_wins() -> None:
    groups = set_trainable(Parts(), {"projectors.face.*": 1e-3, "projectors.*": {"lr": 1e-4, "weight_decay": 0.1}})
    assert [(group.lr, group.weight_decay, len(group.names)) for group in groups] == [(1e-3, None, 2), (1e-4, 0.1, 2)]


def test_what_no_pattern_names_is_frozen_and_in_eval_mode_also_after_train() -> None:
    model = Parts()
    set_trainable(model, {"projectors.face.*": 1e-3})
    model.train()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "projectors.face.weight",
        "projectors.face.bias",
    ]
    assert model.projectors["face"].training
    assert not any(m.training for m in (model.projectors["body"], model.encoders["video"], model.llm))
    assert not model.encoders["video"][1].training  # a frozen part's dropout is off, though it has no parameters


def test_a_part_without_parameters_may_stand_in_the_table() -> None:
    model = Parts()
    model.fusions = nn.ModuleDict({"join": nn.Identity()})
    groups = set_trainable(model, {"fusions.join.*": 1e-3, "projectors.*": 1e-3})
    assert [group.pattern for group in groups] == ["projectors.*"]
    with pytest.raises(ValueError, match="nothing learns"):
        set_trainable(model, {"fusions.*": 1e-3})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"fusions.*": 1e-3}, r"'fusions\.\*' matches no parameter"),
        ({"projector.*": 1e-3}, r"'projector\.\*' matches no parameter.*projectors\.face"),
        ({"projectors.*": 1e-3, "projectors.face.*": 1e-4}, "earlier pattern"),
        ({}, "nothing would learn"),
        ({"llm.*": {"rate": 1e-3}}, "takes lr and weight_decay"),
    ],
)
def test_a_table_that_does_not_hold_is_an_error(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_trainable(Parts(), table)


def test_the_effective_table_has_a_row_a_part() -> None:
    model = Parts()
    rows = effective_table(model, set_trainable(model, {"projectors.face.*": 1e-3}))
    assert ("projectors.face", "Linear", 6, 6, "0.001") in rows and ("llm", "Linear", 6, 0, "frozen") in rows
    assert sum(row[2] for row in rows) == sum(p.numel() for p in model.parameters())


def test_wrappers_do_not_hide_names() -> None:
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"llm": nn.Linear(2, 2)})})
    assert set_trainable(wrapped, {"llm.*": 1.0})[0].names == ("llm.weight", "llm.bias")
    assert torch.is_tensor(wrapped["_orig_mod"]["llm"].weight)


def test_of_a_part_with_lora_only_the_adapters_train() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = Parts()
    model.llm = inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), nn.Sequential(nn.Linear(2, 2)))  # type: ignore[assignment]
    names = [name for group in set_trainable(model, {"llm.*": 1e-3, "projectors.*": 1e-3}) for name in group.names]
    assert [name for name in names if name.startswith("llm")] == [
        "llm.0.lora_A.default.weight",
        "llm.0.lora_B.default.weight",
    ]
    assert "projectors.face.weight" in names and not model.llm[0].base_layer.weight.requires_grad  # type: ignore[index, union-attr]


def test_what_has_no_rate_stays_frozen_and_is_not_taken_by_later_patterns() -> None:
    model = Parts()
    groups = set_trainable(model, {"encoders.*": None, "projectors.face.*": None, "projectors.*": 1e-3})
    assert [group.names for group in groups] == [("projectors.body.weight", "projectors.body.bias")]
    assert not any(parameter.requires_grad for parameter in model.projectors["face"].parameters())
    with pytest.raises(ValueError, match="matches no parameter"):
        set_trainable(model, {"encoder.*": None, "projectors.*": 1e-3})
