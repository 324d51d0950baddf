"""Packing: one sequence of text, and signals padded in time with their masks."""

import pytest
import torch

from omnihuman.data.collate import Packable, pack
from omnihuman.modality import SLOTS
from omnihuman.types import IGNORE_INDEX

BLANKS = {"video": torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "audio": torch.zeros(1, 80)}
V = SLOTS["video"]


def test_samples_are_concatenated():
    frames, mel = torch.full((4, 3, 8, 8), 7, dtype=torch.uint8), torch.ones(5, 80)
    video_sample = Packable({"video": frames}, [1, V, V, 2], [IGNORE_INDEX] * 3 + [2], {"id": "a"})
    audio_sample = Packable({"audio": mel}, [3, 4], [IGNORE_INDEX, 4], {"id": "b"})
    batch = pack([video_sample, audio_sample], BLANKS, step_targets=9, skipped=[{"id": "c"}])
    assert batch.input_ids.tolist() == [[1, V, V, 2, 3, 4]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.bounds == (0, 4, 6) and batch.lengths == [4, 2]
    assert batch.step_targets == 9 and [meta["id"] for meta in batch.meta] == ["a", "b"]
    assert batch.skipped == ({"id": "c"},)
    video, audio = batch.signals["video"], batch.signals["audio"]
    assert video.values.shape == (2, 4, 3, 8, 8) and video.values.dtype == torch.uint8
    assert video.mask.tolist() == [[True] * 4, [False] * 4] and not video.values[1].any()
    assert audio.mask.sum(dim=1).tolist() == [0, 5] and audio.values[1].eq(1).all()


def test_no_samples_give_a_blank_batch():
    batch = pack([], BLANKS, step_targets=4)
    assert batch.labels.tolist() == [[IGNORE_INDEX]] and batch.bounds == (0, 1) and batch.meta == ()
    for signal in batch.signals.values():
        assert not signal.mask.any() and signal.values.shape[:2] == (1, 1)


def test_a_batch_moves_with_its_signals():
    sample = Packable({"video": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, [1], [1], {"id": "a"})
    moved = pack([sample], BLANKS, 1).to("meta")
    tensors = [moved.input_ids, moved.signals["video"].values, moved.signals["audio"].mask]
    assert {tensor.device.type for tensor in tensors} == {"meta"} and moved.meta[0]["id"] == "a"


def test_page_locked_memory_is_copied_without_waiting(monkeypatch: pytest.MonkeyPatch):
    batch = pack([Packable({}, [1], [1])], BLANKS, 1)
    locked, copies = batch.input_ids.data_ptr(), []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: tensor.data_ptr() == locked)

    def record(tensor: torch.Tensor, device: str, *, non_blocking: bool) -> torch.Tensor:
        copies.append((tensor is batch.input_ids, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", record)
    batch.to("cpu")
    assert (True, True) in copies and {flag for is_locked, flag in copies if not is_locked} == {False}
