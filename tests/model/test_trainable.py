"""The table of trainable parameters and their learning rates."""

import pytest
import torch
from torch import nn

from omnihuman.model.omni import eval_frozen
from omnihuman.model.trainable import PartRow, effective_table, set_trainable


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


def test_first_matching_pattern_counts() -> None:
    groups = set_trainable(Parts(), {"projectors.face.*": 1e-3, "projectors.*": {"lr": 1e-4, "weight_decay": 0.1}})
    assert [(group.lr, group.weight_decay, len(group.names)) for group in groups] == [(1e-3, None, 2), (1e-4, 0.1, 2)]


def test_other_parts_are_frozen_and_in_eval_mode_after_train() -> None:
    model = Parts()
    set_trainable(model, {"projectors.face.*": 1e-3})
    model.train()
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable == ["projectors.face.weight", "projectors.face.bias"]
    assert model.projectors["face"].training
    for frozen in (model.projectors["body"], model.encoders["video"], model.llm):
        assert not frozen.training
    assert not model.encoders["video"][1].training  # the dropout of a frozen part, though it has no parameters


def test_pattern_of_a_part_without_parameters_is_allowed() -> None:
    model = Parts()
    model.fusions = nn.ModuleDict({"join": nn.Identity()})
    groups = set_trainable(model, {"fusions.join.*": 1e-3, "projectors.*": 1e-3})
    assert [group.pattern for group in groups] == ["projectors.*"]
    with pytest.raises(ValueError, match=r"trainable: .*only frozen"):
        set_trainable(model, {"fusions.*": 1e-3})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"fusions.*": 1e-3}, r"'fusions\.\*' matches no parameter"),
        ({"projector.*": 1e-3}, r"'projector\.\*' matches no parameter.*projectors\.face"),
        ({"projectors.*": 1e-3, "projectors.face.*": 1e-4}, "earlier pattern"),
        ({}, r"`trainable` .*empty"),
        ({"llm.*": {"rate": 1e-3}}, r"\blr and.* weight_decay"),
        ({"llm.*": {"lr": 1e-3, "rate": 1e-3}}, r"\blr and.* weight_decay"),
    ],
)
def test_invalid_table_raises(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_trainable(Parts(), table)


def test_effective_table_has_a_row_for_each_part() -> None:
    model = Parts()
    rows = effective_table(model, set_trainable(model, {"projectors.face.*": 1e-3}))
    assert PartRow("projectors.face", "Linear", 6, 6, ["0.001"]) in rows
    assert PartRow("llm", "Linear", 6, 0, []) in rows
    assert [row.rate for row in rows if row.part == "llm"] == ["frozen"]
    assert sum(row.num_parameters for row in rows) == sum(p.numel() for p in model.parameters())


def test_wrappers_are_not_part_of_names() -> None:
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"llm": nn.Linear(2, 2)})})
    assert set_trainable(wrapped, {"llm.*": 1.0})[0].names == ("llm.weight", "llm.bias")


def test_lora_part_trains_its_adapters_alone() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = Parts()
    adapted = inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), nn.Sequential(nn.Linear(2, 2)))
    model.llm = adapted  # type: ignore[assignment]
    llm, projectors = set_trainable(model, {"llm.*": 1e-3, "projectors.*": 1e-3})
    assert llm.names == ("llm.0.lora_A.default.weight", "llm.0.lora_B.default.weight")
    assert "projectors.face.weight" in projectors.names
    assert not adapted[0].base_layer.weight.requires_grad


def test_pattern_without_a_rate_freezes_its_parameters() -> None:
    model = Parts()
    groups = set_trainable(model, {"encoders.*": None, "projectors.face.*": None, "projectors.*": 1e-3})
    assert [group.names for group in groups] == [("projectors.body.weight", "projectors.body.bias")]
    assert not any(parameter.requires_grad for parameter in model.projectors["face"].parameters())
    with pytest.raises(ValueError, match="matches no parameter"):
        set_trainable(model, {"encoder.*": None, "projectors.*": 1e-3})


def test_gradients_reach_the_trainable_part_alone() -> None:
    model = Parts()
    set_trainable(model, {"llm.*": 1e-3})
    model.llm(model.projectors["face"](torch.ones(2))).sum().backward()
    assert model.llm.weight.grad is not None and model.projectors["face"].weight.grad is None
