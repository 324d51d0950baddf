"""Names that every docstring example may use without importing them."""

from typing import Any

import pytest
import torch

from omnihuman.types import Features, Layout, Signal


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(torch=torch, Features=Features, Layout=Layout, Signal=Signal)
