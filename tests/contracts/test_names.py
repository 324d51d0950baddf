"""The registry: src/omnihuman/<group>/x.py <-> conf/<group>/x*.yaml <-> tests/<group>/test_x.py."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import omnihuman
from omnihuman.build import config_dir

GROUPS = ("encoder", "projector", "fusion", "llm", "model", "data", "metric", "benchmark")
"""Groups of parts; a package of the same name stands behind each."""
ONE_CLASS = {"model": "omni", "data": "module"}
"""Groups whose yamls name variants or sources of one class: the module that holds it."""
SRC, CONF, TESTS = Path(omnihuman.__file__).parent, Path(config_dir()), Path(__file__).parents[1]

every_group = pytest.mark.parametrize("group", GROUPS)


def target(path: Path) -> str:
    """The class that a yaml builds, its own or that of the yaml it starts from."""
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    if "_target_" in config:
        return str(config["_target_"])
    if path.with_suffix("").is_dir():  # chooses a size
        return target(path.with_suffix("") / "nano.yaml")
    base = next(name for name in config.defaults if isinstance(name, str) and name != "_self_")
    base = base.removesuffix("@_here_")
    return target((CONF / base[1:] if base.startswith("/") else path.parent / base).with_suffix(".yaml"))


def targets(group: str) -> dict[str, str]:
    """Preset -> class."""
    folder = CONF / group
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    found = {name: target(path) for name, path in names.items()}
    assert found, f"conf/{group} is empty"
    return found


def parts(group: str) -> set[str]:
    """Modules that hold a concrete subclass of what the group's ``base`` declares, or the group's one class."""
    if group in ONE_CLASS:
        return {ONE_CLASS[group]}
    if not (SRC / group / "base.py").is_file():
        return {module(name) for name in targets(group).values()}
    base = importlib.import_module(f"omnihuman.{group}.base")
    roots = tuple(kind for _, kind in inspect.getmembers(base, inspect.isabstract) if kind.__module__ == base.__name__)
    assert roots, base
    found = set()
    for path in (SRC / group).glob("*.py"):
        made = importlib.import_module(f"omnihuman.{group}.{path.stem}")
        kinds = [kind for _, kind in inspect.getmembers(made, inspect.isclass) if kind.__module__ == made.__name__]
        if any(issubclass(kind, roots) and not inspect.isabstract(kind) for kind in kinds):
            found.add(path.stem)
    return found


def module(name: str) -> str:
    return name.split(".")[-2]


@every_group
def test_every_yaml_builds_a_class_of_its_package(group: str) -> None:
    for preset, name in targets(group).items():
        package, _, kind = name.rpartition(".")
        assert package == f"omnihuman.{group}.{module(name)}", f"conf/{group}/{preset}.yaml builds {name}"
        assert inspect.isclass(getattr(importlib.import_module(package), kind, None)), name


@every_group
def test_every_yaml_begins_with_its_module(group: str) -> None:
    for preset, name in targets(group).items():
        if group in ONE_CLASS:
            assert module(name) == ONE_CLASS[group], f"conf/{group}/{preset}.yaml builds {name}"
        else:
            # stc_videollama2_v35 -> stc; slow_fast/7b -> slow_fast
            begins = f"{preset.partition('/')[0]}_"
            assert begins.startswith(f"{module(name)}_"), f"conf/{group}/{preset}.yaml builds {name}"


@pytest.mark.parametrize(
    "folder", sorted(path for path in CONF.glob("*/*") if path.is_dir()), ids=lambda path: path.name
)
def test_every_sized_part_has_every_size(folder: Path) -> None:
    sizes = {path.stem for path in (CONF / "size").glob("*.yaml")}
    assert {path.stem for path in folder.glob("*.yaml")} == sizes
    assert folder.with_suffix(".yaml").is_file(), f"{folder}.yaml, which chooses the size, is missing"


@every_group
def test_every_part_has_a_yaml_and_a_test(group: str) -> None:
    built = {module(name) for name in targets(group).values()}
    assert built == parts(group), f"conf/{group} builds {sorted(built)}, omnihuman.{group} has {sorted(parts(group))}"
    for name in built:
        assert (TESTS / group / f"test_{name}.py").is_file(), f"tests/{group}/test_{name}.py is missing"


@pytest.mark.parametrize("group", [*GROUPS, "nn"])
def test_every_test_has_its_module(group: str) -> None:
    for path in (TESTS / group).glob("test_*.py"):
        assert (SRC / group / f"{path.stem.removeprefix('test_')}.py").is_file(), f"{path} tests no module of its name"
