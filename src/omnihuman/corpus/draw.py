"""Frames of the built-in corpus: a scene at a time, drawn at twice its size and scaled down."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.ImageDraw import Draw, ImageDraw

from omnihuman.corpus.face import (
    CLOTH,
    EXPRESSIONS,
    Color,
    Expression,
    Pen,
    blend_expressions,
    compute_head_motion,
    compute_skin_color,
    draw_face,
    mix_colors,
    smoothstep,
)
from omnihuman.corpus.figure import Box, draw_figures, locate_bodies, locate_heads
from omnihuman.corpus.voice import align_words
from omnihuman.corpus.world import Identity, Scene

SCALE = 2  # a scene is drawn at this multiple of its frame size, then scaled down for smooth edges

#: colour of the wall or the sky; places outdoors have a sky
BACKDROPS: dict[str, Color] = {
    "room": (222, 206, 178),
    "stage": (60, 34, 58),
    "park": (150, 205, 245),
    "street": (150, 205, 245),
    "beach": (150, 205, 245),
}


class Head(NamedTuple):
    """A head in a frame: its person, centre and radius in pixels, and its turn and tilt in radians."""

    person: Identity
    x: float
    y: float
    radius: float
    turn: float = 0.0
    tilt: float = 0.0


def expression_intensity(scene: Scene, t: float) -> float:
    """Return the intensity of the facial expression at a time, between 0 and 1: onset, apex, and a partial offset."""
    if scene.is_still:
        return 1.0
    intensity = smoothstep((t - scene.onset) / 0.5)
    if scene.fades:
        intensity *= 1 - 0.75 * smoothstep((t - (scene.duration - 0.7)) / 0.5)
    return intensity


def mouth_opening(scene: Scene, t: float, speaker: int = 0) -> float:
    """Return how far a speaker's mouth is open for speech at a time, between 0 and 1."""
    for span in align_words(scene):
        if span.speaker == speaker and span.start <= t < span.end:
            return 0.25 + 0.75 * abs(math.sin(math.pi * 4.5 * (t - span.start) + 0.6))
    return 0.0


def compute_expression(scene: Scene, t: float, speaker: int = 0) -> Expression:
    """Return the expression of a face at a time: emotion, speech and blinks together."""
    emotion = _emotion_of_speaker(scene, speaker)
    face = blend_expressions(EXPRESSIONS["neutral"], EXPRESSIONS[emotion], expression_intensity(scene, t))
    opening = mouth_opening(scene, t, speaker)
    face = face._replace(open=face.open + 0.4 * opening * (1 - min(face.open, 0.8)))
    is_blink = (t + scene.seed % 7 * 0.3) % 1.9 < 0.1 and not scene.is_still
    if is_blink and emotion in ("neutral", "happy"):
        face = face._replace(eye=0.1)
    return face


def _emotion_of_speaker(scene: Scene, speaker: int) -> str:
    """Return the emotion of a face; a partner stays neutral."""
    return scene.face_emotion if speaker == 0 else "neutral"


@lru_cache(maxsize=64)
def _draw_background(name: str, width: int, height: int) -> Image.Image:
    """Draw an empty place."""
    image = Image.new("RGB", (width, height), BACKDROPS[name])
    painters = {
        "room": _paint_room,
        "park": _paint_park,
        "street": _paint_street,
        "beach": _paint_beach,
        "stage": _paint_stage,
    }
    painters[name](Draw(image), width, height)
    return image


def _paint_room(draw: ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.82 * h, w, h), fill=(150, 104, 66))
    draw.rectangle((0.06 * w, 0.1 * h, 0.32 * w, 0.42 * h), fill=(175, 220, 250), outline=(120, 84, 54), width=4)
    draw.line((0.19 * w, 0.1 * h, 0.19 * w, 0.42 * h), fill=(120, 84, 54), width=3)


def _paint_park(draw: ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.6 * h, w, h), fill=(96, 178, 84))
    draw.rectangle((0.84 * w, 0.34 * h, 0.9 * w, 0.66 * h), fill=(110, 76, 46))
    draw.ellipse((0.72 * w, 0.02 * h, 1.02 * w, 0.42 * h), fill=(44, 130, 56))


def _paint_street(draw: ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.74 * h, w, h), fill=(92, 92, 98))
    for x0, x1, y0 in ((0.0, 0.26, 0.12), (0.3, 0.62, 0.3), (0.7, 1.0, 0.06)):
        draw.rectangle((x0 * w, y0 * h, x1 * w, 0.74 * h), fill=(178, 140, 128))
        for floor in range(4):
            y = (y0 + 0.06 + 0.13 * floor) * h
            draw.rectangle(((x0 + 0.05) * w, y, (x1 - 0.05) * w, y + 0.05 * h), fill=(236, 226, 170))


def _paint_beach(draw: ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.48 * h, w, 0.72 * h), fill=(40, 110, 190))
    draw.rectangle((0, 0.72 * h, w, h), fill=(238, 216, 160))
    draw.ellipse((0.78 * w, 0.05 * h, 0.94 * w, 0.05 * h + 0.16 * w), fill=(255, 224, 90))


def _paint_stage(draw: ImageDraw, w: int, h: int) -> None:
    draw.rectangle((0, 0.82 * h, w, h), fill=(150, 110, 70))
    for x in (0.0, 0.8):
        draw.rectangle((x * w, 0, (x + 0.2) * w, 0.84 * h), fill=(170, 24, 40))
        for k in (0.05, 0.12):
            draw.line(((x + k) * w, 0, (x + k) * w, 0.84 * h), fill=(120, 12, 28), width=4)


def _place_busts(scene: Scene) -> list[Head]:
    """Return the heads at rest of a scene with one or two large faces, in pixels of the frame."""
    w, h = scene.width, scene.height
    if scene.partner is None:
        return [Head(scene.identity, 0.5 * w, 0.52 * h, 0.345 * min(h, 1.12 * w))]
    radius = min(0.25 * w, 0.27 * h)
    return [Head(scene.identity, 0.27 * w, 0.55 * h, radius), Head(scene.partner, 0.73 * w, 0.55 * h, radius)]


def _place_heads(scene: Scene, t: float) -> list[Head]:
    """Return the heads at a time of a scene with one or two large faces, in pixels of the frame."""
    heads: list[Head] = []
    for speaker, bust in enumerate(_place_busts(scene)):
        emotion = _emotion_of_speaker(scene, speaker)
        intensity = expression_intensity(scene, t)
        phase = scene.seed % 628 / 100 + speaker
        right, down, turn, tilt = compute_head_motion(emotion, intensity, t, phase)
        scale = 1 + 0.05 * intensity if emotion == "surprise" else 1.0
        x, y = bust.x + right * 2 * bust.radius, bust.y + down * 2 * bust.radius
        heads.append(Head(bust.person, x, y, bust.radius * scale, turn, tilt))
    return heads


def _draw_bust(canvas: ImageDraw, head: Head, skin: Color, bottom: float) -> None:
    """Draw the neck and the shoulders below a head."""
    x, y, radius = head.x, head.y, head.radius
    neck = 0.34 * radius
    shirt = CLOTH[head.person.shirt]
    collar = mix_colors(shirt, (0, 0, 0), 0.3)
    canvas.ellipse((x - 1.35 * radius, y + 1.08 * radius, x + 1.35 * radius, bottom + radius), fill=shirt)
    canvas.ellipse((x - 0.5 * radius, y + 0.98 * radius, x + 0.5 * radius, y + 1.3 * radius), fill=collar)
    shade = mix_colors(skin, (60, 30, 30), 0.2)
    canvas.rectangle((x - neck, y + 0.7 * radius, x + neck, y + 1.15 * radius), fill=shade)


def render_frame(scene: Scene, t: float) -> UInt8[np.ndarray, "H W 3"]:
    """Render a scene at a time in seconds, `[H W 3]`.

    >>> from omnihuman.corpus.world import build_scenes
    >>> render_frame(build_scenes(0)[0], 0.5).shape
    (128, 128, 3)
    """
    scene, t = scene.find_shot(t)
    size = (scene.width * SCALE, scene.height * SCALE)
    image = _draw_background(scene.background, *size).copy()
    canvas = Draw(image)
    if _has_large_faces(scene):
        for speaker, head in enumerate(_place_heads(scene, t)):
            head = head._replace(x=head.x * SCALE, y=head.y * SCALE, radius=head.radius * SCALE)
            face = compute_expression(scene, t, speaker)
            _draw_bust(canvas, head, compute_skin_color(head.person, face), float(size[1]))
            draw_face(Pen(canvas, *head[1:]), head.person, face)
    else:
        draw_figures(canvas, scene, t, compute_expression(scene, t), SCALE)
    return np.asarray(image.reduce(SCALE))


def _has_large_faces(scene: Scene) -> bool:
    return scene.is_portrait or scene.kind == "pair"


def compute_face_box(scene: Scene, t: float, speaker: int = 0) -> Box | None:
    """Return the bounding box of the face of the main person or the partner, None if the face is not visible."""
    if not scene.has_video or scene.from_behind:
        return None
    scene, t = scene.find_shot(t)
    if _has_large_faces(scene):
        person, x, y, radius = _place_heads(scene, t)[speaker][:4]
    else:
        person, x, y, radius = locate_heads(scene, t)[speaker]
    half = person.face_width * radius
    return _clip_box((x - half, y - radius, x + half, y + radius), scene)


def compute_person_boxes(scene: Scene, t: float) -> list[Box]:
    """Return the bounding boxes of all people in the picture, without what they hold."""
    if not scene.has_video:
        return []
    scene, t = scene.find_shot(t)
    boxes = locate_bodies(scene, t)
    if _has_large_faces(scene):
        boxes = []
        for head in _place_heads(scene, t):
            half = _measure_shoulders(head, float(scene.height))
            boxes.append((head.x - half, head.y - 1.2 * head.radius, head.x + half, float(scene.height)))
    clipped = [_clip_box(box, scene) for box in boxes]
    return [box for box in clipped if box is not None]


def _measure_shoulders(head: Head, bottom: float) -> float:
    """Return half of the width of the shoulders, which are an ellipse that goes on below the frame."""
    top, end = head.y + 1.08 * head.radius, bottom + head.radius
    height = max(0.0, (top + end) / 2 - bottom) / ((end - top) / 2)
    return 1.35 * head.radius * math.sqrt(1 - height**2)


def _clip_box(box: Box, scene: Scene) -> Box | None:
    """Return the part of a box that is in the frame, None without one."""
    x0, x1 = max(box[0], 0.0), min(box[2], float(scene.width))
    y0, y1 = max(box[1], 0.0), min(box[3], float(scene.height))
    if x0 >= x1 or y0 >= y1:
        return None
    return round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)


def render_frames(scene: Scene) -> UInt8[np.ndarray, "T H W 3"]:
    """Render all frames of a scene with video, `[T H W 3]`; a still image has T = 1."""
    if scene.is_still:
        return np.stack([render_frame(scene, scene.duration / 2)])
    return np.stack([render_frame(scene, index / scene.fps) for index in range(scene.num_frames)])
