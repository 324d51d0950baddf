"""Pretrain the LLM on text alone: questions about scenes whose descriptions take the place of media tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from folder import NANO, save_model
from language import SYSTEM, Sample, describe_differences, iterate_samples, remove_placeholders
from torch import Tensor, nn
from training import Trainer
from transformers import AttentionInterface, PreTrainedModel, Qwen2ForCausalLM
from transformers.masking_utils import AttentionMaskInterface

from omnihuman.corpus.closeup import build_closeups
from omnihuman.corpus.conversation import build_conversations
from omnihuman.corpus.world import Scene

NUM_MIXED = 3  # tokens that a position of a slot mixes
DESCRIPTION_WEIGHT = 0.05
FIRST_WEIGHT = 4.0  # of an answer's first token, which depends on the question alone
TELL_ALL = "Tell everything."
DIFFERENCE = "What differs?"
# harder tasks are repeated: transcriptions need the order of the words, attributes one word among similar ones
REPEATS = {"transcription": 2, "speaker_speech": 2, "audio_caption": 2, "attribute": 3, "same_person": 2}


class Sequence(NamedTuple):
    """One conversation: mixed token ids and their weights `[L 3]`, noise `[L]`, and loss weight `[L]`."""

    ids: np.ndarray
    mix: np.ndarray
    noise: np.ndarray
    weight: np.ndarray


class SequenceBuilder:
    """Build sequences from samples; ``rng`` chooses the media and how blurred their tokens are."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.tokenizer = shape.load_tokenizer()
        self._cache: dict[str, list[int]] = {}

    def tokenize(self, text: str) -> np.ndarray:
        """Return the token ids of a text."""
        if text not in self._cache:
            if len(self._cache) > 50000:
                self._cache.clear()
            self._cache[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return np.array(self._cache[text], int)

    def list_views(self, sample: Sample) -> list[tuple[str, ...]]:
        """List the sets of media from which a sample can be answered, all media first."""
        scene, needs = sample.scene, set(sample.record["needs"])
        media = tuple(name for name in ("video", "audio") if sample.descriptions[name])
        views: list[tuple[str, ...]] = [media]
        if len(media) == 2:
            views += [(name,) for name in media]
        if sample.record["task"] in ("emotion", "open_emotion"):
            carries = {
                "video": scene.face_emotion == scene.emotion,
                "audio": scene.voice_emotion == scene.emotion,
            }
            return [view for view in views if view == media or carries[view[0]]]
        return [view for view in views if needs <= set(view)]

    def build_plain(self, sample: Sample) -> Sequence:
        """Build the sequence of a sample with plain descriptions of all its media."""
        view = self.list_views(sample)[0]
        parts = [self._encode_system()]
        for name in view:
            parts += self._wrap_slot(sample, name, self._encode(self.tokenize(sample.descriptions[name])))
        return _concatenate(parts + self._encode_turns(sample.record["conversations"]))

    def build_varied(self, sample: Sample) -> Sequence:
        """Build a training sequence: some of the media, blurred descriptions, and sometimes another question."""
        views = self.list_views(sample)
        view = views[0]
        if self.rng.random() >= 0.5:
            view = views[self.rng.integers(len(views))]
        if self.rng.random() < 0.03:
            view = ()
        parts = [self._encode_system()]
        for name in view:
            slot = self.encode_slot(self.tokenize(sample.descriptions[name]), is_ordered=name == "audio")
            parts += self._wrap_slot(sample, name, slot)
        turns = sample.record["conversations"]
        if view and sample.scene.shots and self.rng.random() < 0.6:
            # yes or no alone is a weak signal
            turns = _build_turns(DIFFERENCE, describe_differences(sample.scene))
        elif len(view) == 1 and self.rng.random() < 0.5:
            # the complete description as answer trains the attention to every token of the slot
            turns = _build_turns(TELL_ALL, sample.descriptions[view[0]])
        return _concatenate(parts + self._encode_turns(turns))

    def _encode_system(self) -> Sequence:
        return self._encode(self.tokenize(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"))

    def _wrap_slot(self, sample: Sample, name: str, slot: Sequence) -> list[Sequence]:
        """Put a slot between its delimiters."""
        prefix = "im" if sample.scene.is_still else {"video": "vi", "audio": "au"}[name]
        start, end = self.tokenize(f"<{prefix}_start>"), self.tokenize(f"<{prefix}_end>\n")
        return [self._encode(start), slot, self._encode(end)]

    def _encode_turns(self, turns: list[dict[str, str]]) -> list[Sequence]:
        parts: list[Sequence] = []
        for index, turn in enumerate(turns):
            text = remove_placeholders(turn["value"])
            if turn["from"] == "human":
                start = "" if index == 0 else "<|im_start|>user\n"
                parts.append(self._encode(self.tokenize(f"{start}{text}<|im_end|>\n<|im_start|>assistant\n")))
            else:
                answer = self._encode(self.tokenize(f"{text}<|im_end|>"), 1.0)
                answer.weight[0] = FIRST_WEIGHT
                parts += [answer, self._encode(self.tokenize("\n"))]
        return parts

    def _encode(self, tokens: np.ndarray, weight: float = 0.0) -> Sequence:
        """Encode tokens as they are."""
        length = len(tokens)
        ids = np.zeros((length, NUM_MIXED), int)
        mix = np.zeros((length, NUM_MIXED), np.float32)
        ids[:, 0], mix[:, 0] = tokens, 1
        return Sequence(ids, mix, np.zeros(length, np.float32), np.full(length, weight, np.float32))

    def encode_slot(self, tokens: np.ndarray, is_ordered: bool) -> Sequence:
        """Encode a description as it is, with dropped and repeated tokens, or blurred like a projector's output."""
        kind = self.rng.random()
        if kind < 0.3:
            return self._encode(tokens, DESCRIPTION_WEIGHT)
        if kind < 0.5:
            return self._encode(self._perturb(tokens, is_ordered))
        return self._blur(tokens, is_ordered)

    def _perturb(self, tokens: np.ndarray, is_ordered: bool) -> np.ndarray:
        """Shuffle neighbouring tokens, and drop and repeat some."""
        rng, count = self.rng, len(tokens)
        positions = np.arange(count) + rng.uniform(0, 1.0 if is_ordered else 3.0, count)
        order = positions.argsort()[rng.random(count) > 0.05]
        return tokens[np.repeat(order, 1 + (rng.random(len(order)) < 0.15))]

    def _blur(self, tokens: np.ndarray, is_ordered: bool) -> Sequence:
        """Resample tokens to up to 80 positions, each a noisy mix of neighbours."""
        rng, count = self.rng, len(tokens)
        length = int(rng.integers(count, max(81, count + 20)))
        centers = (np.arange(length) + rng.uniform(-0.5, 0.5, length)) * count / length
        centers = np.clip(centers, 0, count - 1).astype(int)
        if not is_ordered and rng.random() < 0.6:  # the patches of a frame are not in the order of a sentence
            pieces = np.array_split(np.arange(length), int(rng.integers(2, 9)))
            centers = centers[np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])]
        ids = np.stack([tokens[np.clip(centers + step, 0, count - 1)] for step in (0, -1, 1)], axis=1)
        blur = rng.uniform(0, 0.5 if is_ordered else 0.8) * rng.random((length, 2))
        mix = np.concatenate([np.ones((length, 1)), blur], axis=1)
        mix *= np.exp(rng.uniform(-0.4, 0.4)) / np.sqrt((mix**2).sum(1, keepdims=True))
        noise = np.full(length, rng.uniform(0, 0.6))
        return Sequence(ids, mix.astype(np.float32), noise.astype(np.float32), np.zeros(length, np.float32))


def _build_turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _concatenate(parts: list[Sequence]) -> Sequence:
    return Sequence(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def iterate_batches(builder: SequenceBuilder, rng: np.random.Generator, tokens: int) -> Iterator[list[Sequence]]:
    """Yield batches without end, each of sequences of similar length and of about ``tokens`` positions."""
    source = _iterate_repeated(rng)
    while True:
        sequences = [builder.build_varied(next(source)) for _ in range(512)]
        batches: list[list[Sequence]] = []
        batch: list[Sequence] = []
        for sequence in sorted(sequences, key=_length):
            if batch and len(sequence.ids) * (len(batch) + 1) > tokens:
                batches.append(batch)
                batch = []
            batch.append(sequence)
        for index in rng.permutation(len(batches)):
            yield batches[index]


def _iterate_repeated(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in iterate_samples(rng):
        for _ in range(REPEATS.get(sample.record["task"], 1)):
            yield sample


def _length(sequence: Sequence) -> int:
    return len(sequence.ids)


def pad_sequences(sequences: list[Sequence]) -> list[Tensor]:
    """Return the fields of sequences as tensors `[B L ...]`, padded at the end."""
    fields: list[Tensor] = []
    for arrays in zip(*sequences, strict=True):
        tensors = [torch.from_numpy(array) for array in arrays]
        fields.append(nn.utils.rnn.pad_sequence(tensors, batch_first=True))
    return fields


def compute_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """Compute causal attention in half precision, without a fused kernel: twice as fast on a CPU at these lengths."""
    length, groups = query.shape[2], query.shape[1] // key.shape[1]
    query, key, value = (x.bfloat16() for x in (query, key, value))
    key, value = (x.repeat_interleave(groups, dim=1).flatten(0, 1) for x in (key, value))
    future = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1)
    with torch.autocast("cpu", enabled=False):
        bias = future.expand(len(key), length, length)
        scores = torch.baddbmm(bias, query.flatten(0, 1), key.transpose(1, 2), alpha=scaling)
        mixed = torch.bmm(scores.softmax(-1), value)
    return mixed.view(query.shape).transpose(1, 2).contiguous(), None


def compute_loss(model: PreTrainedModel, sequences: list[Sequence]) -> tuple[Tensor, Tensor]:
    """Return the weighted mean loss, and whether all answer tokens of a sequence are right `[B]`."""
    ids, mix, noise, weight = pad_sequences(sequences)
    table = model.get_input_embeddings().weight
    embeds = (F.embedding(ids, table) * mix[..., None]).sum(2)
    scale = table.detach().pow(2).mean().sqrt()
    embeds = embeds + torch.randn_like(embeds) * (noise * scale)[..., None]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
        targets, weight = ids[:, 1:, 0], weight[:, 1:]
        is_target = weight > 0
        logits = model.lm_head(hidden[is_target])
    losses = F.cross_entropy(logits.float(), targets[is_target], reduction="none")
    is_wrong = torch.zeros_like(weight)
    is_wrong[is_target] = ((logits.argmax(-1) != targets[is_target]) & (weight[is_target] >= 1)).float()
    return (losses * weight[is_target]).sum() / weight.sum(), is_wrong.sum(1) == 0


def _list_accepted(scene: Scene) -> dict[str, set[str]]:
    """Return question -> all answers that the corpus may give to it, collected from 400 draws."""
    accepted: dict[str, set[str]] = defaultdict(set)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        for record in (*build_conversations(scene, rng), *build_closeups(scene, rng)):
            turns = [turn["value"] for turn in record["conversations"]]
            for question, answer in zip(turns[::2], turns[1::2], strict=True):
                accepted[remove_placeholders(question)].add(answer)
    return accepted


@torch.no_grad()
def measure_accuracies(model: PreTrainedModel, seed: int, limit: int = 100000) -> dict[str, float]:
    """Return the share of the val clips' questions that are answered in an accepted wording, by task.

    An answer is accepted if the corpus itself may give it to the same question, since it varies its wordings.
    """
    rng = np.random.default_rng((seed, 3))
    builder = SequenceBuilder(rng)
    model.eval()
    model.set_attn_implementation("sdpa")
    samples = [sample for sample in iterate_samples(rng, "val") if sample.record["task"] != "general"][:limit]
    prompts: list[list[int]] = []
    for sample in samples:
        sequence = builder.build_plain(sample)
        prompts.append(sequence.ids[: int((sequence.weight > 0).argmax()), 0].tolist())
    hits: dict[str, list[bool]] = defaultdict(list)
    accepted: dict[str, dict[str, set[str]]] = {}
    for sample, answer in zip(samples, _generate_answers(model, prompts), strict=True):
        question, reference = (turn["value"] for turn in sample.record["conversations"])
        if sample.scene.id not in accepted:
            accepted[sample.scene.id] = _list_accepted(sample.scene)
        answers = accepted[sample.scene.id][remove_placeholders(question)] | {reference}
        hits[sample.record["task"]].append(answer.strip() in answers)
    return {task: round(float(np.mean(values)), 3) for task, values in sorted(hits.items())}


def _generate_answers(model: PreTrainedModel, prompts: list[list[int]], batch_size: int = 64) -> list[str]:
    """Return the greedy answers to prompts; prompts of similar length share a batch."""
    tokenizer = shape.load_tokenizer()
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, padding_side="left", return_tensors="pt")
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=80,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
    return answers


def run(seed: int, minutes: float = 28.0, resume: bool = False) -> None:
    """Train the model of ``llm``; ``resume`` starts from its present weights."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM.from_pretrained(NANO / "llm") if resume else shape.build_llm()
    pretrain(model, "llm", (seed, 2, int(resume)), minutes)


def pretrain(
    model: PreTrainedModel, name: str, seeds: tuple[int, ...], minutes: float, tokens: int = 4000, lr: float = 2.5e-3
) -> None:
    """Train a model on batches of ``tokens`` positions, and save it to the folder ``name``."""
    rng = np.random.default_rng(seeds)
    AttentionInterface.register("plain", compute_attention)
    AttentionMaskInterface.register("plain", lambda *args, **kwargs: None)
    model.set_attn_implementation("plain")
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    trainer = Trainer(name, groups, lr, minutes, weight_decay=0.05, warmup=200, log_every=100)
    for sequences in iterate_batches(SequenceBuilder(rng), rng, tokens):
        if not trainer.is_running():
            break
        loss, is_right = compute_loss(model, sequences)
        trainer.step(loss, loss=loss, right=is_right.float().mean())
    save_model(model, NANO / name)
    print(f"{name} val", measure_accuracies(model, seeds[0]), flush=True)
