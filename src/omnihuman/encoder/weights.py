"""What an encoder owes to weights from a folder or the hub: sizes that agree, no key lost."""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn


def check_sizes(weights: str, config: Any, sizes: Mapping[str, Any]) -> None:
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


def read_folder(path: Path, sizes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our own folder of an encoder: ``model.safetensors`` under our names, its sizes in ``config.json``.

    Raises:
        ValueError: its sizes differ from those asked for.
    """
    check_sizes(str(path), SimpleNamespace(**json.loads((path / "config.json").read_text())), sizes)
    return load_file(path / "model.safetensors")


def load_parameters(
    encoder: nn.Module, weights: str, state: Mapping[str, Tensor], dropped: tuple[str, ...] = ()
) -> None:
    """Give an encoder all its parameters; buffers are computed and in no weights.

    Raises:
        ValueError: see ``load_report``.
    """
    own = dict(encoder.named_parameters())
    wrong = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    info = {"missing_keys": own.keys() - state, "unexpected_keys": state.keys() - own, "mismatched_keys": wrong}
    load_report(weights, info, dropped)
    encoder.load_state_dict({key: state[key] for key in own}, strict=False)
