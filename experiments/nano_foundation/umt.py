"""Train UMT on drawn clips, with a caption decoder and classifiers on the tokens that the project uses."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from captioner import Captioner, tokenize_texts
from folder import NANO, replace_files
from people import replace_people, sample_scene
from PIL import Image
from probe import Labels, Probe, ProbeSet, collect_labels, measure_accuracies
from safetensors.torch import load_file, save_file
from siglip import compress_jpeg
from torch import Tensor
from training import Trainer

from omnihuman.corpus import draw, world
from omnihuman.corpus.description import caption_frame, describe_scene
from omnihuman.corpus.world import (
    ACTIONS,
    BACKGROUNDS,
    EMOTIONS,
    HAIR_COLORS,
    HAIR_STYLES,
    HAT_COLORS,
    INTERACTIONS,
    SHIRT_COLORS,
    SKINS,
    Scene,
)
from omnihuman.encoder.umt import UMT
from omnihuman.nn.frames import COLORS
from omnihuman.types import Signal

SIZE, FRAMES, SHIFT = 112, 8, 5
KINDS = {"talk": 0.34, "act": 0.22, "interact": 0.18, "pair": 0.08, "still": 0.08, "shots": 0.1}
SHAPE = {
    "patch_size": 16,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "table_frames": 4,
    "table_side": 7,
}
CLASSES = {
    "emotion": 7,
    "fades": 2,
    "action": 8,
    "interaction": 9,
    "shirt": 6,
    "place": 5,
    "people": 2,
    "hair color": 5,
    "hair style": 4,
    "behind": 2,
    "glasses": 2,
    "hat": 5,
    "skin": 3,
    "gender": 2,
    "same person": 2,
}
"""Factor -> number of classes."""


class Clip(NamedTuple):
    """Frames of a scene `[8 3 112 112]` uint8, of a still `[1 3 112 112]`, and the intensity of each expression."""

    frames: Tensor
    scene: Scene
    intensities: list[float]


class Batch(NamedTuple):
    """Frames of clips of one length, a description of each, and labels."""

    frames: list[Tensor]
    texts: list[str]
    labels: Labels


def sample_shots(rng: np.random.Generator, split: str) -> Scene:
    """Sample a scene of two shots; in training four of five have new people."""
    scene = world.sample_scene(rng, split, "shots")
    if split != "train" or rng.random() < 0.2:
        return scene
    return replace_people(scene, rng, num_candidates=20)


def sample_clips(rng: np.random.Generator, count: int, split: str = "train") -> list[Clip]:
    """Sample clips with a frame from each eighth, in training at a random time of it; a third is compressed."""
    clips: list[Clip] = []
    for _ in range(count):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        scene = sample_shots(rng, split) if kind == "shots" else sample_scene(rng, split, kind)
        num_frames = 1 if scene.is_still else FRAMES
        offsets = rng.random(num_frames) if split == "train" else np.full(num_frames, 0.5)
        times = (np.arange(num_frames) + offsets) / num_frames * scene.duration
        frames = [scale_frame(draw.render_frame(scene, t)) for t in times]
        if rng.random() < 0.3:
            quality = int(rng.integers(35, 90))
            frames = [compress_jpeg(frame, quality) for frame in frames]
        intensities = [draw.expression_intensity(*scene.find_shot(t)) for t in times]
        tensor = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        clips.append(Clip(tensor, scene, intensities))
    return clips


def scale_frame(frame: np.ndarray) -> np.ndarray:
    """Scale a frame `[H W 3]` to `[112 112 3]` without keeping its aspect ratio, like the encoder's transform."""
    return np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), Image.BICUBIC))


def build_signal(clips: list[Tensor], rng: np.random.Generator | None = None) -> Signal:
    """Pad frames `[T 3 112 112]` to one length; ``rng`` shifts them and varies their brightness."""
    values = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    mask = torch.arange(values.shape[1]) < lengths[:, None]
    if rng is not None:
        brightness = torch.from_numpy(rng.uniform(0.92, 1.08, (len(values), 1, 1, 1, 1))).float()
        left, top = (int(rng.integers(2 * SHIFT + 1)) for _ in range(2))
        frames = (values * brightness).clamp(0, 255).flatten(0, 1)
        frames = F.pad(frames, (SHIFT,) * 4, mode="replicate")[:, :, top : top + SIZE, left : left + SIZE]
        values = frames.unflatten(0, values.shape[:2]).byte()
    return Signal(values, mask)


def list_labels(scene: Scene, has_all_frames: bool) -> dict[str, int]:
    """Return factor -> class for the factors that a clip shows, or that a single frame of it shows."""
    if scene.shots:
        return {"same person": int(scene.is_same_person)} if has_all_frames else {}
    person = scene.identity
    labels = {"place": BACKGROUNDS.index(scene.background), "people": int(scene.partner is not None)}
    if has_all_frames and scene.is_portrait:
        labels["emotion"] = EMOTIONS.index(scene.face_emotion)
        if not scene.is_still and scene.face_emotion != "neutral":
            labels["fades"] = int(scene.fades)
    if scene.action:
        labels["action"] = ACTIONS.index(scene.action)
        labels["behind"] = int(scene.from_behind)
    if scene.interaction:
        labels["interaction"] = INTERACTIONS.index(scene.interaction)
    if scene.partner is None:
        labels["shirt"] = SHIRT_COLORS.index(person.shirt)
        labels["hair style"] = HAIR_STYLES.index(person.hair)
        labels["hat"] = HAT_COLORS.index(person.hat) + 1 if person.hat else 0
        if person.hair != "no":
            labels["hair color"] = HAIR_COLORS.index(person.hair_color)
        if not scene.from_behind:
            labels["glasses"] = int(person.glasses)
            labels["skin"] = SKINS.index(person.skin)
            labels["gender"] = int(person.gender == "man")
    return labels


def build_labels(clips: list[Clip], has_all_frames: bool = True) -> Labels:
    """Return the classes of clips for every factor, -1 where a clip does not show it."""
    return collect_labels([list_labels(clip.scene, has_all_frames) for clip in clips], CLASSES)


def convert_siglip() -> UMT:
    """Return an encoder with the patches and blocks of the foundation's SigLIP, which encodes single frames."""
    encoder = UMT(image_size=SIZE, **SHAPE)
    source: dict[str, Tensor] = {}
    for name, tensor in load_file(NANO / "siglip" / "model.safetensors").items():
        source[name.removeprefix("vision_model.")] = tensor.float()
    mean, deviation = (torch.tensor(values)[:, None, None] for values in COLORS["imagenet"])
    weight = source["embeddings.patch_embedding.weight"]
    bias = source["embeddings.patch_embedding.bias"]
    # SigLIP's input is 2 x - 1, UMT's is z = (x - mean) / deviation: 2 x - 1 = 2 (deviation z + mean) - 1
    state = {
        "patch_embed.weight": (2 * deviation * weight)[:, :, None],
        "patch_embed.bias": bias + ((2 * mean - 1) * weight).sum((1, 2, 3)),
        "vision_layernorm.weight": torch.ones(128),
        "vision_layernorm.bias": torch.zeros(128),
    }
    names = {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "attn.proj": "self_attn.out_proj",
    }
    for block in range(len(encoder.blocks)):
        old, new = f"encoder.layers.{block}.", f"blocks.{block}."
        for target, name in names.items():
            for kind in ("weight", "bias"):
                state[f"{new}{target}.{kind}"] = source[f"{old}{name}.{kind}"]
        state[f"{new}attn.qkv.weight"] = torch.cat([source[f"{old}self_attn.{k}_proj.weight"] for k in "qkv"])
        for k in "qv":
            state[f"{new}attn.{k}_bias"] = source[f"{old}self_attn.{k}_proj.bias"]
    encoder.load_state_dict(state)
    return encoder


def build_probe_set(encoder: UMT, clips: list[Clip], batch_size: int = 32) -> ProbeSet:
    """Return the tokens of clips in reading order `[B L 128]`, with their labels."""
    tokens: list[Tensor] = []
    masks: list[Tensor] = []
    for start in range(0, len(clips), batch_size):
        frames = [clip.frames for clip in clips[start : start + batch_size]]
        batch_tokens, mask = encoder(build_signal(frames)).flat()
        tokens.append(batch_tokens)
        masks.append(mask)
    return ProbeSet(torch.cat(tokens), torch.cat(masks), build_labels(clips))


def run_probes(encoder: UMT, seed: int) -> dict[str, dict[str, float]]:
    """Return accuracies on people of the val split, from the mean token and by attention."""
    rng = np.random.default_rng((seed, 7))
    encoder.eval().requires_grad_(False)
    sets: list[ProbeSet] = []
    for split, count in (("train", 1200), ("val", 600)):
        clips = [clip for clip in sample_clips(rng, count, split) if not clip.scene.is_still]
        sets.append(build_probe_set(encoder, clips))
    return {name: measure_accuracies(*sets, attends=name == "look", epochs=20) for name in ("mean", "look")}


def build_batch(pool: list[Clip], rng: np.random.Generator, batch_size: int) -> Batch:
    """Build a batch of clips of one length, eight times of ten with all eight frames."""
    num_frames = int(rng.choice((FRAMES, 4, 1), p=(0.8, 0.08, 0.12)))
    clips: list[Clip] = []
    while len(clips) < batch_size:
        clip = pool[int(rng.integers(len(pool)))]
        if len(clip.frames) >= num_frames and not (num_frames == 1 and clip.scene.shots):
            clips.append(clip)
    if num_frames > 1:
        frames = [clip.frames[:: FRAMES // num_frames] for clip in clips]
        texts = [describe_scene(clip.scene, rng, 0.0, fine=True)["video"] for clip in clips]
        return Batch(frames, texts, build_labels(clips))
    indices = [int(rng.integers(len(clip.frames))) for clip in clips]
    frames, texts = [], []
    for clip, index in zip(clips, indices, strict=True):
        frames.append(clip.frames[index : index + 1])
        texts.append(caption_frame(clip.scene, clip.intensities[index], rng))
    return Batch(frames, texts, build_labels(clips, has_all_frames=False))


def run(
    seed: int,
    minutes: float = 12.0,
    batch_size: int = 32,
    pool_size: int = 5000,
    lr: float = 1.2e-3,
    resume: bool = False,
) -> None:
    """Train the encoder of ``umt``; ``resume`` starts from its present weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 6, int(resume)))
    tokenizer = shape.load_tokenizer()
    encoder = UMT(image_size=SIZE, weights=str(NANO / "umt"), **SHAPE) if resume else convert_siglip()
    decoder = Captioner(128, tokenizer)
    probe = Probe(128, CLASSES, attends=True)
    parameters = [*encoder.parameters(), *decoder.parameters(), *probe.parameters()]
    pool = sample_clips(rng, pool_size)
    trainer = Trainer("umt", parameters, lr, minutes, weight_decay=0.02, warmup=60, log_every=25)
    while trainer.is_running():
        batch = build_batch(pool, rng, batch_size)
        ids, valid = tokenize_texts(tokenizer, batch.texts)
        with torch.autocast("cpu", torch.bfloat16):
            tokens, mask = encoder(build_signal(batch.frames, rng)).flat()
            caption_loss = decoder(tokens, mask, ids, valid)
        class_loss = _compute_class_loss(probe(tokens.float(), mask), batch.labels)
        trainer.step(caption_loss + class_loss, caption=caption_loss, classes=class_loss)
    with replace_files(NANO / "umt") as out:
        state = {name: tensor.half().contiguous() for name, tensor in encoder.state_dict().items()}
        save_file(state, out / "model.safetensors")
        (out / "config.json").write_text(json.dumps({"model_type": "umt"} | SHAPE, indent=2, sort_keys=True) + "\n")
    torch.manual_seed(seed)
    print("umt val", run_probes(UMT(image_size=SIZE, weights=str(NANO / "umt"), **SHAPE), seed), flush=True)


def _compute_class_loss(scores: dict[str, Tensor], labels: Labels) -> Tensor:
    """Return the mean cross-entropy over the factors that a batch shows."""
    losses: list[Tensor] = []
    for name in CLASSES:
        if (labels[name] >= 0).any():
            losses.append(F.cross_entropy(scores[name], labels[name], ignore_index=-1))
    return torch.stack(losses).mean()
