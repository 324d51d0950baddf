"""Names of the folders of variants."""

import pytest

from omnihuman.overrides import parse_overrides
from omnihuman.training.naming import MAX_NAME, name_cell, name_overrides

COMMON = ["+experiment=humanomni_stage1", "data=json", "data.records=/home/me/train.json", "dry_run=true"]
GATE = "fusion@model.fusions.gate"


@pytest.mark.parametrize(
    ("swept", "params", "name"),
    [
        ([f"{GATE}=gate", "seed=1"], {GATE: "gate,sum", "seed": "1,2"}, "fusion@model.fusions.gate=gate,seed=1"),
        (["seed=1", f"{GATE}=gate"], {"seed": "1,2", GATE: "gate,sum"}, "fusion@model.fusions.gate=gate,seed=1"),
        (["++seed=1"], {"++seed": "range(1,3)"}, "seed=1"),
        (["recipe.lr=0.01"], {"recipe.lr": "interval(0.001,0.1)"}, "recipe.lr=0.01"),
        (["size=7b"], {"size": "nano,7b", "+experiment": "a,b"}, None),
        ([], {}, None),
        ([], None, None),
        (["base='/m/runs/b'"], {"base": "'/m/runs/a','/m/runs/b'"}, "base=b"),
        (["data.root=/m/b/train"], {"data.root": "/m/a/train,/m/b/train"}, "data.root=b.train"),
        (["data.root=b/train"], {"data.root": "train,b/train"}, "data.root=b.train"),
        (["data.views=[V, A]"], {"data.views": "[V],[V, A]"}, "data.views=[V,A]"),
    ],
)
def test_a_cell_is_named_after_what_was_swept(
    swept: list[str], params: dict[str, str] | None, name: str | None
) -> None:
    assert name_cell([*COMMON, *swept], params) == name


def test_overrides_of_one_group_at_two_places_are_told_apart() -> None:
    overrides = [f"{GATE}=gate", "fusion@model.fusions.compress=sum"]
    assert name_cell(overrides, {GATE: "gate,sum"}) == "fusion@model.fusions.gate=gate"


def test_a_prefix_tells_sweeps_apart() -> None:
    assert name_cell(["seed=1"], {"seed": "1,2"}, "first") == "first,seed=1"
    assert name_cell([], {}, "first") == "first"


def test_a_long_name_is_cut_and_keeps_a_hash() -> None:
    names = [name_cell([f"tag='{'é' * 90}{end}'"], {"tag": "a,b"}) for end in "ab"]
    assert len(set(names)) == 2 and all(len(str(name).encode()) <= MAX_NAME for name in names)


def test_a_variant_is_named_after_its_overrides() -> None:
    overrides = ["++frames=4", "base=/models/humanomni/", "~model.fusions.gate", "model.drop=[encoders.face]"]
    assert (
        name_overrides(parse_overrides(overrides))
        == "frames=4,base=humanomni,~model.fusions.gate,model.drop=[encoders.face]"
    )
    assert name_overrides([]) is None
