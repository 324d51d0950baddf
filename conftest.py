"""Checks of shapes, names that doctests use without importing them, and modules that cannot be imported everywhere."""

import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from absl import logging as absl_logging
from jaxtyping import install_import_hook
from rich.logging import RichHandler

SOURCE = Path(__file__).parent / "src"


def list_modules_with_shapes() -> list[str]:
    """Return the modules that annotate shapes: checks of all others, which mypy checks, would double their time."""
    modules = []
    for file in sorted(SOURCE.rglob("*.py")):
        if "jaxtyping" in file.read_text(encoding="utf-8"):
            modules.append(".".join(file.relative_to(SOURCE).with_suffix("").parts))
    return modules


install_import_hook(list_modules_with_shapes(), "beartype.beartype")  # before anything imports omnihuman
pytest_plugins = ["tests.official.fixtures"]
collect_ignore_glob = [] if find_spec("lmms_eval") else ["src/omnihuman/integrations/lmms_eval*"]


# Hydra closes all handlers when it configures logging. absl's, which TensorBoard imports, then closes its stream unless
# that is a standard one: it must not hold the one with which pytest captures.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that no worker waits for another one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("smoke", "studies", "training", "hub"))


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    from omnihuman.types import Features, Layout, Signal  # imported here so that its shapes are checked

    doctest_namespace.update(torch=torch, Features=Features, Layout=Layout, Signal=Signal)


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    """Remove the handlers that a verb in this process has set: they write to the captured stream of its test."""
    yield
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) in (logging.StreamHandler, RichHandler):
            root.removeHandler(handler)
    root.setLevel(logging.WARNING)


def _list_root() -> set[str]:
    return {path.name for path in Path(__file__).parent.iterdir() if not path.name.startswith(".")}


@pytest.fixture(autouse=True)
def _root_stays_clean() -> Iterator[None]:
    """Check that a test leaves no file in the clone: it would be committed one day."""
    before = _list_root()
    yield
    assert not _list_root() - before, "write to tmp_path"
