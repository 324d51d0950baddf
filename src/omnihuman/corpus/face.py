"""Faces of the built-in corpus: expressions as vectors of muscle activations, and their drawing."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL.ImageDraw import ImageDraw

from omnihuman.corpus.world import Identity

Color = tuple[int, int, int]
Point = tuple[float, float]

SKIN: dict[str, Color] = {"light": (243, 205, 175), "tan": (208, 152, 105), "dark": (130, 86, 58)}
HAIR: dict[str, Color] = {
    "black": (28, 26, 30),
    "brown": (112, 66, 32),
    "blond": (238, 202, 92),
    "red": (196, 76, 28),
    "gray": (170, 170, 176),
}
CLOTH: dict[str, Color] = {
    "red": (214, 44, 44),
    "blue": (44, 84, 204),
    "green": (36, 150, 72),
    "yellow": (244, 208, 40),
    "purple": (140, 60, 170),
    "white": (238, 238, 240),
}
DARK: Color = (38, 28, 32)


class Expression(NamedTuple):
    """Activations of a face: 0 is at rest, 1 is strong; ``eye``, ``pupil`` and ``width`` rest at 1."""

    brow_in: float = 0.0  # inner ends up (+) or down (-)
    brow_out: float = 0.0  # outer ends up (+) or down (-)
    eye: float = 1.0  # opening of the lids
    pupil: float = 1.0
    gaze: float = 0.0  # down (+)
    curve: float = 0.0  # corners of the mouth up (+) or down (-)
    open: float = 0.0  # opening of the mouth
    width: float = 1.0  # of the mouth
    square: float = 0.0  # shape of the opening: round (0) or bared teeth (1)
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
    "angry": Expression(
        brow_in=-1.3,
        brow_out=0.5,
        eye=0.7,
        pupil=0.8,
        curve=-0.45,
        open=0.4,
        width=1.15,
        square=1.0,
        teeth=1.0,
        red=1.0,
    ),
    "surprise": Expression(brow_in=1.1, brow_out=1.1, eye=1.9, open=1.25, width=0.62),
    "disgust": Expression(
        brow_in=-0.8, brow_out=-0.1, eye=0.36, curve=-0.8, open=0.25, width=1.0, tongue=1.0, wrinkle=1.0, green=1.0
    ),
    "fear": Expression(
        brow_in=1.3,
        brow_out=-0.2,
        eye=1.75,
        pupil=0.5,
        curve=-0.4,
        open=0.5,
        width=1.25,
        square=0.8,
        pale=1.0,
        sweat=1.0,
    ),
}


#: curls of the hair, around the head
CURLS: tuple[Point, ...] = (
    (-0.85, -0.1),
    (0.85, -0.1),
    (-0.82, 0.25),
    (0.82, 0.25),
    (-0.7, -0.65),
    (0.7, -0.65),
    (-0.35, -0.98),
    (0.35, -0.98),
    (0.0, -1.02),
)


def blend_expressions(start: Expression, end: Expression, amount: float) -> Expression:
    """Interpolate between two expressions: ``start`` at 0, ``end`` at 1."""
    return Expression(*(a + (b - a) * amount for a, b in zip(start, end, strict=True)))


def smoothstep(x: float) -> float:
    """Return 0 below 0, 1 above 1, and a smooth rise between."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def compute_head_motion(emotion: str, intensity: float, t: float, phase: float) -> tuple[float, float, float, float]:
    """Return the motion of a head (right, down, turn, tilt), in head heights and radians."""
    wave = math.sin(2 * math.pi * t + phase)
    match emotion:
        case "happy":
            bob = abs(math.sin(2 * math.pi * 1.8 * t))
            return 0.0, -0.09 * intensity * bob, 0.0, 0.1 * intensity * wave
        case "sad":
            return 0.0, 0.14 * intensity, 0.0, 0.12 * intensity
        case "angry":
            return 0.07 * intensity * math.sin(2 * math.pi * 2.2 * t), 0.04 * intensity, 0.0, 0.0
        case "surprise":
            return 0.0, -0.1 * intensity, 0.0, 0.0
        case "disgust":
            return -0.06 * intensity, 0.0, -0.22 * intensity, -0.16 * intensity
        case "fear":
            shake = intensity * (1 if round(t * 10) % 2 else -1)
            return 0.045 * shake, 0.02 * intensity, 0.0, 0.025 * shake
        case _:
            return 0.0, 0.008 * wave, 0.03 * wave, 0.02 * wave


def mix_colors(color: Color, other: Color, amount: float) -> Color:
    """Interpolate between two colours: ``color`` at 0, ``other`` at 1."""
    r, g, b = (round(a + (z - a) * amount) for a, z in zip(color, other, strict=True))
    return r, g, b


def compute_skin_color(identity: Identity, face: Expression) -> Color:
    """Return the skin colour under an expression: red with anger, green with disgust, pale with fear."""
    color = mix_colors(SKIN[identity.skin], (222, 40, 30), 0.5 * face.red)
    color = mix_colors(color, (120, 180, 60), 0.5 * face.green)
    return mix_colors(color, (190, 206, 240), 0.6 * face.pale)


class Pen:
    """Draw in face coordinates: the origin between the eyes, y down, 1 is half the height of the head."""

    def __init__(self, draw: ImageDraw, x: float, y: float, radius: float, turn: float, tilt: float) -> None:
        self.draw, self.x, self.y, self.radius, self.turn = draw, x, y, radius, turn
        self.cos, self.sin = math.cos(tilt) * radius, math.sin(tilt) * radius

    def to_pixels(self, x: float, y: float, depth: float = 1.0) -> Point:
        """Convert face coordinates to pixels; a turn moves points of larger ``depth`` (the nose) further."""
        x += self.turn * depth
        return self.x + x * self.cos - y * self.sin, self.y + x * self.sin + y * self.cos

    def fill_ellipse(
        self, x: float, y: float, half_width: float, half_height: float, color: Color, depth: float = 1.0
    ) -> None:
        """Fill an ellipse around a point."""
        px, py = self.to_pixels(x, y, depth)
        w, h = half_width * self.radius, half_height * self.radius
        self.draw.ellipse((px - w, py - h, px + w, py + h), fill=color)

    def fill_polygon(self, points: list[Point], color: Color, depth: float = 1.0) -> None:
        """Fill a polygon."""
        self.draw.polygon([self.to_pixels(x, y, depth) for x, y in points], fill=color)

    def draw_line(self, points: list[Point], width: float, color: Color, depth: float = 1.0) -> None:
        """Draw a line through points."""
        pixels = [self.to_pixels(x, y, depth) for x, y in points]
        self.draw.line(pixels, fill=color, width=max(1, round(width * self.radius)), joint="curve")


def draw_face(pen: Pen, person: Identity, face: Expression, from_behind: bool = False) -> None:
    """Draw the head of a person, with a pen at its centre."""
    width = person.face_width
    skin = compute_skin_color(person, face)
    hair = HAIR[person.hair_color]
    is_bald = person.hair == "no"
    _draw_back_hair(pen, person, hair)
    pen.fill_ellipse(-width, 0.02, 0.12, 0.18, skin, 0.0)
    pen.fill_ellipse(width, 0.02, 0.12, 0.18, skin, 0.0)
    head = hair if from_behind and not is_bald else skin
    pen.fill_ellipse(0.0, 0.0, width, 1.0, head, 0.0)
    if not from_behind:
        _draw_fringe(pen, person, hair)
        if person.beard:
            _draw_beard(pen, person, HAIR["brown"] if is_bald else hair)
        _draw_cheeks(pen, face)
        _draw_eyes(pen, person, face)
        _draw_nose(pen, face, skin)
        _draw_mouth(pen, person, face)
        if person.glasses:
            _draw_glasses(pen, person)
        _draw_drops(pen, person, face)
    if person.hat:
        _draw_hat(pen, person, CLOTH[person.hat], from_behind)


def _draw_back_hair(pen: Pen, person: Identity, hair: Color) -> None:
    """Draw the hair behind the head."""
    width = person.face_width
    if person.hair == "no":
        return
    if person.hair == "long":
        x0, x1 = width + 0.16, width + 0.2
        pen.fill_polygon([(-x0, -0.3), (-x1, 1.05), (x1, 1.05), (x0, -0.3)], hair, 0.0)
    pen.fill_ellipse(0.0, -0.32, width + 0.16, 0.82, hair, 0.0)
    if person.hair == "curly":
        for x, y in CURLS:
            pen.fill_ellipse(x * width / 0.8, y, 0.3, 0.3, hair, 0.0)


def _draw_fringe(pen: Pen, person: Identity, hair: Color) -> None:
    width = person.face_width
    if person.hair == "short":
        points = [
            (-width, -0.3),
            (-width * 0.9, -0.75),
            (0.0, -1.08),
            (width * 0.9, -0.75),
            (width, -0.3),
            (width * 0.75, -0.62),
            (-width * 0.5, -0.72),
        ]
        pen.fill_polygon(points, hair, 0.0)
    elif person.hair == "long":
        points = [
            (-width - 0.04, 0.2),
            (-width * 0.95, -0.7),
            (0.0, -1.08),
            (width * 0.95, -0.7),
            (width + 0.04, 0.2),
            (width * 0.78, -0.5),
            (0.0, -0.82),
            (-width * 0.78, -0.5),
        ]
        pen.fill_polygon(points, hair, 0.0)
    elif person.hair == "curly":
        for x in (-0.6, -0.3, 0.0, 0.3, 0.6):
            pen.fill_ellipse(x, -0.8 + 0.25 * x * x, 0.24, 0.2, hair, 0.0)


def _draw_beard(pen: Pen, person: Identity, hair: Color) -> None:
    width = person.face_width
    jaw = [(-width * 0.98, 0.1), (-width * 0.88, 0.62), (-0.42, 0.98), (0.0, 1.1), (0.42, 0.98), (width * 0.88, 0.62)]
    lip = [(width * 0.98, 0.1), (width * 0.7, 0.34), (0.36, 0.26), (-0.36, 0.26), (-width * 0.7, 0.34)]
    pen.fill_polygon(jaw + lip, hair, 0.2)


def _draw_cheeks(pen: Pen, face: Expression) -> None:
    if face.cheeks > 0.2:
        for side in (-1, 1):
            pen.fill_ellipse(side * 0.53, 0.2, 0.16 * face.cheeks, 0.12 * face.cheeks, (240, 110, 110))


def _draw_eyes(pen: Pen, person: Identity, face: Expression) -> None:
    gap = 0.36 * person.eye_gap
    lid = 0.125 * min(max(face.eye, 0.08), 2.0)
    iris = 0.105 * face.pupil
    brow = mix_colors(HAIR[person.hair_color], DARK, 0.55)
    for side in (-1, 1):
        x = side * gap
        pen.fill_ellipse(x, -0.1, 0.215, lid + 0.025, DARK)
        pen.fill_ellipse(x, -0.1, 0.19, lid, (255, 255, 255))
        pen.fill_ellipse(x, -0.1 + 0.05 * face.gaze, iris, min(iris, lid), (40, 30, 30))
        inner = (x - side * 0.21, -0.36 - 0.17 * face.brow_in)
        outer = (x + side * 0.23, -0.36 - 0.17 * face.brow_out)
        middle = (x, -0.39 - 0.085 * (face.brow_in + face.brow_out))
        pen.draw_line([inner, middle, outer], 0.1, brow)


def _draw_nose(pen: Pen, face: Expression, skin: Color) -> None:
    pen.draw_line([(-0.03, 0.0), (0.11, 0.24), (-0.08, 0.27)], 0.05, mix_colors(skin, DARK, 0.35), 1.4)
    if face.wrinkle > 0.3:
        shade = mix_colors(skin, DARK, 0.6)
        for y in (-0.14, -0.02, 0.1):
            pen.draw_line([(-0.13, y + 0.05), (0.0, y - 0.03), (0.13, y + 0.05)], 0.04, shade, 1.2)


def _draw_mouth(pen: Pen, person: Identity, face: Expression) -> None:
    upper, lower = _shape_lips(person, face)
    color = _lip_color(person)
    if face.open > 0.08:
        pen.fill_polygon(upper + lower[::-1], (70, 12, 22))
        if face.teeth > 0.4:
            _draw_teeth(pen, face, upper, lower)
        pen.draw_line([*upper, *lower[::-1], upper[0]], 0.06, color)
    else:
        pen.draw_line(upper, 0.09, color)
    if face.tongue > 0.3:
        middle, length = 0.56 + person.mouth_drop, 0.3 * face.tongue
        pen.fill_ellipse(0.0, middle + 0.1 + length * 0.5, 0.17, length * 0.75, (150, 30, 60))
        pen.fill_ellipse(0.0, middle + 0.08 + length * 0.5, 0.14, length * 0.7, (244, 96, 128))


def _shape_lips(person: Identity, face: Expression) -> tuple[list[Point], list[Point]]:
    """Return 13 points of the upper and of the lower lip, from left to right."""
    half, middle = 0.34 * face.width, 0.56 + person.mouth_drop
    power = 1.0 - 0.75 * face.square
    # a smile opens downwards only: the upper lip stays in place
    up = 0.35 if face.curve > 0 else 0.7
    upper: list[Point] = []
    lower: list[Point] = []
    for index in range(-6, 7):
        x = index / 6
        y = middle + 0.24 * face.curve * (0.5 - x * x)
        gap = 0.24 * max(face.open, 0.0) * (1 - x * x) ** power
        upper.append((x * half, y - up * gap))
        lower.append((x * half, y + (1.6 - up) * gap))
    return upper, lower


def _lip_color(person: Identity) -> Color:
    if person.beard:
        return (226, 120, 112)  # bright enough to stand out from the beard
    if person.gender == "woman":
        return (168, 40, 48)
    return (128, 48, 44)


def _draw_teeth(pen: Pen, face: Expression, upper: list[Point], lower: list[Point]) -> None:
    share = 0.45 + 0.45 * face.square
    edge: list[Point] = []
    for (_, top), (x, bottom) in zip(upper, lower, strict=True):
        edge.append((x, top + (bottom - top) * share))
    pen.fill_polygon(upper[1:-1] + edge[1:-1][::-1], (255, 255, 255))
    if face.square > 0.5:
        for index in (3, 5, 7, 9):
            pen.draw_line([upper[index], edge[index]], 0.03, (110, 100, 100))


def _draw_glasses(pen: Pen, person: Identity) -> None:
    gap = 0.36 * person.eye_gap
    frame = (20, 20, 24)
    w, h, line = 0.29 * pen.radius, 0.26 * pen.radius, max(1, round(0.05 * pen.radius))
    for side in (-1, 1):
        px, py = pen.to_pixels(side * gap, -0.1)
        pen.draw.ellipse((px - w, py - h, px + w, py + h), outline=frame, width=line)
        pen.draw_line([(side * (gap + 0.28), -0.12), (side * person.face_width, -0.16)], 0.05, frame, 0.6)
    pen.draw_line([(-gap + 0.28, -0.1), (gap - 0.28, -0.1)], 0.05, frame)


def _draw_drops(pen: Pen, person: Identity, face: Expression) -> None:
    """Draw tears and sweat."""
    blue = (70, 150, 250)
    if face.tears > 0.35:
        length = 0.75 * face.tears
        for side in (-1, 1):
            x = side * 0.38 * person.eye_gap
            pen.draw_line([(x, 0.04), (x * 1.1, 0.04 + length)], 0.11, blue)
            pen.fill_ellipse(x * 1.1, 0.04 + length, 0.1, 0.12, blue)
    if face.sweat > 0.35:
        for x, y in ((-0.62, -0.5), (0.6, -0.42), (0.7, 0.28)):
            pen.fill_ellipse(x, y, 0.07, 0.11, blue, 0.6)


def _draw_hat(pen: Pen, person: Identity, color: Color, from_behind: bool) -> None:
    width = person.face_width + 0.12
    crown = [
        (-width, -0.66),
        (-width * 0.85, -1.12),
        (-width * 0.4, -1.34),
        (width * 0.4, -1.34),
        (width * 0.85, -1.12),
        (width, -0.66),
    ]
    pen.fill_polygon(crown, color, 0.1)
    brim = width if from_behind else width + 0.22
    shade = mix_colors(color, DARK, 0.3)
    pen.fill_polygon([(-brim, -0.62), (-brim, -0.76), (brim, -0.76), (brim, -0.62)], shade, 0.2)
