"""Train the Whisper encoder to transcribe (CTC) and to caption audio, from the tokens that the project uses."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from captioner import Captioner, tokenize_texts
from folder import NANO, replace_files, save_model
from people import sample_scene
from probe import Labels, ProbeSet, collect_labels, measure_accuracies
from torch import Tensor, nn
from training import Trainer
from transformers import WhisperFeatureExtractor, WhisperModel

from omnihuman.corpus.description import describe_scene
from omnihuman.corpus.lexicon import LEXICON
from omnihuman.corpus.voice import synthesize_waveform
from omnihuman.corpus.world import EMOTIONS, SOUNDS, Scene
from omnihuman.encoder.whisper import LogMel

WORDS = sorted(LEXICON)
POOL = 3  # 20 ms -> 60 ms, like the project's pooling
KINDS = {"talk": 0.3, "speech": 0.4, "sound": 0.15, "pair": 0.15}


class Clip(NamedTuple):
    """A scene with audio and its log-mel spectrogram `[M T]`, in whole tokens of 60 ms."""

    scene: Scene
    mel: np.ndarray


def sample_clips(rng: np.random.Generator, count: int, split: str = "train") -> list[Clip]:
    """Sample clips with audio."""
    transform = LogMel(80)
    clips: list[Clip] = []
    while len(clips) < count:
        scene = sample_scene(rng, split, str(rng.choice(list(KINDS), p=list(KINDS.values()))))
        if scene.has_audio:
            mel = transform(torch.from_numpy(synthesize_waveform(scene)))
            clips.append(Clip(scene, mel.half().T.numpy()))
    return clips


def pad_mels(clips: list[Clip], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return padded spectrograms `[B M T]` and their mask; ``rng`` varies loudness and masks time and frequency."""
    mels = [torch.from_numpy(clip.mel).float() for clip in clips]
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    length = int(lengths.max())
    # padding is silence, 2 below the maximum, as in the project's encoder
    mel = torch.stack([F.pad(m, (0, length - m.shape[1]), value=float(m.max()) - 2) for m in mels])
    if rng is not None:
        mel = mel + torch.from_numpy(rng.uniform(-0.1, 0.1, (len(clips), 1, 1))).float()
        mel = mel + 0.03 * torch.randn_like(mel)
        for spectrogram in mel:
            band, frame = int(rng.integers(0, 72)), int(rng.integers(0, length - 8))
            spectrogram[band : band + int(rng.integers(0, 9))] = spectrogram.min()
            spectrogram[:, frame : frame + int(rng.integers(0, 9))] = spectrogram.min()
    return mel, torch.arange(length) < lengths[:, None]


def encode(encoder: nn.Module, clips: list[Clip], rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return the pooled tokens of clips `[B N 128]` and their mask; see ``pad_mels`` for ``rng``."""
    mel, mask = pad_mels(clips, rng)
    valid = mask[:, ::2]
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    bias = torch.zeros(valid.shape).masked_fill(~valid, -1e4)[:, None, None]
    for layer in encoder.layers:
        x = layer(x, bias)
        x = x[0] if isinstance(x, tuple) else x
    x = encoder.layer_norm(x)
    return x.unflatten(1, (-1, POOL)).mean(2), valid[:, ::POOL]


def list_labels(scene: Scene) -> dict[str, int]:
    """Return factor -> class for the factors that a scene's audio has."""
    if scene.sound:
        return {"sound": SOUNDS.index(scene.sound)}
    if scene.partner_transcript:  # two speakers
        return {}
    return {"emotion": EMOTIONS.index(scene.voice_emotion), "gender": int(scene.identity.gender == "man")}


def build_labels(clips: list[Clip]) -> Labels:
    """Return the classes of clips for every factor, -1 where a factor does not apply."""
    return collect_labels([list_labels(clip.scene) for clip in clips], ("emotion", "gender", "sound"))


def list_word_ids(scene: Scene) -> list[int]:
    """Return the CTC targets of a scene; 0 is the blank."""
    return [1 + WORDS.index(word) for word in scene.transcript + scene.partner_transcript]


def count_errors(clip: Clip, scores: Tensor) -> tuple[int, int]:
    """Return the edit distance of the greedy CTC transcript of scores `[N K]`, and the number of words."""
    best = scores.argmax(-1).tolist()
    hypothesis = [k for k, previous in zip(best, [0, *best[:-1]], strict=True) if k and k != previous]
    reference = list_word_ids(clip.scene)
    distances = list(range(len(reference) + 1))
    for i, word in enumerate(hypothesis, 1):
        diagonal, distances[0] = distances[0], i
        for j, target in enumerate(reference, 1):
            substitution = diagonal + (word != target)
            diagonal = distances[j]
            distances[j] = min(distances[j] + 1, distances[j - 1] + 1, substitution)
    return distances[-1], len(reference)


@torch.no_grad()
def build_probe_set(encoder: nn.Module, clips: list[Clip], batch_size: int = 32) -> ProbeSet:
    """Return the pooled tokens of clips with their labels."""
    tokens: list[Tensor] = []
    masks: list[Tensor] = []
    for start in range(0, len(clips), batch_size):
        batch_tokens, mask = encode(encoder, clips[start : start + batch_size])
        tokens += batch_tokens
        masks += mask
    padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    return ProbeSet(padded, nn.utils.rnn.pad_sequence(masks, batch_first=True), build_labels(clips))


def run(
    seed: int,
    minutes: float = 8.0,
    batch_size: int = 32,
    pool_size: int = 4000,
    lr: float = 1.5e-3,
    resume: bool = False,
) -> None:
    """Train the model of ``whisper``; ``resume`` starts from its present weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 6, int(resume)))
    tokenizer = shape.load_tokenizer()
    model = WhisperModel.from_pretrained(NANO / "whisper") if resume else shape.build_whisper()
    model.set_attn_implementation("eager")
    decoder = Captioner(128, tokenizer)
    ctc_head = nn.Linear(128, 1 + len(WORDS))
    parameters = [*model.encoder.parameters(), *decoder.parameters(), *ctc_head.parameters()]
    held_out = sample_clips(rng, 300, "val")
    pool = sorted(sample_clips(rng, pool_size), key=lambda clip: clip.mel.shape[1])
    probe_clips = [pool[i] for i in rng.permutation(len(pool))[:1500]]
    print("whisper: clips are synthesized", flush=True)
    trainable = [p for p in parameters if p.requires_grad]
    trainer = Trainer("whisper", trainable, lr, minutes, weight_decay=0.02)
    while trainer.is_running():
        first = int(rng.integers(0, len(pool) - 4 * batch_size))  # clips of similar length
        clips = [pool[first + i] for i in rng.permutation(4 * batch_size)[:batch_size]]
        captions = [describe_scene(clip.scene, rng)["audio"] for clip in clips]
        ids, valid = tokenize_texts(tokenizer, captions)
        with torch.autocast("cpu", torch.bfloat16):
            tokens, mask = encode(model.encoder, clips, rng)
            caption_loss = decoder(tokens, mask, ids, valid)
            scores = ctc_head(tokens).float().log_softmax(-1)
        ctc_loss = _compute_ctc_loss(scores, mask, clips)
        trainer.step(ctc_loss + caption_loss, ctc=ctc_loss, caption=caption_loss)
    _save(model, ctc_head, probe_clips, held_out)


def _compute_ctc_loss(scores: Tensor, mask: Tensor, clips: list[Clip]) -> Tensor:
    words = [list_word_ids(clip.scene) for clip in clips]
    targets = torch.tensor(list(chain.from_iterable(words)))
    lengths = torch.tensor([len(ids) for ids in words])
    return F.ctc_loss(scores.transpose(0, 1), targets, mask.sum(1), lengths, zero_infinity=True)


def _save(model: WhisperModel, ctc_head: nn.Module, train: list[Clip], held_out: list[Clip]) -> None:
    """Save a model, and print its word error rate and the accuracies of its probes on people of the val split."""
    save_model(model, NANO / "whisper")
    with replace_files(NANO / "whisper", keep=True) as out:
        WhisperFeatureExtractor(feature_size=80).save_pretrained(out)
    state = torch.get_rng_state()
    encoder = WhisperModel.from_pretrained(NANO / "whisper").encoder.eval()
    sets = (build_probe_set(encoder, train), build_probe_set(encoder, held_out))
    num_errors, num_words = 0, 0
    for clip, tokens, mask in zip(held_out, sets[1].tokens, sets[1].mask, strict=True):
        errors, words = count_errors(clip, ctc_head(tokens)[mask])
        num_errors += errors
        num_words += words
    accuracies = {name: measure_accuracies(*sets, attends=name == "look", epochs=25) for name in ("mean", "look")}
    print("whisper val", {"word error": round(num_errors / num_words, 3)} | accuracies, flush=True)
    torch.set_rng_state(state)
