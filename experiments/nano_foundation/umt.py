"""Trains UMT on drawn clips, with a caption decoder and class readers on the tokens that the project reads."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from captioner import Captioner, texts
from folder import NANO, replaced
from people import random_scene, stranger
from PIL import Image
from probe import Facts, Reader, accuracies
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnihuman.data.sample import draw, world
from omnihuman.data.sample.language import notes, picture_caption
from omnihuman.data.sample.world import (
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

SIZE, FRAMES = 112, 8
KINDS = {"talk": 0.34, "act": 0.22, "interact": 0.18, "pair": 0.08, "still": 0.08, "shots": 0.1}
SHAPE = {
    "patch_size": 16, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 5, "num_attention_heads": 4,
    "table_frames": 4, "table_side": 7,
}  # fmt: skip
CLASSES = {
    "emotion": 7, "fades": 2, "action": 8, "interaction": 9, "shirt": 6, "place": 5, "people": 2, "hair color": 5,
    "hair style": 4, "behind": 2, "glasses": 2, "hat": 5, "skin": 3, "gender": 2, "same person": 2,
}  # fmt: skip


class Clip(NamedTuple):
    """Frames of a scene [8 3 112 112] uint8, of a still [1 3 112 112], and how strong the expression is in each."""

    frames: Tensor
    scene: Scene
    levels: list[float]


def two_shots(rng: np.random.Generator, split: str) -> Scene:
    """A random generator; a scene of two shots, in training of new people."""
    scene = world.random_scene(rng, split, "shots")
    if split != "train" or rng.random() < 0.2:
        return scene
    who = stranger(rng, scene.identity.gender)
    other = who if scene.is_same_person else world.double(rng, who, [stranger(rng, who.gender) for _ in range(20)])
    first, second = scene.shots
    other = replace(other, shirt=second.identity.shirt)
    return replace(scene, identity=who, shots=(replace(first, identity=who), replace(second, identity=other)))


def clips(rng: np.random.Generator, count: int, split: str = "train") -> list[Clip]:
    """A random generator; scenes with a frame from each eighth, in training at any time of it, some JPEG-blurred."""
    made = []
    for _ in range(count):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        scene = two_shots(rng, split) if kind == "shots" else random_scene(rng, split, kind)
        number = 1 if scene.is_still else FRAMES
        within = rng.random(number) if split == "train" else np.full(number, 0.5)
        times = (np.arange(number) + within) / number * scene.duration
        quality = int(rng.integers(35, 90)) if rng.random() < 0.3 else None
        pictures = np.stack([picture(draw.draw(scene, t), quality) for t in times])
        levels = [draw.level(*scene.shot(t)) for t in times]
        made.append(Clip(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), scene, levels))
    return made


def picture(drawn: np.ndarray, quality: int | None) -> np.ndarray:
    """A frame [H W 3]; squashed to [112 112 3] as by the encoder's transform, through JPEG if a quality is given."""
    image = Image.fromarray(drawn).resize((SIZE, SIZE), Image.BICUBIC)
    if quality is not None:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=quality)
        image = Image.open(packed)
    return np.asarray(image)


def signal(some: list[Tensor], rng: np.random.Generator | None = None) -> Signal:
    """Clips [T 3 112 112]; padded to one length, moved a little and of varied light if ``rng`` is given."""
    longest = max(map(len, some))
    values = torch.stack([F.pad(clip, (0, 0, 0, 0, 0, 0, 0, longest - len(clip))) for clip in some])
    mask = torch.arange(longest) < torch.tensor([len(clip) for clip in some])[:, None]
    if rng is not None:
        light = torch.from_numpy(rng.uniform(0.92, 1.08, (len(values), 1, 1, 1, 1))).float()
        right, down = (int(rng.integers(-5, 6)) for _ in range(2))
        moved = F.pad((values * light).clamp(0, 255).flatten(0, 1), (5, 5, 5, 5), mode="replicate")
        moved = moved[:, :, 5 + down : 5 + down + SIZE, 5 + right : 5 + right + SIZE]
        values = moved.unflatten(0, values.shape[:2]).byte()
    return Signal(values, mask)


def facts(scenes: list[Scene], whole: bool = True) -> Facts:
    """Scenes; the class of each in every factor, -1 where it is not to be seen (or not in one frame, not ``whole``)."""
    seen: dict[str, list[int]] = {name: [] for name in CLASSES}
    for scene in scenes:
        person, cut = scene.identity, bool(scene.shots)
        alone = not cut and scene.kind != "pair" and scene.partner is None
        front = alone and not scene.from_behind
        face = whole and scene.is_portrait and not cut
        says = {
            "emotion": (face, EMOTIONS.index(scene.face_emotion)),
            "fades": (face and not scene.is_still and scene.face_emotion != "neutral", scene.fades),
            "action": (scene.action, scene.action and ACTIONS.index(scene.action)),
            "interaction": (scene.interaction, scene.interaction and INTERACTIONS.index(scene.interaction)),
            "shirt": (alone, SHIRT_COLORS.index(person.shirt)),
            "place": (not cut, BACKGROUNDS.index(scene.background)),
            "people": (not cut, scene.partner is not None),
            "hair color": (alone and person.hair != "no", HAIR_COLORS.index(person.hair_color)),
            "hair style": (alone, HAIR_STYLES.index(person.hair)),
            "behind": (scene.action, scene.from_behind),
            "glasses": (front, person.glasses),
            "hat": (alone, HAT_COLORS.index(person.hat) + 1 if person.hat else 0),
            "skin": (front, SKINS.index(person.skin)),
            "gender": (front, person.gender == "man"),
            "same person": (whole and cut, scene.is_same_person),
        }
        for name, (is_seen, value) in says.items():
            seen[name].append(int(value) if is_seen else -1)
    return {name: torch.tensor(values) for name, values in seen.items()}


def begin() -> UMT:
    """The encoder with the patches and blocks of the foundation's SigLIP, which knows single frames already."""
    tower, theirs = UMT(image_size=SIZE, **SHAPE), load_file(NANO / "siglip" / "model.safetensors")
    theirs = {name.removeprefix("vision_model."): value.float() for name, value in theirs.items()}
    mean, deviation = (torch.tensor(values)[:, None, None] for values in COLORS["imagenet"])
    weight = theirs["embeddings.patch_embedding.weight"]
    # SigLIP reads 2 x - 1, which is 2 (deviation z + mean) - 1
    state = {"patch_embed.weight": (2 * deviation * weight)[:, :, None],
             "patch_embed.bias": theirs["embeddings.patch_embedding.bias"] + ((2 * mean - 1) * weight).sum((1, 2, 3)),
             "vision_layernorm.weight": torch.ones(128), "vision_layernorm.bias": torch.zeros(128)}  # fmt: skip
    places = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
              "attn.proj": "self_attn.out_proj"}  # fmt: skip
    for block in range(len(tower.blocks)):
        old, new = f"encoder.layers.{block}.", f"blocks.{block}."
        for ours, name in places.items():
            state |= {f"{new}{ours}.{kind}": theirs[f"{old}{name}.{kind}"] for kind in ("weight", "bias")}
        state[f"{new}attn.qkv.weight"] = torch.cat([theirs[f"{old}self_attn.{k}_proj.weight"] for k in "qkv"])
        state |= {f"{new}attn.{k}_bias": theirs[f"{old}self_attn.{k}_proj.bias"] for k in "qv"}
    tower.load_state_dict(state)
    return tower


def flat(tower: UMT, given: Signal) -> tuple[Tensor, Tensor]:
    """Clips; their tokens in reading order [B L 128] and which are real."""
    return tower(given).flat()


def probes(tower: UMT, seed: int, train: int = 1200, held_out: int = 600) -> dict[str, dict[str, float]]:
    """An encoder; accuracies on people of the val split, read from the mean token and by one learned look."""
    rng = np.random.default_rng((seed, 7))
    tower.eval().requires_grad_(False)
    sides = []
    for split, count in (("train", train), ("val", held_out)):
        some = [clip for clip in clips(rng, count, split) if not clip.scene.is_still]
        made = [flat(tower, signal([clip.frames for clip in some[i : i + 32]])) for i in range(0, len(some), 32)]
        tokens, mask = (torch.cat(parts) for parts in zip(*made, strict=True))
        sides.append((tokens, mask, facts([clip.scene for clip in some])))
    return {name: accuracies(*sides, attends=name == "look", epochs=20) for name in ("mean", "look")}


def lesson(known: list[Clip], rng: np.random.Generator, batch: int) -> tuple[list[Tensor], list[str], Facts]:
    """Clips of one length, eight times of ten the whole eight frames; what is said of them, and their classes."""
    count = int(rng.choice((FRAMES, 4, 1), p=(0.8, 0.08, 0.12)))
    some: list[Clip] = []
    while len(some) < batch:
        clip = known[int(rng.integers(len(known)))]
        if len(clip.frames) >= count and not (count == 1 and clip.scene.shots):
            some.append(clip)
    if count > 1:
        frames = [clip.frames[:: FRAMES // count] for clip in some]
        return (
            frames,
            [notes(clip.scene, rng, 0.0, fine=True)["video"] for clip in some],
            facts([c.scene for c in some]),
        )
    picks = [int(rng.integers(len(clip.frames))) for clip in some]
    said = [picture_caption(clip.scene, clip.levels[n], rng) for clip, n in zip(some, picks, strict=True)]
    frames = [clip.frames[n : n + 1] for clip, n in zip(some, picks, strict=True)]
    return frames, said, facts([clip.scene for clip in some], whole=False)


def make(
    seed: int, minutes: float = 12.0, batch: int = 32, pool: int = 5000, rate: float = 1.2e-3, on: bool = False
) -> None:
    """A seed and a time; writes the encoder of ``umt``, with ``on`` beginning at the weights that are there."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 6, int(on)))
    marks = shape.tokenizer()
    tower = UMT(image_size=SIZE, weights=str(NANO / "umt"), **SHAPE) if on else begin()
    decoder = Captioner(128, len(marks), marks.convert_tokens_to_ids("<|im_start|>"))
    reader = Reader(128, CLASSES, attends=True)
    parameters = [*tower.parameters(), *decoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.02)
    known = clips(rng, pool)
    start, means, step = time.process_time(), torch.zeros(2), 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 60) * (0.5 + 0.5 * np.cos(np.pi * done))
        frames, said, truth = lesson(known, rng, batch)
        words, real = texts(marks, said)
        with torch.autocast("cpu", torch.bfloat16):
            tokens, mask = flat(tower, signal(frames, rng))
            told = decoder(tokens, mask, words, real)
        scores = reader(tokens.float(), mask)
        there = [name for name in CLASSES if (truth[name] >= 0).any()]
        read = sum(F.cross_entropy(scores[name], truth[name], ignore_index=-1) for name in there) / len(there)
        optimizer.zero_grad()
        (told + read).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        now = torch.tensor([told.item(), read.item()])
        means = 0.98 * means + 0.02 * now if step else now
        if step % 25 == 0:
            spent = 60 * minutes * done
            print(f"umt step {step} {spent:.0f} s caption {means[0]:.3f} classes {means[1]:.3f}")
        step += 1
    with replaced(NANO / "umt") as out:
        save_file({key: x.half().contiguous() for key, x in tower.state_dict().items()}, out / "model.safetensors")
        (out / "config.json").write_text(json.dumps({"model_type": "umt"} | SHAPE, indent=2, sort_keys=True) + "\n")
    torch.manual_seed(seed)
    print("umt val", probes(UMT(image_size=SIZE, weights=str(NANO / "umt"), **SHAPE), seed), flush=True)
