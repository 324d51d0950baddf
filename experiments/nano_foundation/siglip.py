"""Train SigLIP on drawn frames and captions, with a caption decoder on the tokens that the project uses."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import shape
import torch
import torch.nn.functional as F
from captioner import Captioner, tokenize_texts
from folder import NANO, replace_files, save_model
from people import sample_scene
from PIL import Image
from probe import Labels, ProbeSet, collect_labels, measure_accuracies
from torch import Tensor
from training import Trainer
from transformers import SiglipImageProcessor, SiglipVisionModel

from omnihuman.corpus import draw
from omnihuman.corpus.description import caption_frame, describe_scene
from omnihuman.corpus.world import (
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
SHIFT = 5
FACTORS = ("emotion", "hair", "glasses", "hat", "shirt", "action", "interaction", "place", "gender")


class Frame(NamedTuple):
    """A frame of a scene `[112 112 3]` uint8, and the intensity of its expression."""

    pixels: np.ndarray
    scene: Scene
    intensity: float


def pad_to_square(pixels: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Pad a frame `[H W 3]` to a square with 127, and scale it to `[size size 3]`."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    margins = ((top, side - height - top), (left, side - width - left), (0, 0))
    square = Image.fromarray(np.pad(pixels, margins, constant_values=127))
    return np.asarray(square.resize((size, size), Image.BICUBIC))


def compress_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return a frame after JPEG compression, whose artifacts resemble those of a video codec."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def sample_frames(rng: np.random.Generator, count: int, split: str = "train") -> list[Frame]:
    """Sample frames at random times of random scenes, a third of them compressed."""
    frames: list[Frame] = []
    while len(frames) < count:
        scene = sample_scene(rng, split)
        if not scene.has_video:
            continue
        t = rng.uniform(0, scene.duration)
        pixels = pad_to_square(draw.render_frame(scene, t))
        if rng.random() < 0.3:
            pixels = compress_jpeg(pixels, int(rng.integers(35, 90)))
        frames.append(Frame(pixels, scene, draw.expression_intensity(scene, t)))
    return frames


def write_caption(frame: Frame, rng: np.random.Generator) -> str:
    """Return a short caption."""
    return caption_frame(frame.scene, frame.intensity, rng)


def write_dense_caption(frame: Frame, rng: np.random.Generator) -> str:
    """Return the description of the scene for half of the frames that show all of it, otherwise a short caption."""
    scene = frame.scene
    shows_all = not scene.is_portrait or scene.face_emotion == "neutral" or frame.intensity > 0.6
    if shows_all and rng.random() < 0.5:
        return describe_scene(scene, rng, drop=0.0)["video"]
    return write_caption(frame, rng)


def build_inputs(frames: list[Frame], rng: np.random.Generator | None = None) -> Tensor:
    """Return the inputs of the encoder `[B 3 H W]`, with random shifts and brightness if ``rng`` is given."""
    values = torch.from_numpy(np.stack([frame.pixels for frame in frames])).permute(0, 3, 1, 2).float() / 127.5 - 1
    if rng is not None:
        brightness = torch.from_numpy(rng.uniform(0.92, 1.08, (len(values), 1, 1, 1))).float()
        left, top = (int(rng.integers(2 * SHIFT + 1)) for _ in range(2))
        values = F.pad((values * brightness).clamp(-1, 1), (SHIFT,) * 4, mode="replicate")
        values = values[:, :, top : top + SIZE, left : left + SIZE]
    return values


def list_labels(frame: Frame) -> dict[str, int]:
    """Return factor -> class for the factors that a frame shows."""
    scene, person = frame.scene, frame.scene.identity
    labels = {"place": BACKGROUNDS.index(scene.background)}
    if scene.is_portrait and (frame.intensity > 0.7 or scene.face_emotion == "neutral"):
        labels["emotion"] = EMOTIONS.index(scene.face_emotion)
    if scene.action:
        labels["action"] = ACTIONS.index(scene.action)
    if scene.interaction:
        labels["interaction"] = INTERACTIONS.index(scene.interaction)
    if scene.kind == "pair" or scene.partner is not None:
        return labels
    labels["hat"] = HAT_COLORS.index(person.hat) + 1 if person.hat else 0
    labels["shirt"] = SHIRT_COLORS.index(person.shirt)
    if person.hair != "no":
        labels["hair"] = HAIR_COLORS.index(person.hair_color)
    if not scene.from_behind:
        labels["glasses"] = int(person.glasses)
        labels["gender"] = int(person.gender == "man")
    return labels


def build_labels(frames: list[Frame]) -> Labels:
    """Return the classes of frames for every factor, -1 where a frame does not show it."""
    return collect_labels([list_labels(frame) for frame in frames], FACTORS)


@torch.no_grad()
def encode(vision: torch.nn.Module, frames: list[Frame]) -> Tensor:
    """Return the tokens that the project uses, those of the last block but one `[B 49 128]`."""
    tokens: list[Tensor] = []
    for start in range(0, len(frames), 64):
        output = vision(pixel_values=build_inputs(frames[start : start + 64]), output_hidden_states=True)
        tokens.append(output.hidden_states[-2])
    return torch.cat(tokens)


def run_probes(vision: torch.nn.Module, seed: int) -> dict[str, dict[str, float]]:
    """Return accuracies on people of the val split, from the mean token and by attention."""
    rng = np.random.default_rng((seed, 5))
    vision.eval()
    sets: list[ProbeSet] = []
    for split, count in (("train", 2500), ("val", 900)):
        frames = sample_frames(rng, count, split)
        tokens = encode(vision, frames)
        sets.append(ProbeSet(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), build_labels(frames)))
    return {name: measure_accuracies(*sets, attends=name == "look") for name in ("mean", "look")}


def run(
    seed: int,
    minutes: float = 20.0,
    batch_size: int = 64,
    pool_size: int = 20000,
    lr: float = 1.5e-3,
    resume: bool = False,
) -> None:
    """Train the model of ``siglip``; ``resume`` starts from its present vision weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 4, int(resume)))
    tokenizer, model = shape.load_tokenizer(), shape.build_siglip()
    if resume:
        vision = SiglipVisionModel.from_pretrained(NANO / "siglip")
        model.vision_model.load_state_dict(getattr(vision, "vision_model", vision).state_dict())
    model.set_attn_implementation("eager")
    with torch.no_grad():  # the paper's start: the many negative pairs of a batch weigh little at first
        model.logit_scale.fill_(np.log(10))
        model.logit_bias.fill_(-6)
    decoder = Captioner(128, tokenizer)
    pool = sample_frames(rng, pool_size)
    trainer = Trainer("siglip", [*model.parameters(), *decoder.parameters()], lr, minutes, weight_decay=0.02)
    while trainer.is_running():
        frames = [pool[i] for i in rng.integers(len(pool), size=batch_size)]
        inputs = build_inputs(frames, rng)
        captions, _ = tokenize_texts(tokenizer, [write_caption(frame, rng) for frame in frames], 64)
        dense, valid = tokenize_texts(tokenizer, [write_dense_caption(frame, rng) for frame in frames])
        with torch.autocast("cpu", torch.bfloat16):
            output = model.vision_model(pixel_values=inputs, output_hidden_states=True)
            text = model.text_model(input_ids=captions).pooler_output
            patches = output.hidden_states[-2]
            caption_loss = decoder(patches, torch.ones(patches.shape[:2], dtype=torch.bool), dense, valid)
        match_loss = _sigmoid_loss(model, output.pooler_output, text)
        trainer.step(match_loss + caption_loss, match=match_loss, caption=caption_loss)
    _save(model.vision_model, seed)


def _sigmoid_loss(model: torch.nn.Module, image: Tensor, text: Tensor) -> Tensor:
    """Return SigLIP's loss of pooled images and texts `[B D]`, in which pairs on the diagonal match."""
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    scores = image @ text.T * model.logit_scale.exp() + model.logit_bias
    signs = 2 * torch.eye(len(scores)) - 1
    return -F.logsigmoid(scores * signs).sum() / len(scores)


def _save(vision: torch.nn.Module, seed: int) -> None:
    """Save a vision model and print the accuracies of its probes."""
    model = SiglipVisionModel(vision.config)
    getattr(model, "vision_model", model).load_state_dict(vision.state_dict())
    save_model(model, NANO / "siglip")
    with replace_files(NANO / "siglip", keep=True) as out:
        SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(out)
    state = torch.get_rng_state()
    print("siglip val", run_probes(SiglipVisionModel.from_pretrained(NANO / "siglip"), seed), flush=True)
    torch.set_rng_state(state)
