"""Faces of the built-in corpus: expressions as numbers that change over time, and how they are drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL.ImageDraw import ImageDraw

from omnihuman.data.sample.world import Identity

Color = tuple[int, int, int]

SKIN: dict[str, Color] = {"light": (243, 205, 175), "tan": (208, 152, 105), "dark": (130, 86, 58)}
HAIR: dict[str, Color] = {
    "black": (28, 26, 30), "brown": (112, 66, 32), "blond": (238, 202, 92), "red": (196, 76, 28),
    "gray": (170, 170, 176),
}  # fmt: skip
CLOTH: dict[str, Color] = {
    "red": (214, 44, 44), "blue": (44, 84, 204), "green": (36, 150, 72), "yellow": (244, 208, 40),
    "purple": (140, 60, 170), "white": (238, 238, 240),
}  # fmt: skip
DARK: Color = (38, 28, 32)


class Expression(NamedTuple):
    """What the muscles do: 0 is at rest (``eye`` and ``pupil`` rest at 1), 1 is strong."""

    brow_in: float = 0.0  # inner ends up (+) or down (-)
    brow_out: float = 0.0  # outer ends up (+) or down (-)
    eye: float = 1.0  # how far the lids are open
    pupil: float = 1.0
    gaze: float = 0.0  # down (+)
    curve: float = 0.0  # corners of the mouth up (+) or down (-)
    open: float = 0.0
    width: float = 1.0
    square: float = 0.0  # round opening (0) or bared teeth (1)
    teeth: float = 0.0
    tongue: float = 0.0
    wrinkle: float = 0.0  # of the nose
    red: float = 0.0
    green: float = 0.0
    pale: float = 0.0
    tears: float = 0.0
    sweat: float = 0.0
    cheeks: float = 0.0


EXPRESSIONS: dict[str, Expression] = {
    "neutral": Expression(),
    "happy": Expression(brow_in=0.25, brow_out=0.25, eye=0.55, curve=1.0, open=0.55, width=1.35, teeth=1.0, cheeks=1.0),
    "sad": Expression(brow_in=1.0, brow_out=-0.8, eye=0.55, gaze=0.7, curve=-1.0, width=0.85, tears=1.0),
    "angry": Expression(brow_in=-1.3, brow_out=0.5, eye=0.7, pupil=0.8, curve=-0.45, open=0.4, width=1.15,
                        square=1.0, teeth=1.0, red=1.0),
    "surprise": Expression(brow_in=1.1, brow_out=1.1, eye=1.9, open=1.25, width=0.62),
    "disgust": Expression(brow_in=-0.8, brow_out=-0.1, eye=0.36, curve=-0.8, open=0.25, width=1.0, tongue=1.0,
                          wrinkle=1.0, green=1.0),
    "fear": Expression(brow_in=1.3, brow_out=-0.2, eye=1.75, pupil=0.5, curve=-0.4, open=0.5, width=1.25, square=0.8,
                       pale=1.0, sweat=1.0),
}  # fmt: skip


def blend(start: Expression, end: Expression, level: float) -> Expression:
    """Two expressions; the one that lies ``level`` of the way from the first to the second."""
    return Expression(*(a + (b - a) * level for a, b in zip(start, end, strict=True)))


def smooth(x: float) -> float:
    """Any number; 0 below 0, 1 above 1, and a soft rise between."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def motion(emotion: str, level: float, t: float, phase: float) -> tuple[float, float, float, float]:
    """An emotion, its level and the time; the head's (right, down, turn, tilt) in head heights and radians."""
    wave = math.sin(2 * math.pi * t + phase)
    if emotion == "happy":
        return 0.0, -0.09 * level * abs(math.sin(2 * math.pi * 1.8 * t)), 0.0, 0.1 * level * wave
    if emotion == "sad":
        return 0.0, 0.14 * level, 0.0, 0.12 * level
    if emotion == "angry":
        return 0.07 * level * math.sin(2 * math.pi * 2.2 * t), 0.04 * level, 0.0, 0.0
    if emotion == "surprise":
        return 0.0, -0.1 * level, 0.0, 0.0
    if emotion == "disgust":
        return -0.06 * level, 0.0, -0.22 * level, -0.16 * level
    if emotion == "fear":
        shake = level * (1 if round(t * 10) % 2 else -1)
        return 0.045 * shake, 0.02 * level, 0.0, 0.025 * shake
    return 0.0, 0.008 * wave, 0.03 * wave, 0.02 * wave


def mix(color: Color, other: Color, amount: float) -> Color:
    """Two colours; the one that lies ``amount`` of the way between them."""
    r, g, b = (round(a + (z - a) * amount) for a, z in zip(color, other, strict=True))
    return r, g, b


def skin_color(identity: Identity, face: Expression) -> Color:
    """A person and an expression; the colour of the face now (red with anger, pale with fear, ...)."""
    color = mix(SKIN[identity.skin], (222, 40, 30), 0.5 * face.red)
    color = mix(color, (120, 180, 60), 0.5 * face.green)
    return mix(color, (190, 206, 240), 0.6 * face.pale)


class Pen:
    """Draws in face coordinates: the origin between the eyes, y down, the head half 1 high; turned and tilted."""

    def __init__(self, draw: ImageDraw, x: float, y: float, radius: float, turn: float, tilt: float) -> None:
        self.draw, self.x, self.y, self.radius, self.turn = draw, x, y, radius, turn
        self.cos, self.sin = math.cos(tilt) * radius, math.sin(tilt) * radius

    def at(self, x: float, y: float, depth: float = 1.0) -> tuple[float, float]:
        """Face coordinates; pixels. ``depth`` says how much a turned head carries the point along."""
        x += self.turn * depth
        return self.x + x * self.cos - y * self.sin, self.y + x * self.sin + y * self.cos

    def dot(self, x: float, y: float, half_width: float, half_height: float, color: Color, depth: float = 1.0) -> None:
        """A filled ellipse around a point."""
        px, py = self.at(x, y, depth)
        w, h = half_width * self.radius, half_height * self.radius
        self.draw.ellipse((px - w, py - h, px + w, py + h), fill=color)

    def shape(self, points: list[tuple[float, float]], color: Color, depth: float = 1.0) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(x, y, depth) for x, y in points], fill=color)

    def stroke(self, points: list[tuple[float, float]], width: float, color: Color, depth: float = 1.0) -> None:
        """A line through points."""
        pixels = [self.at(x, y, depth) for x, y in points]
        self.draw.line(pixels, fill=color, width=max(1, round(width * self.radius)), joint="curve")


def draw_face(pen: Pen, person: Identity, face: Expression, from_behind: bool = False) -> None:
    """A pen at the head's centre, a person and an expression; draws the whole head."""
    width = person.face_width
    skin, hair = skin_color(person, face), HAIR[person.hair_color]
    if person.hair == "long":
        pen.shape([(-width - 0.16, -0.3), (-width - 0.2, 1.05), (width + 0.2, 1.05), (width + 0.16, -0.3)], hair, 0.0)
    if person.hair in ("long", "curly", "short"):
        pen.dot(0.0, -0.32, width + 0.16, 0.82, hair, 0.0)
    if person.hair == "curly":
        for x, y in ((-0.85, -0.1), (0.85, -0.1), (-0.82, 0.25), (0.82, 0.25), (-0.7, -0.65), (0.7, -0.65),
                     (-0.35, -0.98), (0.35, -0.98), (0.0, -1.02)):  # fmt: skip
            pen.dot(x * width / 0.8, y, 0.3, 0.3, hair, 0.0)
    pen.dot(-width, 0.02, 0.12, 0.18, skin, 0.0)
    pen.dot(width, 0.02, 0.12, 0.18, skin, 0.0)
    pen.dot(0.0, 0.0, width, 1.0, hair if from_behind and person.hair != "no" else skin, 0.0)
    if not from_behind:
        _fringe(pen, person, hair)
        if person.beard:
            _beard(pen, person, hair if person.hair != "no" else HAIR["brown"])
        _cheeks(pen, face)
        _eyes(pen, person, face)
        _nose(pen, face, skin)
        _mouth(pen, person, face)
        if person.glasses:
            _glasses(pen, person)
        _drops(pen, person, face)
    if person.hat:
        _hat(pen, person, from_behind)


def _fringe(pen: Pen, person: Identity, hair: Color) -> None:
    width = person.face_width
    if person.hair == "short":
        pen.shape([(-width, -0.3), (-width * 0.9, -0.75), (0.0, -1.08), (width * 0.9, -0.75), (width, -0.3),
                   (width * 0.75, -0.62), (-width * 0.5, -0.72)], hair, 0.0)  # fmt: skip
    elif person.hair == "long":
        pen.shape([(-width - 0.04, 0.2), (-width * 0.95, -0.7), (0.0, -1.08), (width * 0.95, -0.7), (width + 0.04, 0.2),
                   (width * 0.78, -0.5), (0.0, -0.82), (-width * 0.78, -0.5)], hair, 0.0)  # fmt: skip
    elif person.hair == "curly":
        for x in (-0.6, -0.3, 0.0, 0.3, 0.6):
            pen.dot(x, -0.8 + 0.25 * x * x, 0.24, 0.2, hair, 0.0)


def _beard(pen: Pen, person: Identity, hair: Color) -> None:
    width = person.face_width
    jaw = [(-width * 0.98, 0.1), (-width * 0.88, 0.62), (-0.42, 0.98), (0.0, 1.1), (0.42, 0.98), (width * 0.88, 0.62)]
    lip = [(width * 0.98, 0.1), (width * 0.7, 0.34), (0.36, 0.26), (-0.36, 0.26), (-width * 0.7, 0.34)]
    pen.shape(jaw + lip, hair, 0.2)


def _cheeks(pen: Pen, face: Expression) -> None:
    if face.cheeks > 0.2:
        for side in (-1, 1):
            pen.dot(side * 0.53, 0.2, 0.16 * face.cheeks, 0.12 * face.cheeks, (240, 110, 110))


def _eyes(pen: Pen, person: Identity, face: Expression) -> None:
    gap = 0.36 * person.eye_gap
    brow = mix(HAIR[person.hair_color], DARK, 0.55)
    for side in (-1, 1):
        x, lid = side * gap, 0.125 * min(max(face.eye, 0.08), 2.0)
        pen.dot(x, -0.1, 0.215, lid + 0.025, DARK)
        pen.dot(x, -0.1, 0.19, lid, (255, 255, 255))
        iris = 0.105 * face.pupil
        pen.dot(x, -0.1 + 0.05 * face.gaze, iris, min(iris, lid), (40, 30, 30))
        inner = (x - side * 0.21, -0.36 - 0.17 * face.brow_in)
        outer = (x + side * 0.23, -0.36 - 0.17 * face.brow_out)
        middle = (x, -0.39 - 0.085 * (face.brow_in + face.brow_out))
        pen.stroke([inner, middle, outer], 0.1, brow)


def _nose(pen: Pen, face: Expression, skin: Color) -> None:
    shade = mix(skin, DARK, 0.35)
    pen.stroke([(-0.03, 0.0), (0.11, 0.24), (-0.08, 0.27)], 0.05, shade, 1.4)
    if face.wrinkle > 0.3:
        for y in (-0.14, -0.02, 0.1):
            pen.stroke([(-0.13, y + 0.05), (0.0, y - 0.03), (0.13, y + 0.05)], 0.04, mix(skin, DARK, 0.6), 1.2)


def _mouth(pen: Pen, person: Identity, face: Expression) -> None:
    half, middle = 0.34 * face.width, 0.56 + person.mouth_drop
    power = 1.0 - 0.75 * face.square
    xs = [i / 6 for i in range(-6, 7)]
    line = [0.24 * face.curve * (0.5 - x * x) for x in xs]
    gap = [0.24 * max(face.open, 0.0) * (1 - x * x) ** power for x in xs]
    # a smile opens downwards only: the upper lip stays where it is
    up = 0.35 if face.curve > 0 else 0.7
    upper = [(x * half, middle + y - up * g) for x, y, g in zip(xs, line, gap, strict=True)]
    lower = [(x * half, middle + y + (1.6 - up) * g) for x, y, g in zip(xs, line, gap, strict=True)]
    lip = (168, 40, 48) if person.gender == "woman" else (128, 48, 44)
    if person.beard:
        lip = (226, 120, 112)  # seen against the beard
    if face.open > 0.08:
        pen.shape(upper + lower[::-1], (70, 12, 22))
        if face.teeth > 0.4:
            share = 0.45 + 0.45 * face.square
            bite = [(lx, uy + (ly - uy) * share) for (_, uy), (lx, ly) in zip(upper, lower, strict=True)]
            pen.shape(upper[1:-1] + bite[1:-1][::-1], (255, 255, 255))
            if face.square > 0.5:
                for i in (3, 5, 7, 9):
                    pen.stroke([upper[i], bite[i]], 0.03, (110, 100, 100))
        pen.stroke([*upper, *lower[::-1], upper[0]], 0.06, lip)
    else:
        pen.stroke(upper, 0.09, lip)
    if face.tongue > 0.3:
        length = 0.3 * face.tongue
        pen.dot(0.0, middle + 0.1 + length * 0.5, 0.17, length * 0.75, (150, 30, 60))
        pen.dot(0.0, middle + 0.08 + length * 0.5, 0.14, length * 0.7, (244, 96, 128))


def _glasses(pen: Pen, person: Identity) -> None:
    gap = 0.36 * person.eye_gap
    for side in (-1, 1):
        px, py = pen.at(side * gap, -0.1)
        w, h, line = 0.29 * pen.radius, 0.26 * pen.radius, max(1, round(0.05 * pen.radius))
        pen.draw.ellipse((px - w, py - h, px + w, py + h), outline=(20, 20, 24), width=line)
        pen.stroke([(side * (gap + 0.28), -0.12), (side * person.face_width, -0.16)], 0.05, (20, 20, 24), 0.6)
    pen.stroke([(-gap + 0.28, -0.1), (gap - 0.28, -0.1)], 0.05, (20, 20, 24))


def _drops(pen: Pen, person: Identity, face: Expression) -> None:
    blue = (70, 150, 250)
    if face.tears > 0.35:
        for side in (-1, 1):
            x, length = side * 0.38 * person.eye_gap, 0.75 * face.tears
            pen.stroke([(x, 0.04), (x * 1.1, 0.04 + length)], 0.11, blue)
            pen.dot(x * 1.1, 0.04 + length, 0.1, 0.12, blue)
    if face.sweat > 0.35:
        for x, y in ((-0.62, -0.5), (0.6, -0.42), (0.7, 0.28)):
            pen.dot(x, y, 0.07, 0.11, blue, 0.6)


def _hat(pen: Pen, person: Identity, from_behind: bool) -> None:
    width, color = person.face_width + 0.12, CLOTH[person.hat or "red"]
    pen.shape([(-width, -0.66), (-width * 0.85, -1.12), (-width * 0.4, -1.34), (width * 0.4, -1.34),
               (width * 0.85, -1.12), (width, -0.66)], color, 0.1)  # fmt: skip
    brim = width if from_behind else width + 0.22
    pen.shape([(-brim, -0.62), (-brim, -0.76), (brim, -0.76), (brim, -0.62)], mix(color, DARK, 0.3), 0.2)
