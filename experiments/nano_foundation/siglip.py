"""Trains SigLIP on drawn frames and their captions, with a caption decoder on the tokens that the project reads."""

from __future__ import annotations

import io
import time
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from captioner import Captioner, texts
from folder import NANO, replaced, save
from people import random_scene
from PIL import Image
from probe import Facts, accuracies
from torch import Tensor
from transformers import SiglipImageProcessor, SiglipVisionModel

from omnihuman.data.sample import draw
from omnihuman.data.sample.language import notes, picture_caption
from omnihuman.data.sample.world import (
    ACTIONS,
    BACKGROUNDS,
    EMOTIONS,
    HAIR_COLORS,
    HAT_COLORS,
    INTERACTIONS,
    SHIRT_COLORS,
    Scene,
)

SIZE = 112


class Frame(NamedTuple):
    """A frame of a scene: the picture [112 112 3] uint8 and how strong its expression is."""

    picture: np.ndarray
    scene: Scene
    level: float


def letterboxed(picture: np.ndarray, size: int = SIZE) -> np.ndarray:
    """A picture [H W 3]; padded with 127 to a square and scaled, [size size 3]."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    rest = ((top, side - height - top), (left, side - width - left), (0, 0))
    return np.asarray(Image.fromarray(np.pad(picture, rest, constant_values=127)).resize((size, size), Image.BICUBIC))


def frames(rng: np.random.Generator, count: int, split: str = "train") -> list[Frame]:
    """A random generator; frames at random times of random scenes, some of them as blurred as a video codec does."""
    made: list[Frame] = []
    while len(made) < count:
        scene = random_scene(rng, split)
        if not scene.has_video:
            continue
        t = rng.uniform(0, scene.duration)
        picture = letterboxed(draw.draw(scene, t))
        if rng.random() < 0.3:
            packed = io.BytesIO()
            Image.fromarray(picture).save(packed, "JPEG", quality=int(rng.integers(35, 90)))
            picture = np.asarray(Image.open(packed))
        made.append(Frame(picture, scene, draw.level(scene, t)))
    return made


def caption(frame: Frame, rng: np.random.Generator) -> str:
    """A frame; what its picture shows in words."""
    return picture_caption(frame.scene, frame.level, rng)


def dense(frame: Frame, rng: np.random.Generator) -> str:
    """A frame; everything that its picture shows, where it shows what the whole clip does, otherwise a caption."""
    scene = frame.scene
    whole = not scene.is_portrait or scene.face_emotion == "neutral" or frame.level > 0.6
    return notes(scene, rng, drop=0.0)["video"] if whole and rng.random() < 0.5 else caption(frame, rng)


def pixels(pictures: list[np.ndarray], rng: np.random.Generator | None = None) -> Tensor:
    """Pictures; as the encoder wants them [B 3 H W], shifted a little and of varied light if ``rng`` is given."""
    values = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if rng is not None:
        light = torch.from_numpy(rng.uniform(0.92, 1.08, (len(values), 1, 1, 1))).float()
        right, down = (int(rng.integers(-5, 6)) for _ in range(2))
        values = F.pad((values * light).clamp(-1, 1), (5, 5, 5, 5), mode="replicate")
        values = values[:, :, 5 + down : 5 + down + SIZE, 5 + right : 5 + right + SIZE]
    return values


def facts(some: list[Frame]) -> Facts:
    """Frames; the class of each in every factor, -1 where the factor is not there to be seen."""
    seen: dict[str, list[int]] = {name: [] for name in ("emotion", "hair", "glasses", "hat", "shirt", "action",
                                                        "interaction", "place", "gender")}  # fmt: skip
    for frame in some:
        scene, person = frame.scene, frame.scene.identity
        alone = scene.kind != "pair" and scene.partner is None
        front = alone and not scene.from_behind
        emotion = scene.face_emotion
        strong = scene.is_portrait and (frame.level > 0.7 or emotion == "neutral")
        seen["emotion"].append(EMOTIONS.index(emotion) if strong else -1)
        seen["hair"].append(HAIR_COLORS.index(person.hair_color) if alone and person.hair != "no" else -1)
        seen["glasses"].append(int(person.glasses) if front else -1)
        seen["hat"].append((HAT_COLORS.index(person.hat) + 1 if person.hat else 0) if alone else -1)
        seen["shirt"].append(SHIRT_COLORS.index(person.shirt) if alone else -1)
        seen["action"].append(ACTIONS.index(scene.action) if scene.action else -1)
        seen["interaction"].append(INTERACTIONS.index(scene.interaction) if scene.interaction else -1)
        seen["place"].append(BACKGROUNDS.index(scene.background))
        seen["gender"].append(int(person.gender == "man") if front else -1)
    return {name: torch.tensor(values) for name, values in seen.items()}


@torch.no_grad()
def tokens(vision: torch.nn.Module, some: list[Frame]) -> Tensor:
    """Frames; the tokens that the project reads: the last block but one, [B 49 128]."""
    parts = [pixels([f.picture for f in some[i : i + 64]]) for i in range(0, len(some), 64)]
    return torch.cat([vision(pixel_values=p, output_hidden_states=True).hidden_states[-2] for p in parts])


def probes(vision: torch.nn.Module, seed: int, train: int = 2500, held_out: int = 900) -> dict[str, dict[str, float]]:
    """A vision model; accuracies on people of the val split, read from the mean token and by one learned look."""
    rng = np.random.default_rng((seed, 5))
    vision.eval()
    sides = []
    for split, count in (("train", train), ("val", held_out)):
        some = frames(rng, count, split)
        made = tokens(vision, some)
        sides.append((made, torch.ones(made.shape[:2], dtype=torch.bool), facts(some)))
    return {name: accuracies(*sides, attends=name == "look") for name in ("mean", "look")}


def make(
    seed: int, minutes: float = 20.0, batch: int = 64, pool: int = 20000, rate: float = 1.5e-3, on: bool = False
) -> None:
    """A seed and a time; writes the model of ``siglip``, with ``on`` beginning at the vision weights that are there."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 4, int(on)))
    marks, model = shape.tokenizer(), shape.siglip()
    if on:
        vision = SiglipVisionModel.from_pretrained(NANO / "siglip")
        model.vision_model.load_state_dict(getattr(vision, "vision_model", vision).state_dict())
    model.set_attn_implementation("eager")
    with torch.no_grad():  # as the paper starts them, so that the many unequal pairs of a batch weigh little at first
        model.logit_scale.fill_(np.log(10))
        model.logit_bias.fill_(-6)
    decoder = Captioner(128, len(marks), marks.convert_tokens_to_ids("<|im_start|>"))
    parameters = [*model.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.02)
    known = frames(rng, pool)
    start, matched, written = time.process_time(), 0.0, 0.0
    step = 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * done))
        some = [known[i] for i in rng.integers(len(known), size=batch)]
        values = pixels([frame.picture for frame in some], rng)
        short, _ = texts(marks, [caption(frame, rng) for frame in some], 64)
        long, real = texts(marks, [dense(frame, rng) for frame in some])
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.vision_model(pixel_values=values, output_hidden_states=True)
            said = model.text_model(input_ids=short).pooler_output
            patches = seen.hidden_states[-2]
            second = decoder(patches, torch.ones(patches.shape[:2], dtype=torch.bool), long, real)
        left, right = F.normalize(seen.pooler_output.float(), dim=-1), F.normalize(said.float(), dim=-1)
        scores = left @ right.T * model.logit_scale.exp() + model.logit_bias
        first = -F.logsigmoid(scores * (2 * torch.eye(batch) - 1)).sum() / batch
        optimizer.zero_grad()
        (first + second).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        matched = 0.98 * matched + 0.02 * first.item() if step else first.item()
        written = 0.98 * written + 0.02 * second.item() if step else second.item()
        if step % 50 == 0:
            print(f"siglip step {step} {60 * minutes * done:.0f} s match {matched:.3f} caption {written:.3f}")
        step += 1
    finish(model.vision_model, seed)


def finish(vision: torch.nn.Module, seed: int) -> None:
    """A trained vision model; its folder and its probes."""
    alone = SiglipVisionModel(vision.config)
    inner = alone.vision_model if hasattr(alone, "vision_model") else alone
    inner.load_state_dict(vision.state_dict())
    save(alone, NANO / "siglip")
    with replaced(NANO / "siglip", keep=True) as out:
        SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(out)
    state = torch.get_rng_state()
    print("siglip val", probes(SiglipVisionModel.from_pretrained(NANO / "siglip"), seed), flush=True)
    torch.set_rng_state(state)
