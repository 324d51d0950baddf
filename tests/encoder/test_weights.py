"""Weights that do not fit are refused by name."""

from typing import Any

import pytest

from omnihuman.encoder.weights import check_sizes, load_report

NOTHING: dict[str, Any] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


class Config:
    hidden_size = 8
    num_hidden_layers = 2


def test_sizes() -> None:
    check_sizes("here", Config, {"hidden_size": 8})
    with pytest.raises(ValueError, match=r"'here': num_hidden_layers: 3 here, 2 there"):
        check_sizes("here", Config, {"hidden_size": 8, "num_hidden_layers": 3})


def test_keys() -> None:
    load_report("here", NOTHING | {"unexpected_keys": ["head.bias"]}, dropped=("head.*",))
    for kind, word in (
        ("missing_keys", "missing"),
        ("unexpected_keys", "unknown"),
        ("mismatched_keys", "another shape"),
    ):
        with pytest.raises(ValueError, match=rf"'here' do not fit.*1 .*{word}.*layer\.bias"):
            load_report("here", NOTHING | {kind: ["layer.bias"]}, dropped=("head.*",))
