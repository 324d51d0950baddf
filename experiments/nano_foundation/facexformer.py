"""Trains the FaceXFormer-shaped Swin to tell looks and expressions from drawn faces, large and small."""

from __future__ import annotations

import io
import json
import time
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from folder import NANO, replaced
from people import random_scene
from PIL import Image
from probe import Facts, Reader, accuracies
from safetensors.torch import save_file
from torch import Tensor, nn

from omnihuman.data.face import FaceInput
from omnihuman.data.record import Sighting
from omnihuman.data.sample import draw
from omnihuman.data.sample.face import Expression
from omnihuman.data.sample.world import EMOTIONS, HAIR_COLORS, HAIR_STYLES, HAT_COLORS, SKINS, Scene
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.nn.frames import SquareFrames
from omnihuman.types import Features, Signal

SIZES: dict[str, Any] = {
    "embed_dim": 32, "depths": [1, 1, 3, 1], "num_heads": [1, 2, 4, 8], "window_size": 7, "dim": 128,
}  # fmt: skip
SIZE, POOL, SHIFT = 112, 7, 5
LOOKS: dict[str, tuple[str, ...]] = {
    "expression": EMOTIONS, "hair style": HAIR_STYLES, "hair colour": HAIR_COLORS, "glasses": ("no", "yes"),
    "beard": ("no", "yes"), "hat": ("none", *HAT_COLORS), "skin": SKINS, "gender": ("woman", "man"),
}  # fmt: skip
"""What is told from a face -> its classes."""
NUMBERS = len(Expression._fields)


class Face(NamedTuple):
    """A face cut out of a scene: the picture [3 112 112] uint8, how strong its expression is, what its muscles do."""

    picture: Tensor
    scene: Scene
    level: float
    muscles: Expression


def encoder(weights: str | None = None) -> FaceXFormer:
    """The encoder of the nano preset, at random or from a folder."""
    return FaceXFormer(image_size=SIZE, pool=POOL, reads="faces", weights=weights, **SIZES)


def faces(rng: np.random.Generator, count: int, split: str = "train", small: bool | None = None) -> list[Face]:
    """A random generator; faces at random times of random scenes, cut as the project cuts them and varied in training.

    Four of ten are ``small``: those of whole bodies or of two people.
    """
    square, made = SquareFrames(SIZE, "squash"), list[Face]()
    while len(made) < count:
        little = rng.random() < 0.4 if small is None else small
        kind = str(rng.choice(["act", "interact", "pair"], p=[0.4, 0.4, 0.2]) if little else rng.choice(["talk"]))
        scene = random_scene(rng, split, kind)
        t = float(rng.uniform(0, scene.duration))
        box = draw.face_box(scene, t)
        if box is None:
            continue
        picture = draw.draw(scene, t)
        if rng.random() < 0.3:
            packed = io.BytesIO()
            Image.fromarray(picture).save(packed, "JPEG", quality=int(rng.integers(35, 90)))
            picture = np.array(Image.open(packed))
        if split == "train":  # a box found by a detector, or between two that a record gives
            width, height = box[2] - box[0], box[3] - box[1]
            moved = rng.uniform(-0.08, 0.08, 4)
            box = tuple(x + s * d for x, s, d in zip(box, (width, height) * 2, moved, strict=True))
        frame = torch.from_numpy(picture.copy()).permute(2, 0, 1)
        (crop,) = FaceInput()(frame[None], [t], [Sighting(t, (box,))], scene.id)
        if split == "train" and not little and rng.random() < 0.25:
            side = int(rng.integers(20, 64))
            crop = F.interpolate(crop[None].float(), (side, side), mode="area")[0].byte()
        made.append(Face(square(crop[None])[0], scene, draw.level(scene, t), draw.expression(scene, t)))
    return made


def facts(some: list[Face]) -> Facts:
    """Faces; the class of each in every look, -1 where the face does not show it."""
    seen: dict[str, list[int]] = {name: [] for name in LOOKS}
    for face in some:
        scene, person = face.scene, face.scene.identity
        # whole bodies and pairs are always calm, which would make a small face a calm one
        shown = (scene.face_emotion if face.level > 0.3 else "neutral") if scene.is_portrait else None
        told = {
            "expression": shown, "hair style": person.hair, "glasses": "yes" if person.glasses else "no",
            "hair colour": person.hair_color if person.hair != "no" else None, "hat": person.hat or "none",
            "beard": "yes" if person.beard else "no", "skin": person.skin, "gender": person.gender,
        }  # fmt: skip
        for name, value in told.items():
            seen[name].append(-1 if value is None else LOOKS[name].index(value))
    return {name: torch.tensor(values) for name, values in seen.items()}


def varied(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures [B 3 S S] uint8; shifted a little and of another light."""
    light = torch.from_numpy(rng.uniform(0.92, 1.08, (len(pictures), 1, 1, 1))).float()
    right, down = (int(rng.integers(2 * SHIFT + 1)) for _ in range(2))
    values = F.pad(pictures.float() * light, (SHIFT,) * 4, mode="replicate").round().clamp(0, 255).byte()
    return values[:, :, down : down + SIZE, right : right + SIZE]


def read(model: FaceXFormer, pictures: Tensor) -> Features:
    """Pictures [B 3 S S]; what the project reads from them, one face a sample: tokens [B 1 49 128]."""
    return model(Signal(pictures[:, None], torch.ones(len(pictures), 1, dtype=torch.bool)))


class Heads(nn.Module):
    """What learns beside the encoder and is dropped: looks and muscles from its tokens and from its deeper levels."""

    def __init__(self) -> None:
        super().__init__()
        classes = {name: len(options) for name, options in LOOKS.items()}
        self.mean, self.look, self.single = (Reader(SIZES["dim"], classes, attends) for attends in (False, True, False))
        self.levels = nn.ModuleList(Reader(SIZES["embed_dim"] * 2**stage, classes, True) for stage in (2, 3))
        self.muscles = nn.Sequential(nn.LayerNorm(SIZES["dim"]), nn.Linear(SIZES["dim"], NUMBERS))

    def forward(self, made: Features, truth: Facts, muscles: Tensor) -> dict[str, Tensor]:
        """The losses: of looks told by each reader, and of the muscles."""
        tokens, real = made.tokens[:, 0].float(), made.mask[:, 0]
        one = torch.randint(tokens.shape[1], (len(tokens),))
        alone = tokens[torch.arange(len(tokens)), one][:, None]
        scores = [self.mean(tokens, real), self.look(tokens, real), self.single(alone, real[:, :1])]
        for reader, level in zip(self.levels, made.levels[2:], strict=True):
            scores.append(reader(level.tokens[:, 0].float(), level.mask[:, 0]))
        told = [
            F.cross_entropy(some[name], truth[name], ignore_index=-1, label_smoothing=0.05)
            for some in scores
            for name in LOOKS
        ]
        said = torch.stack([self.muscles(tokens.mean(1)), self.muscles(alone[:, 0])])
        return {"looks": torch.stack(told).mean(), "muscles": F.smooth_l1_loss(said, muscles.expand_as(said), beta=0.2)}


def make(
    seed: int, minutes: float = 12.0, batch: int = 64, pool: int = 8000, rate: float = 1.2e-3, on: bool = False
) -> None:
    """A seed and a time; writes the model of ``facexformer``, with ``on`` beginning at the weights that are there."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 6, int(on)))
    model, heads = encoder(str(NANO / "facexformer") if on else None), Heads()
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.05)
    start, mean, step = time.process_time(), dict[str, float](), 0
    known = faces(rng, pool)
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * done))
        for place, fresh in zip(rng.integers(pool, size=batch // 4), faces(rng, batch // 4), strict=True):
            known[place] = fresh
        some = [known[i] for i in rng.integers(pool, size=batch)]
        pictures = varied(torch.stack([face.picture for face in some]), rng)
        with torch.autocast("cpu", torch.bfloat16):
            made = read(model, pictures)
        losses = heads(made, facts(some), torch.tensor([face.muscles for face in some]))
        optimizer.zero_grad()
        (losses["looks"] + losses["muscles"]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for name, loss in losses.items():
            mean[name] = 0.98 * mean.get(name, loss.item()) + 0.02 * loss.item()
        if step % 50 == 0:
            told = " ".join(f"{name} {loss:.3f}" for name, loss in mean.items())
            print(f"facexformer step {step} {60 * minutes * done:.0f} s {told}")
        step += 1
    print(f"facexformer {step} steps", mean)
    finish(model, seed)


def finish(model: FaceXFormer, seed: int) -> None:
    """A trained encoder; its folder and what can be told from it."""
    with replaced(NANO / "facexformer") as out:
        save_file({name: p.detach().half().contiguous() for name, p in model.named_parameters()},
                  out / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
        (out / "config.json").write_text(json.dumps(SIZES, indent=2, sort_keys=True) + "\n")
    print("facexformer val", json.dumps(probes(encoder(str(NANO / "facexformer")), seed)), flush=True)


@torch.no_grad()
def tokens(model: FaceXFormer, some: list[Face]) -> Tensor:
    """Faces; the tokens that the project reads, [B 49 128]."""
    pictures = torch.stack([face.picture for face in some])
    return torch.cat([read(model, part).tokens[:, 0] for part in pictures.split(64)])


def probes(model: FaceXFormer, seed: int, train: int = 2500, held_out: int = 900) -> dict[str, dict[str, float]]:
    """An encoder; accuracies on people of the val split, of large and of small faces, by mean token and by one look."""
    rng = np.random.default_rng((seed, 7))
    sides: dict[str, tuple[Tensor, Tensor, Facts]] = {}
    for name, split, count, small in (("train", "train", train, None), ("large", "val", held_out, False),
                                      ("small", "val", held_out, True)):  # fmt: skip
        some = faces(rng, count, split, small)
        made = tokens(model, some)
        sides[name] = made, torch.ones(made.shape[:2], dtype=torch.bool), facts(some)
    told = {
        f"{which}, {reader}": accuracies(sides["train"], sides[which], attends=reader == "look")
        for which in ("large", "small")
        for reader in ("mean", "look")
    }
    # where there is nothing to tell, as of a small face's expression, there is no share either
    return {name: {look: share for look, share in row.items() if share == share} for name, row in told.items()}
