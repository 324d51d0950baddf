"""Train the FaceXFormer-shaped Swin to classify attributes and expressions of drawn faces, large and small."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from folder import NANO, replace_files
from people import sample_scene
from probe import Labels, Probe, ProbeSet, collect_labels, measure_accuracies
from safetensors.torch import save_file
from siglip import compress_jpeg
from torch import Tensor, nn
from training import Trainer

from omnihuman.corpus import draw
from omnihuman.corpus.face import Expression
from omnihuman.corpus.world import EMOTIONS, HAIR_COLORS, HAIR_STYLES, HAT_COLORS, SKINS, Scene
from omnihuman.data.face import FaceInput
from omnihuman.data.record import FaceDetection
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Features, Signal

SHAPE: dict[str, Any] = {
    "embed_dim": 32,
    "depths": [1, 1, 3, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": 7,
    "dim": 128,
}
SIZE, POOL, SHIFT = 112, 7, 5
FACTORS: dict[str, tuple[str, ...]] = {
    "expression": EMOTIONS,
    "hair style": HAIR_STYLES,
    "hair colour": HAIR_COLORS,
    "glasses": ("no", "yes"),
    "beard": ("no", "yes"),
    "hat": ("none", *HAT_COLORS),
    "skin": SKINS,
    "gender": ("woman", "man"),
}
"""Factor of a face -> its classes."""


class Face(NamedTuple):
    """A face crop `[3 112 112]` uint8, the intensity of its expression, and the activations of its muscles."""

    pixels: Tensor
    scene: Scene
    intensity: float
    muscles: Expression


def build_encoder(weights: str | None = None) -> FaceXFormer:
    """Build the encoder of the nano preset, with random weights or those of a folder."""
    return FaceXFormer(image_size=SIZE, pool=POOL, weights=weights, **SHAPE)


def sample_faces(rng: np.random.Generator, count: int, split: str = "train", small: bool | None = None) -> list[Face]:
    """Sample face crops at random times of random scenes; four of ten are small, of whole bodies or of two people."""
    transform = SquareFrames(SIZE, "squash")
    faces: list[Face] = []
    while len(faces) < count:
        is_small = rng.random() < 0.4 if small is None else small
        if is_small:
            kind = str(rng.choice(["act", "interact", "pair"], p=[0.4, 0.4, 0.2]))
        else:
            kind = str(rng.choice(["talk"]))
        scene = sample_scene(rng, split, kind)
        t = float(rng.uniform(0, scene.duration))
        crop = _sample_crop(scene, t, rng, is_train=split == "train")
        if crop is None:
            continue
        if split == "train" and not is_small and rng.random() < 0.25:
            side = int(rng.integers(20, 64))
            crop = F.interpolate(crop[None].float(), (side, side), mode="area")[0].byte()
        pixels = transform(crop[None])[0]
        muscles = draw.compute_expression(scene, t)
        faces.append(Face(pixels, scene, draw.expression_intensity(scene, t), muscles))
    return faces


def _sample_crop(scene: Scene, t: float, rng: np.random.Generator, is_train: bool) -> Tensor | None:
    """Crop the main face as the project does, in training with a moved box; a third is compressed."""
    box = draw.compute_face_box(scene, t)
    if box is None:
        return None
    pixels = draw.render_frame(scene, t)
    if rng.random() < 0.3:
        pixels = compress_jpeg(pixels, int(rng.integers(35, 90)))
    if is_train:  # like the box of a detector, or one between two boxes of a record
        sizes = (box[2] - box[0], box[3] - box[1]) * 2
        box = tuple(x + size * shift for x, size, shift in zip(box, sizes, rng.uniform(-0.08, 0.08, 4), strict=True))
    frame = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    (crop,) = FaceInput()(frame[None], [t], [FaceDetection(t, (box,))], scene.id)
    return crop


def list_labels(face: Face) -> dict[str, int]:
    """Return factor -> class for the factors that a face shows."""
    scene, person = face.scene, face.scene.identity
    labels = {
        "hair style": HAIR_STYLES.index(person.hair),
        "glasses": int(person.glasses),
        "hat": FACTORS["hat"].index(person.hat or "none"),
        "beard": int(person.beard),
        "skin": SKINS.index(person.skin),
        "gender": int(person.gender == "man"),
    }
    if person.hair != "no":
        labels["hair colour"] = HAIR_COLORS.index(person.hair_color)
    # whole bodies and pairs are always neutral: with a label, the size of a face would predict its expression
    if scene.is_portrait:
        emotion = scene.face_emotion if face.intensity > 0.3 else "neutral"
        labels["expression"] = EMOTIONS.index(emotion)
    return labels


def build_labels(faces: list[Face]) -> Labels:
    """Return the classes of faces for every factor, -1 where a face does not show it."""
    return collect_labels([list_labels(face) for face in faces], FACTORS)


def augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift crops `[B 3 S S]` uint8 and vary their brightness."""
    brightness = torch.from_numpy(rng.uniform(0.92, 1.08, (len(pixels), 1, 1, 1))).float()
    left, top = (int(rng.integers(2 * SHIFT + 1)) for _ in range(2))
    values = F.pad(pixels.float() * brightness, (SHIFT,) * 4, mode="replicate").round().clamp(0, 255).byte()
    return values[:, :, top : top + SIZE, left : left + SIZE]


def encode(model: FaceXFormer, pixels: Tensor) -> Features:
    """Encode crops `[B 3 S S]` as the project does: tokens `[B 1 49 128]`."""
    return model(Signal(pixels[:, None], torch.ones(len(pixels), 1, dtype=torch.bool)))


class Heads(nn.Module):
    """Training heads, dropped afterwards: factors and muscles from the tokens and from the deeper levels."""

    def __init__(self) -> None:
        super().__init__()
        classes = {name: len(options) for name, options in FACTORS.items()}
        dim = SHAPE["dim"]
        self.mean, self.look, self.single = (Probe(dim, classes, attends) for attends in (False, True, False))
        self.levels = nn.ModuleList(Probe(SHAPE["embed_dim"] * 2**stage, classes, True) for stage in (2, 3))
        self.muscles = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, len(Expression._fields)))

    def forward(self, features: Features, labels: Labels, muscles: Tensor) -> dict[str, Tensor]:
        """Return the losses of the factors, over all heads, and of the muscles."""
        tokens, mask = features.tokens[:, 0].float(), features.mask[:, 0]
        index = torch.randint(tokens.shape[1], (len(tokens),))
        single = tokens[torch.arange(len(tokens)), index][:, None]
        scores = [self.mean(tokens, mask), self.look(tokens, mask), self.single(single, mask[:, :1])]
        for probe, level in zip(self.levels, features.levels[2:], strict=True):
            scores.append(probe(level.tokens[:, 0].float(), level.mask[:, 0]))
        losses: list[Tensor] = []
        for head_scores in scores:
            for name in FACTORS:
                loss = F.cross_entropy(head_scores[name], labels[name], ignore_index=-1, label_smoothing=0.05)
                losses.append(loss)
        predictions = torch.stack([self.muscles(tokens.mean(1)), self.muscles(single[:, 0])])
        muscle_loss = F.smooth_l1_loss(predictions, muscles.expand_as(predictions), beta=0.2)
        return {"looks": torch.stack(losses).mean(), "muscles": muscle_loss}


def run(
    seed: int,
    minutes: float = 12.0,
    batch_size: int = 64,
    pool_size: int = 8000,
    lr: float = 1.2e-3,
    resume: bool = False,
) -> None:
    """Train the model of ``facexformer``; ``resume`` starts from its present weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 6, int(resume)))
    model, heads = build_encoder(str(NANO / "facexformer") if resume else None), Heads()
    pool = sample_faces(rng, pool_size)
    trainer = Trainer("facexformer", [*model.parameters(), *heads.parameters()], lr, minutes, weight_decay=0.05)
    num_new = batch_size // 4  # faces of the pool that every step replaces
    while trainer.is_running():
        for index, face in zip(rng.integers(pool_size, size=num_new), sample_faces(rng, num_new), strict=True):
            pool[index] = face
        faces = [pool[i] for i in rng.integers(pool_size, size=batch_size)]
        pixels = augment(torch.stack([face.pixels for face in faces]), rng)
        with torch.autocast("cpu", torch.bfloat16):
            features = encode(model, pixels)
        losses = heads(features, build_labels(faces), torch.tensor([face.muscles for face in faces]))
        trainer.step(losses["looks"] + losses["muscles"], **losses)
    print(f"facexformer {trainer.num_steps} steps", trainer.means)
    _save(model, seed)


def _save(model: FaceXFormer, seed: int) -> None:
    """Save an encoder and print the accuracies of its probes."""
    with replace_files(NANO / "facexformer") as out:
        state = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
        save_file(state, out / "model.safetensors", metadata={"format": "pt"})
        (out / "config.json").write_text(json.dumps(SHAPE, indent=2, sort_keys=True) + "\n")
    saved = build_encoder(str(NANO / "facexformer"))
    print("facexformer val", json.dumps(run_probes(saved, seed)), flush=True)


@torch.no_grad()
def build_probe_set(model: FaceXFormer, faces: list[Face]) -> ProbeSet:
    """Return the tokens of faces that the project uses `[B 49 128]`, with their labels."""
    pixels = torch.stack([face.pixels for face in faces])
    tokens = torch.cat([encode(model, part).tokens[:, 0] for part in pixels.split(64)])
    return ProbeSet(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), build_labels(faces))


def run_probes(model: FaceXFormer, seed: int) -> dict[str, dict[str, float]]:
    """Return accuracies on people of the val split, for large and small faces, from the mean token and by attention."""
    rng = np.random.default_rng((seed, 7))
    train = build_probe_set(model, sample_faces(rng, 2500))
    tests = {
        "large": build_probe_set(model, sample_faces(rng, 900, "val", small=False)),
        "small": build_probe_set(model, sample_faces(rng, 900, "val", small=True)),
    }
    accuracies: dict[str, dict[str, float]] = {}
    for size, test in tests.items():
        for pooling in ("mean", "look"):
            shares = measure_accuracies(train, test, attends=pooling == "look")
            # a factor without labels, such as the expression of a small face, is not a number
            valid = {name: share for name, share in shares.items() if share == share}
            accuracies[f"{size}, {pooling}"] = valid
    return accuracies
