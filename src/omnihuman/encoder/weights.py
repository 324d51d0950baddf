"""What an encoder owes to weights from a folder or the hub: sizes that agree, no key lost."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any


def check_sizes(weights: str, config: Any, sizes: Mapping[str, int]) -> None:
    """Compare the sizes that a config asks for with those of the weights.

    Raises:
        ValueError: they differ.
    """
    theirs = {name: getattr(config, name) for name in sizes}
    if wrong := {name: (sizes[name], theirs[name]) for name in sizes if sizes[name] != theirs[name]}:
        listed = ", ".join(f"{name}: {ours} here, {other} there" for name, (ours, other) in wrong.items())
        raise ValueError(f"the sizes do not fit the weights {weights!r}: {listed}. Choose the preset of these weights.")


def load_report(weights: str, info: Mapping[str, Any], dropped: tuple[str, ...] = ()) -> None:
    """Check what ``from_pretrained(..., output_loading_info=True)`` reports.

    Args:
        weights: where they came from.
        info: transformers' report.
        dropped: patterns of keys in the weights that are left out on purpose.

    Raises:
        ValueError: a parameter was not in the weights or had another shape, or the weights hold one that nothing reads.
    """
    wrong = {
        "missing": sorted(info["missing_keys"]),
        "unknown": sorted(key for key in info["unexpected_keys"] if not any(fnmatchcase(key, p) for p in dropped)),
        "of another shape": sorted(str(key) for key in info["mismatched_keys"]),
    }
    if found := [f"{len(keys)} {kind} (such as {keys[0]})" for kind, keys in wrong.items() if keys]:
        raise ValueError(
            f"the weights {weights!r} do not fit the encoder: {', '.join(found)}. Choose the weights of its preset."
        )
