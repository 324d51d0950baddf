"""Nothing of a device is read in a step: masks and ids come with their values on the host."""

import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import omnihuman.mirror as mirror
from omnihuman.benching import gpu
from omnihuman.build import build, compose_config
from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import set_trainable
from omnihuman.types import Batch

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::is_nonzero")


class ReadCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that wait for a device, by the lines that cause them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        is_masked = name.startswith("aten::index") and isinstance(args[1], list | tuple)
        masks = (
            [index for index in args[1] if isinstance(index, Tensor) and index.dtype == torch.bool] if is_masked else []
        )
        is_open = name == "aten::repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in READS or masks or is_open:
            lines = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in traceback.extract_stack()]
            self.places[f"{name} at {' '.join(lines[-8:-1])}"] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> ReadCounter:
    """Return a counter that leaves out what is computed on the host."""

    def run_uncounted(func: Any, args: Any, kwargs: Any) -> Any:
        with _disable_current_modes():
            return func(*args, **kwargs)

    monkeypatch.setattr(mirror, "run_on_host", run_uncounted)
    return ReadCounter()


def build_batches(experiment: str, monkeypatch: pytest.MonkeyPatch) -> tuple[OmniModel, tuple[Batch, Batch]]:
    """Return the model of an experiment with what it trains, a batch of clips, and one of sounds of several lengths."""
    options = ["frames=2", "recipe.batch_size=2", "data.max_tokens=300"]
    config = compose_config([f"+experiment={experiment}", *options])
    model = build(config.model)
    set_trainable(model, dict(OmegaConf.to_container(config.trainable, resolve=True)))  # type: ignore[call-overload]
    monkeypatch.setattr(gpu, "CLIP_SECONDS", 1.0)
    monkeypatch.setattr(gpu, "SOUND_SECONDS", (0.5, 1.0))
    return model.train(), gpu.draw_batches(model, config)


@pytest.mark.parametrize("experiment", ["humanomni_stage3", "omni_emotion_stage3", "favchat_stage3"])
def test_a_step_reads_nothing(experiment: str, counter: ReadCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = build_batches(experiment, monkeypatch)
    for batch in batches:
        torch.manual_seed(0)
        expected = model(batch).loss
        mirrored = batch.mirror(batch)
        torch.manual_seed(0)
        with counter:
            loss = model(mirrored).loss
            loss.backward()
        assert counter.places == Counter()
        assert torch.equal(loss, expected)
        model.zero_grad()


def test_reads_are_counted() -> None:
    with (counter := ReadCounter()):
        mask = torch.tensor([True, False])
        _ = mask.any().item(), mask.nonzero(), torch.arange(2)[mask]
    assert len(counter.places) == 3
