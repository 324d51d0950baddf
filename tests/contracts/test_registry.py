"""The three-way naming: src/omnihuman/<group>/x.py <-> conf/<group>/x*.yaml <-> tests/<group>/test_x.py."""

import importlib
import inspect
from pathlib import Path

import pytest

import omnihuman
from omnihuman.build import compose_config, config_dir

GROUPS = ("encoder", "projector", "fusion", "llm", "metric")
SRC, CONF, TESTS = Path(omnihuman.__file__).parent, Path(config_dir()), Path(__file__).parents[1]


def targets(group: str) -> dict[str, str]:
    """Preset -> the class that it builds."""
    found = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        node = compose_config(["+random_weights=true"], root=f"{group}/{path.stem}")[group]
        found[path.stem] = str(node["_target_"])
    return found


def parts(group: str) -> set[str]:
    """Modules of a group that hold a concrete subclass of what its ``base`` declares."""
    if not (SRC / group / "base.py").is_file():
        return set()
    base = importlib.import_module(f"omnihuman.{group}.base")
    roots = tuple(c for _, c in inspect.getmembers(base, inspect.isabstract) if c.__module__ == base.__name__)
    found = set()
    for path in (SRC / group).glob("*.py"):
        module = importlib.import_module(f"omnihuman.{group}.{path.stem}")
        classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
        if any(issubclass(c, roots) and not inspect.isabstract(c) for c in classes):
            found.add(path.stem)
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_every_yaml_names_its_module_and_class(group: str) -> None:
    for preset, target in targets(group).items():
        package, _, name = target.rpartition(".")
        module = package.removeprefix(f"omnihuman.{group}.")
        assert preset == module or preset.startswith(f"{module}_"), f"{group}/{preset}.yaml builds {target}"
        assert hasattr(importlib.import_module(package), name), target


@pytest.mark.parametrize("group", GROUPS)
def test_every_part_has_a_yaml_and_a_test(group: str) -> None:
    built = {target.split(".")[-2] for target in targets(group).values()}
    assert parts(group) <= built, f"conf/{group} has no yaml for {parts(group) - built}"
    for module in parts(group) | built:
        assert (TESTS / group / f"test_{module}.py").is_file(), f"tests/{group}/test_{module}.py is missing"


@pytest.mark.parametrize("group", GROUPS)
def test_every_test_has_its_module(group: str) -> None:
    for path in (TESTS / group).glob("test_*.py"):
        assert (SRC / group / f"{path.stem.removeprefix('test_')}.py").is_file(), path
