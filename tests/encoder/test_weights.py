"""Weights that do not fit raise an error that names the difference."""

from typing import Any

import pytest
from transformers.utils import logging

from omnihuman.encoder.weights import check_report, check_sizes, quiet_loading

EMPTY: dict[str, Any] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


class Config:
    hidden_size = 8
    num_hidden_layers = 2


def test_the_report_of_transformers_is_hidden_and_its_level_comes_back() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet_loading():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_different_size_raises() -> None:
    check_sizes("folder", Config, {"hidden_size": 8})
    with pytest.raises(ValueError, match=r"'folder': num_hidden_layers: 3 .*\b2\b"):
        check_sizes("folder", Config, {"hidden_size": 8, "num_hidden_layers": 3})


def test_dropped_keys_are_allowed() -> None:
    check_report("folder", EMPTY | {"unexpected_keys": ["head.bias"]}, dropped=("head.*",))


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("missing_keys", "missing"), ("unexpected_keys", "unknown"), ("mismatched_keys", "of another shape")],
)
def test_missing_unknown_and_mismatched_keys_raise(kind: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"'folder' .*1 {problem}.*layer\.bias"):
        check_report("folder", EMPTY | {kind: ["layer.bias"]}, dropped=("head.*",))
