"""Pictures of the built-in corpus: a scene at a time, drawn at twice its size and scaled down."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.ImageDraw import Draw, ImageDraw

from omnihuman.data.sample.face import (
    CLOTH,
    EXPRESSIONS,
    Color,
    Expression,
    Pen,
    blend,
    draw_face,
    mix,
    motion,
    skin_color,
    smooth,
)
from omnihuman.data.sample.figure import draw_figures, head_places
from omnihuman.data.sample.voice import timeline
from omnihuman.data.sample.world import Identity, Scene

SCALE = 2  # how much larger everything is drawn than it is kept


def level(scene: Scene, t: float) -> float:
    """A scene and a time; how strong its facial expression is then, between 0 and 1: onset, apex, and a partial end."""
    if scene.is_still:
        return 1.0
    rise = smooth((t - scene.onset) / 0.5)
    if scene.fades:
        rise *= 1 - 0.75 * smooth((t - (scene.duration - 0.7)) / 0.5)
    return rise


def speaking(scene: Scene, t: float, speaker: int = 0) -> float:
    """A scene and a time; how far this speaker's mouth is open for speech, between 0 and 1."""
    for start, end, _, who in timeline(scene):
        if who == speaker and start <= t < end:
            return 0.25 + 0.75 * abs(math.sin(math.pi * 4.5 * (t - start) + 0.6))
    return 0.0


def expression(scene: Scene, t: float, speaker: int = 0) -> Expression:
    """A scene and a time; what the face does then: emotion, speech and blinks together."""
    emotion = scene.face_emotion if speaker == 0 else "neutral"
    face = blend(EXPRESSIONS["neutral"], EXPRESSIONS[emotion], level(scene, t))
    talk = speaking(scene, t, speaker)
    face = face._replace(open=face.open + 0.4 * talk * (1 - min(face.open, 0.8)))
    if emotion in ("neutral", "happy") and (t + scene.seed % 7 * 0.3) % 1.9 < 0.1 and not scene.is_still:
        face = face._replace(eye=0.1)
    return face


@lru_cache(maxsize=64)
def _background(name: str, width: int, height: int) -> Image.Image:
    """A place and a size; its empty picture."""
    image = Image.new(
        "RGB", (width, height), {"room": (222, 206, 178), "stage": (60, 34, 58)}.get(name, (150, 205, 245))
    )
    draw, w, h = Draw(image), width, height
    if name == "room":
        draw.rectangle((0, 0.82 * h, w, h), fill=(150, 104, 66))
        draw.rectangle((0.06 * w, 0.1 * h, 0.32 * w, 0.42 * h), fill=(175, 220, 250), outline=(120, 84, 54), width=4)
        draw.line((0.19 * w, 0.1 * h, 0.19 * w, 0.42 * h), fill=(120, 84, 54), width=3)
    elif name == "park":
        draw.rectangle((0, 0.6 * h, w, h), fill=(96, 178, 84))
        draw.rectangle((0.84 * w, 0.34 * h, 0.9 * w, 0.66 * h), fill=(110, 76, 46))
        draw.ellipse((0.72 * w, 0.02 * h, 1.02 * w, 0.42 * h), fill=(44, 130, 56))
    elif name == "street":
        draw.rectangle((0, 0.74 * h, w, h), fill=(92, 92, 98))
        for x0, x1, y0 in ((0.0, 0.26, 0.12), (0.3, 0.62, 0.3), (0.7, 1.0, 0.06)):
            draw.rectangle((x0 * w, y0 * h, x1 * w, 0.74 * h), fill=(178, 140, 128))
            for row in range(4):
                y = (y0 + 0.06 + 0.13 * row) * h
                draw.rectangle(((x0 + 0.05) * w, y, (x1 - 0.05) * w, y + 0.05 * h), fill=(236, 226, 170))
    elif name == "beach":
        draw.rectangle((0, 0.48 * h, w, 0.72 * h), fill=(40, 110, 190))
        draw.rectangle((0, 0.72 * h, w, h), fill=(238, 216, 160))
        draw.ellipse((0.78 * w, 0.05 * h, 0.94 * w, 0.05 * h + 0.16 * w), fill=(255, 224, 90))
    else:
        draw.rectangle((0, 0.82 * h, w, h), fill=(150, 110, 70))
        for x in (0.0, 0.8):
            draw.rectangle((x * w, 0, (x + 0.2) * w, 0.84 * h), fill=(170, 24, 40))
            for k in (0.05, 0.12):
                draw.line(((x + k) * w, 0, (x + k) * w, 0.84 * h), fill=(120, 12, 28), width=4)
    return image


def _busts(scene: Scene) -> list[tuple[Identity, float, float, float]]:
    """A scene of one large face or two; (person, x, y, radius) of every head at rest, in pixels of the kept size."""
    w, h = scene.width, scene.height
    if scene.partner is None:
        return [(scene.identity, 0.5 * w, 0.52 * h, 0.345 * min(h, 1.12 * w))]
    radius = min(0.25 * w, 0.27 * h)
    return [(scene.identity, 0.27 * w, 0.55 * h, radius), (scene.partner, 0.73 * w, 0.55 * h, radius)]


def _heads(scene: Scene, t: float) -> list[tuple[Identity, float, float, float, float, float]]:
    """A scene of large faces and a time; (person, x, y, radius, turn, tilt) of every head then."""
    heads = []
    for speaker, (person, x, y, radius) in enumerate(_busts(scene)):
        emotion = scene.face_emotion if speaker == 0 else "neutral"
        right, down, turn, tilt = motion(emotion, level(scene, t), t, scene.seed % 628 / 100 + speaker)
        scale = 1 + 0.05 * level(scene, t) if emotion == "surprise" else 1.0
        heads.append((person, x + right * 2 * radius, y + down * 2 * radius, radius * scale, turn, tilt))
    return heads


def _draw_bust(
    canvas: ImageDraw, person: Identity, x: float, y: float, radius: float, skin: Color, bottom: float
) -> None:
    """A place of a head; draws neck and shoulders below it."""
    neck, shirt = 0.34 * radius, CLOTH[person.shirt]
    canvas.ellipse((x - 1.35 * radius, y + 1.08 * radius, x + 1.35 * radius, bottom + radius), fill=shirt)
    canvas.ellipse(
        (x - 0.5 * radius, y + 0.98 * radius, x + 0.5 * radius, y + 1.3 * radius), fill=mix(shirt, (0, 0, 0), 0.3)
    )
    canvas.rectangle((x - neck, y + 0.7 * radius, x + neck, y + 1.15 * radius), fill=mix(skin, (60, 30, 30), 0.2))


def draw(scene: Scene, t: float) -> UInt8[np.ndarray, "H W 3"]:
    """A scene and a time in seconds; its picture then, [H W 3].

    >>> from omnihuman.data.sample.world import scenes
    >>> draw(scenes(0)[0], 0.5).shape
    (128, 128, 3)
    """
    scene, t = scene.shot(t)
    size = (scene.width * SCALE, scene.height * SCALE)
    image = _background(scene.background, *size).copy()
    canvas = Draw(image)
    if scene.is_portrait or scene.kind == "pair":
        for speaker, (person, x, y, radius, turn, tilt) in enumerate(_heads(scene, t)):
            face = expression(scene, t, speaker)
            x, y, radius = x * SCALE, y * SCALE, radius * SCALE
            _draw_bust(canvas, person, x, y, radius, skin_color(person, face), float(size[1]))
            draw_face(Pen(canvas, x, y, radius, turn, tilt), person, face)
    else:
        draw_figures(canvas, scene, t, expression(scene, t), SCALE)
    return np.asarray(image.reduce(SCALE))


def face_box(scene: Scene, t: float) -> tuple[float, float, float, float] | None:
    """A scene and a time; the box (x0, y0, x1, y1) of the main person's face in pixels, None where none is seen."""
    if not scene.has_video or scene.from_behind:
        return None
    scene, t = scene.shot(t)
    if scene.is_portrait or scene.kind == "pair":
        person, x, y, radius = _heads(scene, t)[0][:4]
    else:
        person, x, y, radius = head_places(scene, t)[0]
    half = person.face_width * radius
    box = (
        max(x - half, 0.0),
        max(y - radius, 0.0),
        min(x + half, float(scene.width)),
        min(y + radius, float(scene.height)),
    )
    if box[0] >= box[2] or box[1] >= box[3]:
        return None
    return round(box[0], 1), round(box[1], 1), round(box[2], 1), round(box[3], 1)


def frames(scene: Scene) -> UInt8[np.ndarray, "T H W 3"]:
    """A scene that is seen; all its pictures at its frame rate, [T H W 3] (a still has T = 1)."""
    times = [scene.duration / 2] if scene.is_still else [index / scene.fps for index in range(scene.num_frames)]
    return np.stack([draw(scene, t) for t in times])
