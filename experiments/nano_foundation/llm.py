"""Pretrains the LLM on text alone: questions about scenes whose words stand where media tokens will stand."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from folder import NANO, save
from language import SYSTEM, Told, differences, told
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel, Qwen2ForCausalLM
from transformers.masking_utils import AttentionMaskInterface

from omnihuman.data.sample.closeup import closeups
from omnihuman.data.sample.language import conversations

NEIGHBOURS = 3  # a position of a slot mixes so many words
NOTE_WEIGHT = 0.05
FIRST_WEIGHT = 4.0  # of an answer's first word: it has to be looked up by the question alone
ALL = "Tell everything."
DIFFERENT = "What differs?"
# seen more often: words in order are the hardest to read, and one word among its rivals is hard to look up
REPEATS = {"transcription": 2, "speaker_speech": 2, "audio_caption": 2, "attribute": 3, "same_person": 2}


class Row(NamedTuple):
    """One conversation: word ids and their weights at each position [L 3], noise [L], supervision weight [L]."""

    ids: np.ndarray
    mix: np.ndarray
    noise: np.ndarray
    weight: np.ndarray


class Writer:
    """Writes records as rows; ``rng`` decides which media are there and how blurred their words are."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.marks = shape.tokenizer()
        self.known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        if text not in self.known:
            if len(self.known) > 50000:
                self.known.clear()
            self.known[text] = self.marks(text, add_special_tokens=False)["input_ids"]
        return self.known[text]

    def views(self, item: Told) -> list[tuple[str, ...]]:
        """A record; the sets of media with which it can be answered, all media first."""
        scene, needs = item.scene, set(item.record["needs"])
        there = tuple(name for name in ("video", "audio") if item.notes[name])
        some = [there, *((name,) for name in there if len(there) == 2)]
        if item.record["task"] in ("emotion", "open_emotion"):
            tells = {"video": scene.face_emotion == scene.emotion, "audio": scene.voice_emotion == scene.emotion}
            return [view for view in some if view == there or tells[view[0]]]
        return [view for view in some if needs <= set(view)]

    def row(self, item: Told, plain: bool = False) -> Row:
        """A record; its row, with all media as plain words if ``plain``, otherwise varied as training wants it."""
        options = self.views(item)
        view = options[0] if plain or self.rng.random() < 0.5 else options[self.rng.integers(len(options))]
        if not plain and self.rng.random() < 0.03:
            view = ()
        parts: list[Row] = [self._text(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")]
        for name in view:
            mark = "im" if item.scene.is_still else {"video": "vi", "audio": "au"}[name]
            words = np.array(self.encode(item.notes[name]))
            slot = self._text(words) if plain else self.slot(words, name == "audio")
            parts += [self._text(f"<{mark}_start>"), slot, self._text(f"<{mark}_end>\n")]
        turns = item.record["conversations"]
        if not plain and view and item.scene.shots and self.rng.random() < 0.6:  # a yes or no alone teaches too little
            turns = [{"from": "human", "value": DIFFERENT}, {"from": "gpt", "value": differences(item.scene)}]
        elif not plain and len(view) == 1 and self.rng.random() < 0.5:  # to say it all teaches to look every word up
            turns = [{"from": "human", "value": ALL}, {"from": "gpt", "value": item.notes[view[0]]}]
        for index, turn in enumerate(turns):
            text = turn["value"]
            for slot_name in ("<video>\n", "<audio>\n", "<image>\n"):
                text = text.replace(slot_name, "")
            if turn["from"] == "human":
                start = "" if index == 0 else "<|im_start|>user\n"
                parts.append(self._text(f"{start}{text}<|im_end|>\n<|im_start|>assistant\n"))
            else:
                said = self._text(f"{text}<|im_end|>", 1.0)
                said.weight[0] = FIRST_WEIGHT
                parts += [said, self._text("\n")]
        return Row(*(np.concatenate([part[field] for part in parts]) for field in range(4)))

    def _text(self, text: str | np.ndarray, weight: float = 0.0) -> Row:
        words = np.array(self.encode(text)) if isinstance(text, str) else text
        ids, mix = np.zeros((len(words), NEIGHBOURS), int), np.zeros((len(words), NEIGHBOURS), np.float32)
        ids[:, 0], mix[:, 0] = words, 1
        return Row(ids, mix, np.zeros(len(words), np.float32), np.full(len(words), weight, np.float32))

    def slot(self, words: np.ndarray, ordered: bool) -> Row:
        """Words of a note; as they are, or roughly as a projector's tokens: repeated, out of order, blurred, noisy."""
        rng, kind = self.rng, self.rng.random()
        if kind < 0.3:
            return self._text(words, NOTE_WEIGHT)
        count = len(words)
        if kind < 0.5:
            near = np.arange(count) + rng.uniform(0, 1.0 if ordered else 3.0, count)
            kept = near.argsort()[rng.random(count) > 0.05]
            words = words[np.repeat(kept, 1 + (rng.random(len(kept)) < 0.15))]
            return self._text(words)
        length = int(rng.integers(count, max(81, count + 20)))
        centers = (np.arange(length) + rng.uniform(-0.5, 0.5, length)) * count / length
        centers = np.clip(centers, 0, count - 1).astype(int)
        if not ordered and rng.random() < 0.6:  # a grid of patches has no order of telling
            pieces = np.array_split(np.arange(length), int(rng.integers(2, 9)))
            centers = centers[np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])]
        ids = np.stack([words[np.clip(centers + step, 0, count - 1)] for step in (0, -1, 1)], axis=1)
        blur = rng.uniform(0, 0.5 if ordered else 0.8) * rng.random((length, 2))
        mix = np.concatenate([np.ones((length, 1)), blur], axis=1)
        mix *= np.exp(rng.uniform(-0.4, 0.4)) / np.sqrt((mix**2).sum(1, keepdims=True))
        noise = np.full(length, rng.uniform(0, 0.6))
        return Row(ids, mix.astype(np.float32), noise.astype(np.float32), np.zeros(length, np.float32))


def batches(writer: Writer, rng: np.random.Generator, tokens: int) -> Iterator[list[Row]]:
    """A writer; endless batches of rows alike in length, about ``tokens`` positions each."""
    source = (item for item in told(rng) for _ in range(REPEATS.get(item.record["task"], 1)))
    while True:
        rows = sorted((writer.row(next(source)) for _ in range(512)), key=lambda row: len(row.ids))
        made, batch = [], []
        for row in rows:
            if batch and len(row.ids) * (len(batch) + 1) > tokens:
                made.append(batch)
                batch = []
            batch.append(row)
        yield from (made[i] for i in rng.permutation(len(made)))


def padded(rows: list[Row]) -> list[Tensor]:
    """Rows; their fields padded at the end, [B L ...]."""
    longest = max(len(row.ids) for row in rows)
    return [
        torch.from_numpy(
            np.stack([np.pad(f, [(0, longest - len(f))] + [(0, 0)] * (f.ndim - 1)) for f in (row[i] for row in rows)])
        )
        for i in range(4)
    ]


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """Causal attention in half precision, written out: on a CPU twice as fast as the fused one at these lengths."""
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    query, key, value = (x.bfloat16() for x in (query, key, value))
    key, value = (x.repeat_interleave(groups, dim=1).flatten(0, 1) for x in (key, value))
    future = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1)
    with torch.autocast("cpu", enabled=False):
        scores = torch.baddbmm(
            future.expand(len(key), length, length), query.flatten(0, 1), key.transpose(1, 2), alpha=scaling
        )
        mixed = torch.bmm(scores.softmax(-1), value)
    return mixed.view(query.shape).transpose(1, 2).contiguous(), None


def loss_of(model: PreTrainedModel, rows: list[Row]) -> tuple[Tensor, Tensor]:
    """A batch; its weighted mean loss, and whether each row's answers come out right word by word [B]."""
    ids, mix, noise, weight = padded(rows)
    table = model.get_input_embeddings().weight
    embeds = (F.embedding(ids, table) * mix[..., None]).sum(2)
    scale = table.detach().pow(2).mean().sqrt()
    embeds = embeds + torch.randn_like(embeds) * (noise * scale)[..., None]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
        target, weight = ids[:, 1:, 0], weight[:, 1:]
        there = weight > 0
        logits = model.lm_head(hidden[there])
    losses = F.cross_entropy(logits.float(), target[there], reduction="none")
    wrong = torch.zeros_like(weight)
    wrong[there] = ((logits.argmax(-1) != target[there]) & (weight[there] >= 1)).float()
    return (losses * weight[there]).sum() / weight.sum(), wrong.sum(1) == 0


@torch.no_grad()
def probe(model: PreTrainedModel, seed: int, limit: int = 100000) -> dict[str, float]:
    """A model; the share of the val clips' questions answered in an accepted wording, by task.

    An answer is accepted if the corpus itself might give it to the same question (it varies its wordings).
    """
    rng = np.random.default_rng((seed, 3))
    writer, marks = Writer(rng), shape.tokenizer()
    model.eval()
    model.set_attn_implementation("sdpa")
    right: dict[str, list[float]] = defaultdict(list)
    items = [item for item in told(rng, "val") if item.record["task"] != "general"][:limit]
    accepted: dict[str, dict[str, set[str]]] = {}
    for item in items:
        if item.scene.id not in accepted:
            known = accepted[item.scene.id] = defaultdict(set)
            for again in range(400):
                again_rng = np.random.default_rng(again)
                for record in (*conversations(item.scene, again_rng), *closeups(item.scene, again_rng)):
                    for asked, said in zip(record["conversations"][::2], record["conversations"][1::2], strict=True):
                        known[asked["value"].rsplit("<", 1)[-1].split(">\n")[-1]].add(said["value"])
    rows = [writer.row(item, plain=True) for item in items]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for begin in range(0, len(order), 64):
        some = order[begin : begin + 64]
        prompts = [rows[i].ids[: int((rows[i].weight > 0).argmax()), 0].tolist() for i in some]
        longest = max(map(len, prompts))
        ids = torch.tensor([[marks.pad_token_id] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=80,
                             eos_token_id=marks.eos_token_id, pad_token_id=marks.pad_token_id)  # fmt: skip
        for i, text in zip(some, marks.batch_decode(out[:, longest:], skip_special_tokens=True), strict=True):
            asked, said = (turn["value"] for turn in items[i].record["conversations"])
            known = accepted[items[i].scene.id][asked.rsplit("<", 1)[-1].split(">\n")[-1]] | {said}
            right[items[i].record["task"]].append(float(text.strip() in known))
    return {task: round(float(np.mean(values)), 3) for task, values in sorted(right.items())}


def make(seed: int, minutes: float = 28.0, on: bool = False) -> None:
    """A seed and a time; writes the model of ``llm``, with ``on`` beginning at the weights that are there."""
    torch.manual_seed(seed)
    train(Qwen2ForCausalLM.from_pretrained(NANO / "llm") if on else shape.llm(), "llm", (seed, 2, int(on)), minutes)


def train(
    model: PreTrainedModel, name: str, seeds: tuple[int, ...], minutes: float, tokens: int = 4000, rate: float = 2.5e-3
) -> None:
    """A model, its folder, seeds and a time; trains it on batches of so many tokens and writes it there."""
    rng = np.random.default_rng(seeds)
    AttentionInterface.register("written_out", attention)
    AttentionMaskInterface.register("written_out", lambda *args, **kwargs: None)
    model.set_attn_implementation("written_out")
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], rate, betas=(0.9, 0.98)
    )
    start, mean, score = time.process_time(), 0.0, 0.0
    for step, rows in enumerate(batches(Writer(rng), rng, tokens)):
        done = (time.process_time() - start) / (60 * minutes)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * done))
        loss, right = loss_of(model, rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = 0.98 * mean + 0.02 * loss.item() if step else loss.item()
        score = 0.98 * score + 0.02 * float(right.float().mean())
        if step % 100 == 0:
            print(f"{name} step {step} {60 * minutes * done:.0f} s loss {mean:.3f} right {score:.3f}", flush=True)
    save(model, NANO / name)
    print(f"{name} val", probe(model, seeds[0]), flush=True)
