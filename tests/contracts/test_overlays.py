"""Presets have the values of the papers, overlays what another size changes, and no yaml is without content."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_part, config_dir

CONF = Path(config_dir())
SIZES = {path.stem for path in (CONF / "size").glob("*.yaml")}
TEMPLATES = CONF / "llm" / "template"
"""Chat templates, a group within a group."""
OVERLAYS = sorted({*CONF.glob("*/*/*.yaml")} - {*TEMPLATES.glob("*.yaml")})
FOLDERS = sorted({path.parent for path in OVERLAYS})


def load(path: Path) -> dict[str, Any]:
    """Return a yaml as it is written."""
    config: Any = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(config, dict)
    return config


def flatten(node: Any, key: str = "") -> dict[str, Any]:
    """Return the values of a plain config by their keys: ``architecture.hidden_size``."""
    if not isinstance(node, dict):
        return {key: node}
    values = {}
    for name, child in node.items():
        values |= flatten(child, f"{key}.{name}".removeprefix("."))
    return values


def is_override(entry: Any) -> bool:
    """Return true if an entry of a defaults list changes a choice."""
    return not isinstance(entry, str) and any(str(name).startswith("override ") for name in entry)


def is_alias(config: dict[str, Any]) -> bool:
    """Return true if a config only stands for another one."""
    entries = [entry for entry in config.get("defaults") or () if entry != "_self_"]
    return set(config) <= {"defaults"} and len(entries) <= 1


@pytest.mark.parametrize("defaults", [["7b", "_self_"], ["_self_", {"a@_here_": "${size}"}], []])
def test_alias_is_recognized(defaults: list[Any]) -> None:
    assert is_alias({"defaults": defaults})
    assert not is_alias({"defaults": defaults, "lr": 1})
    assert not is_alias({"defaults": [*defaults, "d", "e"]})


def test_every_yaml_has_content() -> None:
    aliases = [path.relative_to(CONF).as_posix() for path in sorted(CONF.rglob("*.yaml")) if is_alias(load(path))]
    assert not aliases, f"{aliases}: only stand for another file; name that file where they are used"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_preset_ends_with_its_overlay(folder: Path) -> None:
    assert {path.stem for path in folder.iterdir()} <= SIZES, f"{folder} has overlays that are no size"
    defaults = load(folder.with_suffix(".yaml"))["defaults"]
    entries = [entry for entry in defaults if not is_override(entry)]  # Hydra takes overrides at the end only
    assert entries[-1] == {f"optional {folder.name}@_here_": "${size}"}, f"{folder}.yaml: defaults"


def test_every_overlay_has_a_folder() -> None:
    for path in CONF.glob("*/*.yaml"):
        if f"optional {path.stem}@_here_" in path.read_text():
            assert path.with_suffix("").is_dir(), f"{path}: no size changes it; remove the overlay from its defaults"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.relative_to(CONF).with_suffix("").as_posix())
def test_overlay_has_different_values_of_known_keys(path: Path) -> None:
    overlay = load(path)
    group, preset, size = path.relative_to(CONF).with_suffix("").parts
    without: Any = OmegaConf.to_container(compose_part(group, preset, [f"~{group}/{preset}@{group}"], size))
    assert set(overlay) <= set(without), "an overlay adds no keys"
    values = flatten(without)
    same = [key for key, value in flatten(overlay).items() if key in values and values[key] == value]
    assert not same, f"{path} repeats values of {preset}.yaml: {same}"
