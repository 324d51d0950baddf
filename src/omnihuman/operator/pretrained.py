"""Models of transformers inside operators: their weights, and the seconds that they take on a GPU."""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omnihuman.encoder.weights import quiet_loading
from omnihuman.nn.finite import check_parameters

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CONTENT = ("*.safetensors", "*.json")
"""Files of a weights folder that decide what the model says."""


class GpuClock:
    """The device of an operator's model, and the seconds that the model has worked there.

    Attributes:
        device: ``cuda`` if there is one, else ``cpu``.
    """

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._seconds = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Run a model without gradients."""
        begin = time.perf_counter()
        with torch.inference_mode():
            yield
        if self.device == "cuda":
            torch.cuda.synchronize()
            self._seconds += time.perf_counter() - begin

    def take_cost(self) -> Mapping[str, float]:
        """Return the seconds on the GPU since the last call, nothing without one."""
        seconds, self._seconds = self._seconds, 0.0
        return {"gpu_s": seconds} if seconds else {}


def check_weights(weights: str | None, place: str, example: str, other: str) -> None:
    """Check that weights are named, and that their folder is there.

    Args:
        weights: folder or hub id.
        place: operator and option that need them, for messages.
        example: hub id of weights that fit.
        other: option without weights, with what it does.

    Raises:
        ValueError: they are not, or it is not.
    """
    if weights is None:
        raise ValueError(f"{place} needs weights=<folder or hub id>, such as {example}; {other}.")
    if not Path(weights).is_dir() and not HUB_ID.fullmatch(weights):
        raise ValueError(f"{place}: weights={weights}: there is no such folder; name it, or a hub id like {example}.")


def identify_weights(weights: str | None) -> Mapping[str, Any]:
    """Return the digest of a weights folder, the same wherever it is; for weights of the hub, their id."""
    if weights is None or not Path(weights).is_dir():
        return {"weights": weights}
    digest = hashlib.sha256()
    for pattern in CONTENT:
        for file in sorted(Path(weights).glob(pattern)):
            with file.open("rb") as content:
                digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return {"weights": digest.hexdigest()}


def load_model(kind: Any, weights: str, clock: GpuClock) -> Any:
    """Return a model in eval mode on the device of the clock, with a value for every parameter.

    Args:
        kind: class of transformers with ``from_pretrained``.
        weights: folder or hub id.
        clock: of the operator.

    Raises:
        ValueError: a parameter is missing in the weights, has another shape there, or is not finite.
    """
    with quiet_loading():
        model, report = kind.from_pretrained(weights, dtype=torch.float32, output_loading_info=True)
    for problem in ("missing_keys", "mismatched_keys"):
        if keys := report[problem]:
            noun = problem.partition("_")[0]
            raise ValueError(f"weights={weights}: {len(keys)} {noun} parameters, such as {min(map(str, keys))}.")
    check_parameters(weights, model)
    return model.eval().requires_grad_(False).to(clock.device)
