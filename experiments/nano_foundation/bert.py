"""Train BERT on the corpus' questions and answers: masked tokens, and whether an answer belongs to its question."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import shape
import torch
from folder import NANO, save_model
from language import iterate_samples, remove_placeholders
from probe import ProbeSet, measure_accuracies
from torch import Tensor
from training import Trainer
from transformers import BertModel

TASKS = ("face", "body", "interaction", "emotion")
NUM_SPECIAL = 8  # the first ids of the tokenizer are special tokens


class Pair(NamedTuple):
    """A question and its answer."""

    task: str
    question: str
    answer: str


def iterate_pairs(rng: np.random.Generator, split: str = "train") -> Iterator[Pair]:
    """Yield the pairs of records of a single turn."""
    for sample in iterate_samples(rng, split):
        turns = [turn["value"] for turn in sample.record["conversations"]]
        if len(turns) == 2:
            yield Pair(sample.record["task"], remove_placeholders(turns[0]), turns[1])


def build_batch(source: Iterator[Pair], rng: np.random.Generator, size: int) -> tuple[list[str], list[str], Tensor]:
    """Return questions, answers, and labels `[B]`: 1 for an answer of another question, -100 for an unclear one."""
    pairs = list(islice(source, size))
    labels = torch.from_numpy(rng.random(size) < 0.5).long()
    answers: list[str] = []
    for index, pair in enumerate(pairs):
        other = pairs[index - 1]
        answers.append(other.answer if labels[index] else pair.answer)
        if other.task == pair.task and labels[index]:
            labels[index] = -100  # another answer of the same task may be right by chance
    return [pair.question for pair in pairs], answers, labels


def build_probe_set(model: BertModel, seed: int, count: int, split: str) -> ProbeSet:
    """Return the [CLS] states of questions `[B 1 128]`, with their tasks as labels."""
    tokenizer = shape.load_tokenizer("bert")
    rng = np.random.default_rng((seed, 8))
    pairs = list(islice((pair for pair in iterate_pairs(rng, split) if pair.task in TASKS), count))
    with torch.no_grad():
        inputs = tokenizer([pair.question for pair in pairs], return_tensors="pt", padding=True)
        tokens = model.eval()(**inputs).last_hidden_state[:, :1]
    labels = torch.tensor([TASKS.index(pair.task) for pair in pairs])
    return ProbeSet(tokens, torch.ones(len(pairs), 1, dtype=torch.bool), {"kind": labels})


def run(seed: int, minutes: float = 1.2, batch_size: int = 48, lr: float = 1e-3) -> None:
    """Train the model of ``bert``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 7))
    tokenizer, model = shape.load_tokenizer("bert"), shape.build_bert()
    source = iterate_pairs(rng)
    trainer = Trainer("bert", model.parameters(), lr, minutes, weight_decay=0.02, log_every=100)
    while trainer.is_running():
        questions, answers, next_labels = build_batch(source, rng, batch_size)
        inputs = tokenizer(questions, answers, return_tensors="pt", padding=True)
        ids = inputs["input_ids"]
        is_hidden = (torch.rand(ids.shape) < 0.15) & (ids >= NUM_SPECIAL)
        labels = ids.masked_fill(~is_hidden, -100)
        inputs["input_ids"] = ids.masked_fill(is_hidden & (torch.rand(ids.shape) < 0.9), tokenizer.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**inputs, labels=labels, next_sentence_label=next_labels).loss
        trainer.step(loss, loss=loss)
    save_model(model.bert, NANO / "bert")
    saved = BertModel.from_pretrained(NANO / "bert")
    train, val = build_probe_set(saved, seed, 1000, "train"), build_probe_set(saved, seed, 400, "val")
    print("bert val", measure_accuracies(train, val, attends=False, epochs=15), flush=True)
