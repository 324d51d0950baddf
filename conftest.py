"""Names that doctests use without importing them, and the modules that cannot be imported everywhere."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from omnihuman.types import Features, Layout, Signal

pytest_plugins = ["tests.official.fixtures"]
collect_ignore_glob = [] if find_spec("lmms_eval") else ["src/omnihuman/integrations/lmms_eval*"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that no worker waits for another one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("smoke", "studies"))


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(torch=torch, Features=Features, Layout=Layout, Signal=Signal)
