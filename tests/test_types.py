"""The containers: shape checks, and moving a batch to a device."""

import pytest
import torch

from omnihuman.types import Batch, Features, Sample, Signal


def build_batch() -> Batch:
    ids = torch.arange(4)[None]
    signal = Signal(torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    return Batch({"video": signal}, ids, ids, ids, (0, 4), step_targets=4, meta=({"id": "a"},))


def test_a_batch_moves_with_all_its_tensors() -> None:
    moved = build_batch().to("meta")
    tensors = [moved.input_ids, moved.labels, moved.position_ids]
    tensors += [moved.signals["video"].values, moved.signals["video"].mask]
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.meta == build_batch().meta and moved.step_targets == 4


def test_a_wrong_shape_raises() -> None:
    with pytest.raises(Exception, match="mask"):
        Features(torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 5, dtype=torch.bool))
    with pytest.raises(Exception, match="mask"):
        Signal(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool))


def test_the_instruction_is_the_last_question_without_placeholders() -> None:
    messages = (("user", "Who is it?"), ("assistant", "Ann"), ("user", "<video>\n<audio>\nWhy?"), ("assistant", ""))
    assert Sample({}, messages).instruction == "Why?"
    assert Sample({}, messages[:2]).instruction == "Who is it?"
    assert Sample({}, messages, {"instruction": "How?"}).instruction == "How?"
