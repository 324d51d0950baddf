"""The registry: src/omnihuman/<group>/x.py <-> conf/<group>/x*.yaml <-> tests/<group>/test_x.py."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import omnihuman
from omnihuman.build import config_dir

GROUPS = (
    "encoder",
    "projector",
    "fusion",
    "llm",
    "model",
    "data",
    "source",
    "metric",
    "benchmark",
    "objective",
    "operator",
)
"""Groups of parts, each with a package of the same name."""
ONE_CLASS = {"model": "omni", "data": "module"}
"""Groups whose yamls are variants of one class, and the module of that class."""
SRC, CONF, TESTS = Path(omnihuman.__file__).parent, Path(config_dir()), Path(__file__).parents[1]

every_group = pytest.mark.parametrize("group", GROUPS)


def read_target(path: Path) -> str:
    """Return the class that a yaml builds, its own or that of the yaml that it extends."""
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    if "_target_" in config:
        return str(config["_target_"])
    base = next(name for name in config.defaults if isinstance(name, str) and name != "_self_")
    return read_target(path.with_name(f"{base}.yaml"))


def read_targets(group: str) -> dict[str, str]:
    """Return the class of each preset."""
    paths = sorted((CONF / group).glob("*.yaml"))
    assert paths, f"conf/{group} is empty"
    return {path.stem: read_target(path) for path in paths}


def list_modules(group: str) -> set[str]:
    """Return the modules with a concrete subclass of a class in the group's ``base``, or with the group's one class."""
    if group in ONE_CLASS:
        return {ONE_CLASS[group]}
    if not (SRC / group / "base.py").is_file():
        return {module_name(name) for name in read_targets(group).values()}
    base = importlib.import_module(f"omnihuman.{group}.base")
    roots = tuple(kind for _, kind in inspect.getmembers(base, inspect.isabstract) if kind.__module__ == base.__name__)
    assert roots, base
    modules = set()
    for path in (SRC / group).glob("*.py"):
        module = importlib.import_module(f"omnihuman.{group}.{path.stem}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            is_part = issubclass(kind, roots) and not inspect.isabstract(kind)
            if is_part and kind.__module__ == module.__name__:
                modules.add(path.stem)
    return modules


def module_name(target: str) -> str:
    """Return the last part of the module of a class."""
    return target.split(".")[-2]


@every_group
def test_every_yaml_builds_a_class_of_its_package(group: str) -> None:
    for preset, name in read_targets(group).items():
        package, _, kind = name.rpartition(".")
        assert package == f"omnihuman.{group}.{module_name(name)}", f"conf/{group}/{preset}.yaml builds {name}"
        assert inspect.isclass(getattr(importlib.import_module(package), kind, None)), name


@every_group
def test_names_of_yamls_begin_with_their_module(group: str) -> None:
    for preset, name in read_targets(group).items():
        message = f"conf/{group}/{preset}.yaml builds {name}"
        if group in ONE_CLASS:
            assert module_name(name) == ONE_CLASS[group], message
        else:
            assert f"{preset}_".startswith(f"{module_name(name)}_"), message  # stc_videollama2_v35 -> stc


@every_group
def test_every_part_has_a_yaml_and_a_test(group: str) -> None:
    built = {module_name(name) for name in read_targets(group).values()}
    assert built == list_modules(group), (
        f"conf/{group} builds {sorted(built)}, omnihuman.{group} has {sorted(list_modules(group))}"
    )
    for name in built:
        assert (TESTS / group / f"test_{name}.py").is_file(), f"tests/{group}/test_{name}.py is missing"


@pytest.mark.parametrize("group", [*GROUPS, "nn"])
def test_every_test_has_its_module(group: str) -> None:
    for path in (TESTS / group).glob("test_*.py"):
        assert (SRC / group / f"{path.stem.removeprefix('test_')}.py").is_file(), f"{path} tests no module of its name"
