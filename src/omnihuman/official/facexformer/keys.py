"""Names of FaceXFormer's official parameters -> names of our encoder's parameters."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from omnihuman.official.keys import (
    KeyReport,
    build_report,
    expand_match,
    find_reason,
    rename_state,
)

FILE = "ckpts/model.pt"
"""Path of the checkpoint in the official repository."""

ENTRY = "state_dict_backbone"
"""Entry of the checkpoint that holds the model's state dict."""

NAMES: dict[str, str] = {
    r"backbone\.0\.(.+)": r"features.\1",
    r"linear_c\.(\d+)\.proj\.(.+)": r"linears.\1.\2",
    r"linear_fuse\.(.+)": r"fuse.\1",
}
"""Pattern of an official key -> our name."""

DROPPED: dict[str, str] = {
    "*.relative_position_index": "a table of places, computed from the window's size",
    "backbone.1.*": "features are read before the final norm",
    "pe_layer.*": "positions that only the decoder adds",
    "face_decoder.*": "the task heads",
}
"""Pattern of an official key that nothing reads -> why."""


def map_key(key: str) -> str | None:
    """Return our name of an official parameter, ``None`` if our encoder has no such parameter.

    >>> map_key("linear_c.3.proj.bias"), map_key("backbone.0.1.0.attn.qkv.weight")
    ('linears.3.bias', 'features.1.0.attn.qkv.weight')
    """
    return expand_match(key, NAMES)


def convert_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
    """Return an official state dict under our names, and the report on its keys; see ``report_keys``."""
    report = report_keys(state)
    return rename_state(state, report), report


def report_keys(keys: Iterable[str]) -> KeyReport:
    """Map every official key to our name or to the reason why it is dropped.

    Raises:
        ValueError: a key is neither ours nor in ``DROPPED``.
    """
    return build_report(keys, map_key, lambda key: find_reason(key, DROPPED), "FaceXFormer")
