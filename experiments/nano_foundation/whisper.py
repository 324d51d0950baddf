"""Trains the Whisper encoder to transcribe (CTC) and to caption what is heard, from the tokens the project reads."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from captioner import Captioner, texts
from folder import NANO, replaced, save
from people import random_scene
from probe import Facts, accuracies
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor, WhisperModel

from omnihuman.data.sample.language import notes
from omnihuman.data.sample.lexicon import LEXICON
from omnihuman.data.sample.voice import waveform
from omnihuman.data.sample.world import EMOTIONS, SOUNDS, Scene
from omnihuman.encoder.whisper import LogMel

WORDS = sorted(LEXICON)
POOL = 3  # 20 ms -> 60 ms, as the project pools


class Clip(NamedTuple):
    """A sounding scene and its mel [M T] at true length, in whole tokens of 60 ms."""

    scene: Scene
    mel: np.ndarray


def clips(rng: np.random.Generator, count: int, split: str = "train") -> list[Clip]:
    """A random generator; random scenes that sound."""
    kinds = ("talk", "speech", "sound", "pair")
    transform = LogMel(80)
    made: list[Clip] = []
    while len(made) < count:
        scene = random_scene(rng, split, str(rng.choice(kinds, p=(0.3, 0.4, 0.15, 0.15))))
        if scene.has_audio:
            made.append(Clip(scene, transform(torch.from_numpy(waveform(scene))).half().T.numpy()))
    return made


def encoded(encoder: nn.Module, some: list[Clip], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Clips; their pooled tokens [B N 128] and which are real; with ``rng`` varied in loudness, and holed."""
    lengths = [clip.mel.shape[1] for clip in some]
    longest = max(lengths)
    mels = [torch.from_numpy(clip.mel).float() for clip in some]
    # behind a clip stands silence, 2 below its loudest, as in the project's encoder
    mel = torch.stack([F.pad(m, (0, longest - m.shape[1]), value=float(m.max()) - 2) for m in mels])
    if rng is not None:
        mel = mel + torch.from_numpy(rng.uniform(-0.1, 0.1, (len(some), 1, 1))).float()
        mel = mel + 0.03 * torch.randn_like(mel)
        for row in mel:
            low, early = int(rng.integers(0, 72)), int(rng.integers(0, longest - 8))
            row[low : low + int(rng.integers(0, 9))] = row.min()
            row[:, early : early + int(rng.integers(0, 9))] = row.min()
    inside = torch.arange(longest) < torch.tensor(lengths)[:, None]
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
    real = inside[:, ::2]
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    bias = torch.zeros(real.shape).masked_fill(~real, -1e4)[:, None, None]
    for layer in encoder.layers:
        x = layer(x, bias)
        x = x[0] if isinstance(x, tuple) else x
    x = encoder.layer_norm(x)
    return x.unflatten(1, (-1, POOL)).mean(2), real[:, ::POOL]


def facts(some: list[Clip]) -> Facts:
    """Clips; the class of each in every factor, -1 where it does not apply."""
    pairs = [(clip, clip.scene.sound is None and not clip.scene.partner_words) for clip in some]
    return {
        "emotion": torch.tensor([EMOTIONS.index(c.scene.voice_emotion) if v else -1 for c, v in pairs]),
        "gender": torch.tensor([int(c.scene.identity.gender == "man") if v else -1 for c, v in pairs]),
        "sound": torch.tensor([SOUNDS.index(c.scene.sound) if c.scene.sound else -1 for c in some]),
    }


def errors(clip: Clip, scores: Tensor) -> tuple[int, int]:
    """A clip and CTC scores [N K]; how many words are wrong (edit distance), and how many there are."""
    best = scores.argmax(-1).tolist()
    heard = [k - 1 for k, before in zip(best, [0, *best[:-1]], strict=True) if k and k != before]
    said = [WORDS.index(word) for word in clip.scene.words + clip.scene.partner_words]
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1], len(said)


@torch.no_grad()
def tokens(encoder: nn.Module, some: list[Clip]) -> tuple[Tensor, Tensor]:
    """Clips; their pooled tokens and masks, padded alike."""
    parts = [encoded(encoder, some[i : i + 32]) for i in range(0, len(some), 32)]
    width = max(part[0].shape[1] for part in parts)
    return (torch.cat([F.pad(x, (0, 0, 0, width - x.shape[1])) for x, _ in parts]),
            torch.cat([F.pad(m, (0, width - m.shape[1])) for _, m in parts]))  # fmt: skip


def finish(model: WhisperModel, spell: nn.Module, train: list[Clip], held_out: list[Clip]) -> None:
    """A trained model; its folder, its probes on people of the val split, and its word error rate there."""
    save(model, NANO / "whisper")
    with replaced(NANO / "whisper", keep=True) as out:
        WhisperFeatureExtractor(feature_size=80).save_pretrained(out)
    state = torch.get_rng_state()
    encoder = WhisperModel.from_pretrained(NANO / "whisper").encoder.eval()
    sides = [(*tokens(encoder, some), facts(some)) for some in (train[:1500], held_out)]
    wrong = [errors(clip, spell(x)[m]) for clip, x, m in zip(held_out, *sides[1][:2], strict=True)]
    rate = sum(a for a, _ in wrong) / sum(b for _, b in wrong)
    result = {name: accuracies(*sides, attends=name == "look", epochs=25) for name in ("mean", "look")}
    print("whisper val", {"word error": round(rate, 3)} | result, flush=True)
    torch.set_rng_state(state)


def make(
    seed: int, minutes: float = 8.0, batch: int = 32, pool: int = 4000, rate: float = 1.5e-3, on: bool = False
) -> None:
    """A seed and a time; writes the model of ``whisper``, with ``on`` beginning at the weights that are there."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 6, int(on)))
    marks = shape.tokenizer()
    model = WhisperModel.from_pretrained(NANO / "whisper") if on else shape.whisper()
    model.set_attn_implementation("eager")
    decoder = Captioner(128, len(marks), marks.convert_tokens_to_ids("<|im_start|>"))
    spell = nn.Linear(128, 1 + len(WORDS))
    parameters = [*model.encoder.parameters(), *decoder.parameters(), *spell.parameters()]
    parameters = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.02)
    held_out = clips(rng, 300, "val")
    known = sorted(clips(rng, pool), key=lambda clip: clip.mel.shape[1])
    some_known = [known[i] for i in rng.permutation(len(known))[:1500]]
    print("whisper: clips are made", flush=True)
    start, spelled, written, step = time.process_time(), 0.0, 0.0, 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * done))
        first = int(rng.integers(0, len(known) - 4 * batch))  # clips alike in length
        some = [known[first + i] for i in rng.permutation(4 * batch)[:batch]]
        lines = [notes(clip.scene, rng)["audio"] for clip in some]
        ids, real = texts(marks, lines)
        with torch.autocast("cpu", torch.bfloat16):
            pooled, mask = encoded(model.encoder, some, rng)
            second = decoder(pooled, mask, ids, real)
            scores = spell(pooled).float().log_softmax(-1)
        said = [[1 + WORDS.index(word) for word in clip.scene.words + clip.scene.partner_words] for clip in some]
        target = torch.tensor([word for words in said for word in words])
        counts = torch.tensor([len(words) for words in said])
        first_loss = F.ctc_loss(scores.transpose(0, 1), target, mask.sum(1), counts, zero_infinity=True)
        optimizer.zero_grad()
        (first_loss + second).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        spelled = 0.98 * spelled + 0.02 * first_loss.item() if step else first_loss.item()
        written = 0.98 * written + 0.02 * second.item() if step else second.item()
        if step % 50 == 0:
            print(f"whisper step {step} {60 * minutes * done:.0f} s ctc {spelled:.3f} caption {written:.3f}")
        step += 1
    finish(model, spell, some_known, held_out)
