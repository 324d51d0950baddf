"""Every preset in every slot of every variant: its layout is valid, or this package raises an error with a cure.

``make combinations`` runs a forward pass of each as well.
"""

import importlib.util
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import omnihuman
from omnihuman.build import config_dir

FILE = Path(__file__).parents[2] / "experiments" / "composition" / "combinations.py"
spec = importlib.util.spec_from_file_location("combinations", FILE)
assert spec is not None and spec.loader is not None
combinations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(combinations)

SLOTS = sorted({(swap.variant, swap.group, swap.name) for swap in combinations.list_swaps()})
WIRING = {
    "defaults",
    "_target_",
    "reads",
    "projector_inputs",
    "conditions",
    "early_fusions",
    "fusions",
    "drop",
    "variant",
}
"""Keys of a variant's yaml."""


@pytest.mark.parametrize("variant", combinations.VARIANTS)
def test_variant_yaml_has_wiring_only(variant: str) -> None:
    """An option of a part would remain after the part is replaced."""
    config = OmegaConf.load(Path(config_dir()) / "model" / f"{variant}.yaml")
    assert set(config) <= WIRING and config.variant == variant
    for group in ("early_fusions", "fusions"):
        for name, node in (config.get(group) or {}).items():
            assert set(node) <= set(combinations.WIRING), f"{group}.{name}"


def test_number_of_swaps() -> None:
    assert len(combinations.list_swaps(("humanomni", "omni_emotion", "favchat"))) >= 249


@pytest.fixture(scope="module", autouse=True)
def shared_parts() -> None:
    """Build the parts with weights once, on the CPU."""
    for group in ("encoder", "llm"):
        for preset in combinations.presets(group):
            combinations.build_whole(combinations.part(group, preset))


@pytest.mark.parametrize(("variant", "group", "name"), SLOTS)
def test_every_preset_has_a_valid_layout_or_raises(variant: str, group: str, name: str) -> None:
    swaps = [swap for swap in combinations.list_swaps([variant]) if (swap.group, swap.name) == (group, name)]
    num_models = 0
    for swap in swaps:
        try:
            with torch.device("meta"):
                model = combinations.build_swap(swap)
            counts = model.count_tokens(combinations.AMOUNTS)
        except ValueError as error:
            check_refusal(swap, error)
        else:
            num_models += 1
            assert any(counts.values()), f"{swap}: the slots have no tokens"
    assert num_models, f"{variant}: no preset works as {group}.{name}"


def check_refusal(swap: Any, error: ValueError) -> None:
    """Check that this package raised it, and that it names two sides: streams, parts, slots or fields of a sample."""
    source = traceback.extract_tb(error.__traceback__)[-1].filename
    assert Path(source).is_relative_to(Path(omnihuman.__file__).parent), f"{swap}: raised in {source}"
    config = combinations.variant_config(swap.variant)
    sides = {"video", "audio", "instruction", "frames", "faces", "waveform"}
    for group, presets in combinations.GROUPS.items():
        sides.update(config.get(group) or {})
        for preset in combinations.presets(presets):
            module, _, kind = combinations.part(presets, preset)["_target_"].rpartition(".")
            sides |= {kind, module.rpartition(".")[2]}
    sides_named = [side for side in sides if re.search(rf"\b{side}\b", str(error))]
    assert len(sides_named) >= 2 and ":" in str(error), f"{swap}: {error}"
