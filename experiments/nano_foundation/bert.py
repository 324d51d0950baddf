"""Trains BERT on the corpus' questions, answers and captions: masked words, and whether an answer fits its question."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import shape
import torch
from folder import NANO, save
from language import told
from probe import accuracies
from torch import Tensor
from transformers import BertModel

KINDS = ("face", "body", "interaction", "emotion")


def pairs(rng: np.random.Generator, split: str = "train") -> Iterator[tuple[str, str, str]]:
    """A random generator; (task, question, answer) of one turn each."""
    for item in told(rng, split):
        turns = [turn["value"] for turn in item.record["conversations"]]
        if len(turns) == 2:
            question = turns[0]
            for slot in ("<video>", "<audio>", "<image>"):
                question = question.replace(slot, "")
            yield item.record["task"], question.strip(), turns[1]


def batch_of(
    source: Iterator[tuple[str, str, str]], rng: np.random.Generator, size: int
) -> tuple[list[str], list[str], Tensor]:
    """Pairs; questions, answers and whether each answer belongs to another question [B] (the second half's do)."""
    some = [next(source) for _ in range(size)]
    questions, answers = [s[1] for s in some], [s[2] for s in some]
    swapped = torch.from_numpy(rng.random(size) < 0.5).long()
    others = [answers[i - 1] for i in range(size)]
    mixed = [other if swap else own for own, other, swap in zip(answers, others, swapped.tolist(), strict=True)]
    # an answer of the same task may fit by chance: then it is no swap worth the name
    same = torch.tensor([some[i - 1][0] == some[i][0] for i in range(size)])
    return questions, mixed, torch.where((swapped == 1) & same, -100, swapped)


def first_tokens(model: BertModel, seed: int, count: int, split: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A model; its raw [CLS] states of questions alone [B 1 128], their mask, and the kind of each question."""
    marks = shape.tokenizer("bert")
    source = ((task, q) for task, q, _ in pairs(np.random.default_rng((seed, 8)), split) if task in KINDS)
    some = [next(source) for _ in range(count)]
    with torch.no_grad():
        words = marks([q for _, q in some], return_tensors="pt", padding=True)
        tokens = model.eval()(**words).last_hidden_state[:, :1]
    return tokens, torch.ones(count, 1, dtype=torch.bool), {"kind": torch.tensor([KINDS.index(t) for t, _ in some])}


def make(seed: int, minutes: float = 1.2, batch: int = 48, rate: float = 1e-3) -> None:
    """A seed and a time; writes the model of ``bert``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 7))
    marks, model = shape.tokenizer("bert"), shape.bert()
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.02)
    source, start, step, mean = pairs(rng), time.process_time(), 0, 0.0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * done))
        questions, answers, swapped = batch_of(source, rng, batch)
        words = marks(questions, answers, return_tensors="pt", padding=True)
        ids = words["input_ids"]
        hidden = (torch.rand(ids.shape) < 0.15) & (ids >= 8)  # the first eight are special
        labels = ids.masked_fill(~hidden, -100)
        words["input_ids"] = ids.masked_fill(hidden & (torch.rand(ids.shape) < 0.9), marks.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**words, labels=labels, next_sentence_label=swapped).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = 0.98 * mean + 0.02 * loss.item() if step else loss.item()
        if step % 100 == 0:
            print(f"bert step {step} {60 * minutes * done:.0f} s loss {mean:.3f}", flush=True)
        step += 1
    save(model.bert, NANO / "bert")
    ready = BertModel.from_pretrained(NANO / "bert")
    sides = (first_tokens(ready, seed, 1000, "train"), first_tokens(ready, seed, 400, "val"))
    print("bert val", accuracies(*sides, attends=False, epochs=15), flush=True)
