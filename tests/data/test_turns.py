"""Conversations of several turns: what is supervised, what the instruction is, in training as in asking."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.build import build, compose_config
from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.messages import build_record
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import Record
from omnihuman.data.turns import select_question, split_turns
from omnihuman.modality import View
from omnihuman.types import IGNORE_INDEX

from .conftest import CHATML, TRANSFORMS, count_tokens

TURNS = (
    ("user", "<video>\nWho?"),
    ("assistant", "Ann."),
    ("user", "<audio>\nWhat does she say?"),
    ("assistant", "Hello."),
    ("user", "Why?"),
    ("assistant", "She greets."),
)
WITHOUT_INSTRUCTION = {name: entry for name, entry in TRANSFORMS.items() if name != "instruction"}


@pytest.fixture
def record(media_root: Path) -> Record:
    return Record("1", media_root / "talk.mp4", "video", TURNS, ("video", "audio"))


def plan(record: Record, tokenizer: Any, transforms: Any = TRANSFORMS, **options: Any) -> Samples:
    return Samples([record], transforms, count_tokens, Chat(tokenizer, CHATML), num_frames=2, **options)


def decode_answers(samples: Samples, tokenizer: Any) -> list[str]:
    """Return the supervised text of every sample."""
    texts = []
    for index in range(len(samples)):
        labels = samples[MicroBatch((index,), 1)].labels[0]
        texts.append(tokenizer.decode(labels[labels != IGNORE_INDEX]))
    return texts


def test_each_answer_is_a_sample_whose_instruction_is_its_question(record: Record, tokenizer: Any) -> None:
    samples = plan(record, tokenizer)
    assert [planned.record.id for planned in samples.planned] == ["1#turn1", "1#turn2", "1#turn3"]
    assert decode_answers(samples, tokenizer) == ["Ann.<|im_end|>", "Hello.<|im_end|>", "She greets.<|im_end|>"]
    decoded = [samples.sample(planned) for planned in samples.planned]
    assert [sample.instruction for sample in decoded] == ["Who?", "What does she say?", "Why?"]
    assert [sample.meta["answer"] for sample in decoded] == ["Ann.", "Hello.", "She greets."]
    assert [sorted(sample.media) for sample in decoded] == [["frames"], *[["frames", "waveform"]] * 2]


def test_all_answers_are_one_sample_where_nothing_reads_the_instruction(record: Record, tokenizer: Any) -> None:
    samples = plan(record, tokenizer, WITHOUT_INSTRUCTION)
    assert decode_answers(samples, tokenizer) == ["Ann.<|im_end|>Hello.<|im_end|>She greets.<|im_end|>"]
    with_instruction = replace(record, meta={"instruction": "About Ann."})
    samples = plan(with_instruction, tokenizer)
    assert len(samples) == 1 and samples.sample(samples.planned[0]).instruction == "About Ann."
    text = replace(record.drop_slots(record.slots), kind="text")
    assert split_turns(text) == [text], "an instruction steers media only"


def test_views_and_turns_are_combined(record: Record, tokenizer: Any) -> None:
    samples = plan(record, tokenizer, views=[View("VAF"), View("A")], policy="skip")
    ids = [planned.record.id for planned in samples.planned]
    assert ids == ["1#turn1", "1#turn2", "1#turn3", "1#A#turn2", "1#A#turn3"], "no answer about frames without frames"
    slots = [planned.record.slots for planned in samples.planned]
    assert slots == [("video",), *[("video", "audio")] * 2, *[("audio",)] * 2]
    assert [planned.counts["audio"] > 0 for planned in samples.planned] == [False, True, True, True, True]
    filled = plan(replace(record, file=record.file.with_name("silent.mp4")), tokenizer, missing="fill")
    assert [planned.counts["audio"] for planned in filled.planned] == [0, 100, 100]


def test_a_conversation_that_is_asked_ends_with_its_question(record: Record, tokenizer: Any) -> None:
    assert select_question(record).messages == TURNS[:2] and select_question(record).slots == ("video",)
    messages = [
        {"role": "user", "content": [{"type": "video", "url": str(record.file)}, {"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": "Ann."},
        {"role": "user", "content": "Why?"},
    ]
    question = build_record(messages, "1", "request", record.file.parent)
    samples = plan(question, tokenizer, prompts=True)
    assert samples.sample(samples.planned[0]).instruction == "Why?"
    text = tokenizer.decode([token for token in samples[MicroBatch((0,), 0)].input_ids[0].tolist() if token >= 0])
    assert "Ann.<|im_end|>" in text and text.endswith("Why?<|im_end|>\n<|im_start|>assistant\n")


def test_training_and_asking_give_the_gate_the_same_instruction(media_root: Path) -> None:
    torch.manual_seed(0)
    model = build(compose_config(["+experiment=humanomni_stage1"]).model).eval()
    chat = Chat(model.llm.tokenizer, model.llm.template)
    turns = (("user", "<video>\nHow is the face?"), ("assistant", "Sad."), ("user", "What does the body do?"))
    record = Record("1", media_root / "talk.mp4", "video", (*turns, ("assistant", "It waves.")), ("video",))
    question = replace(record, messages=(*turns, ("assistant", "")))
    trained = Samples([record], model.transforms, model.count_tokens, chat, num_frames=8)
    prompt = Samples([question], model.transforms, model.count_tokens, chat, num_frames=8, prompts=True)
    weights = model.fusion_weights(trained[MicroBatch((0, 1), 1)])["gate"]
    assert torch.allclose(weights[1], model.fusion_weights(prompt[MicroBatch((0,), 0)])["gate"][0], atol=1e-6)
    assert not torch.allclose(weights[0], weights[1], atol=1e-4)
