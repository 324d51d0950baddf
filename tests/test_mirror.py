"""Mirrors: the same values on a device and on the host."""

from typing import Any

import pytest
import torch
from torch import Tensor

import omnihuman.mirror as module
from omnihuman.mirror import Mirror, range_like
from omnihuman.types import Batch, Features, Signal

META = torch.device("meta")
MASK = torch.tensor([[True, True, False], [False, False, False]])


def mirror(tensor: Tensor) -> Mirror:
    """Return a mirror whose device cannot be read."""
    return Mirror.of(tensor.to(META), tensor.clone())


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda mask: bool(mask.any()), True),
        (lambda mask: mask.sum().item(), 2),
        (lambda mask: int(mask[0].long().argmax()), 0),
        (lambda mask: mask.tolist(), MASK.tolist()),
        (lambda mask: torch.equal(mask, ~mask), False),
        (lambda mask: len(mask.any(dim=1).nonzero()), 1),
        (lambda mask: [len(part) for part in mask.nonzero(as_tuple=True)], [2, 2]),
        (lambda mask: mask.unsqueeze(-1).expand(2, 3, 4).flatten(1).sum(dim=1).tolist(), [8, 0]),
        (lambda mask: (range_like(3, mask) < mask.sum(dim=1)[:, None]).tolist(), MASK.tolist()),
        (lambda mask: torch.stack([mask, mask]).all().item(), False),
        (lambda mask: torch.repeat_interleave(mask.sum(dim=1), mask.sum(dim=1)).tolist(), [2, 2]),
        (lambda mask: mask.to(torch.int64).tolist()[0], [1, 1, 0]),
    ],
)
def test_the_host_answers(read: Any, expected: Any) -> None:
    assert read(mirror(MASK)) == read(MASK) == expected


def test_results_are_on_the_device() -> None:
    index = mirror(MASK).nonzero()
    assert index.is_meta and isinstance(index, Mirror) and index.host.tolist() == [[0, 0], [0, 1]]


def test_a_mask_selects_by_positions_of_the_host() -> None:
    tokens = torch.zeros(2, 3, 5, device=META)
    assert tokens[mirror(MASK)].shape == (2, 5) and type(tokens[mirror(MASK)]) is Tensor
    assert tokens[:, mirror(MASK[0])].shape == (2, 2, 5)
    assert torch.arange(6).view(2, 3)[Mirror.of(MASK, MASK)].tolist() == [0, 1]


def test_other_tensors_make_an_ordinary_one() -> None:
    tokens = torch.zeros(2, 3, device=META)
    assert type(tokens * mirror(MASK)) is Tensor and type(tokens.masked_fill(~mirror(MASK), 1)) is Tensor


def test_changes_in_place_reach_both() -> None:
    first = mirror(MASK)
    first[:, 0] = True
    assert first.any(dim=1).tolist() == [True, True]
    device, host = MASK.clone(), MASK.clone()
    second = Mirror.of(device, host)
    second[1] = torch.tensor([True, True, True])
    assert second.host.tolist() == device.tolist() == [[True, True, False], [True, True, True]]
    second &= Mirror.of(torch.tensor(False), torch.tensor(False))
    assert not second.any() and not device.any()


def test_a_batch_on_another_device_has_mirrors() -> None:
    features = Features.of(torch.zeros(1, 2, 3, 4), torch.tensor([[True, False]]))
    batch = Batch(
        signals={"video": Signal(torch.zeros(1, 2, 3, 8, 8), torch.tensor([[True, False]]))},
        input_ids=torch.tensor([[5, 6]]),
        labels=torch.tensor([[-100, 6]]),
        position_ids=torch.tensor([[0, 1]]),
        bounds=(0, 2),
        step_targets=1,
        features={"audio": features},
    )
    moved = batch.to(META)
    assert moved.signals["video"].mask.tolist() == [[True, False]] and moved.labels.tolist() == [[-100, 6]]
    assert moved.features["audio"].mask.any(dim=2).tolist() == [[True, False]]
    assert type(batch.to("cpu").labels) is Tensor and type(moved.signals["video"].values) is Tensor
    moved.labels[0, 0] = 1
    assert batch.labels[0, 0] == -100


def test_copies_run_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def note(func: Any, args: Any, kwargs: Any) -> Any:
        calls.append(func)
        return func(*args, **kwargs)

    monkeypatch.setattr(module, "run_on_host", note)
    assert mirror(MASK).any(dim=1).shape == (2,) and calls == [Tensor.any]
