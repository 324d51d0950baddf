"""Bodies of the built-in corpus: poses over time, the objects they hold and how they are drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL.ImageDraw import ImageDraw

from omnihuman.data.sample.face import CLOTH, SKIN, Color, Expression, Pen, draw_face, mix
from omnihuman.data.sample.world import Identity, Scene

Point = tuple[float, float]
PANTS: tuple[Color, ...] = ((40, 46, 84), (70, 60, 54), (30, 30, 34))
HEAD, TORSO, LEG, ARM = 0.145, 0.31, 0.38, 0.19  # shares of a body's height; ARM and LEG/2 are one bone each


class Pose(NamedTuple):
    """How a body stands: lengths in body heights, x to the right, y down."""

    x: float = 0.0  # of the whole body from its place
    lift: float = 0.0  # of the hip above standing
    lean: float = 0.0  # of the torso to the right, radians
    left: Point = (-0.2, 0.37)  # hand from the neck
    right: Point = (0.2, 0.37)
    left_foot: Point = (-0.09, 0.0)  # from the ground below the body
    right_foot: Point = (0.09, 0.0)


def pose(scene: Scene, t: float) -> Pose:
    """A scene and a time; how its main person stands then."""
    beat = 2 * math.pi * (t + scene.seed % 100 / 100)
    if scene.interaction is not None:
        return _interaction_pose(scene.interaction, beat)
    swing, bounce = math.sin(beat), abs(math.sin(beat))
    match scene.action:
        case "wave":
            return Pose(right=(0.25 + 0.13 * math.sin(1.3 * beat), -0.24))
        case "jump":
            out = 0.09 + 0.07 * bounce
            return Pose(lift=0.17 * bounce, left=(-0.26, -0.15 * bounce), right=(0.26, -0.15 * bounce),
                        left_foot=(-out, -0.17 * bounce), right_foot=(out, -0.17 * bounce))  # fmt: skip
        case "clap":
            apart = 0.015 + 0.2 * abs(math.sin(1.3 * beat))
            return Pose(left=(-apart, 0.13), right=(apart, 0.13))
        case "bow":
            lean = 0.55 * (1 - math.cos(0.6 * beat))
            return Pose(lean=lean, left=(-0.05, 0.34), right=(0.08, 0.34))
        case "dance":
            return Pose(
                x=0.06 * swing,
                left=(-0.24, -0.2 * swing),
                right=(0.24, 0.2 * swing),
                lean=0.16 * swing,
                left_foot=(-0.14, -0.1 * max(0.0, swing)),
                right_foot=(0.14, -0.1 * max(0.0, -swing)),
            )
        case "walk":
            far = -0.34 + 0.68 * t / scene.duration
            return Pose(x=far, left=(-0.08 + 0.2 * swing, 0.35), right=(0.08 - 0.2 * swing, 0.35),
                        left_foot=(-0.19 * swing, -0.06 * max(0.0, math.cos(beat))),
                        right_foot=(0.19 * swing, -0.06 * max(0.0, -math.cos(beat))))  # fmt: skip
        case "sit":
            down = min(1.0, max(0.0, (t - 0.3) / 0.8)) if not scene.is_still else 1.0
            return Pose(lift=-0.17 * down, x=-0.06, left=(0.1, 0.3), right=(0.2, 0.3),
                        left_foot=(0.02 + 0.16 * down, 0.0), right_foot=(0.09 + 0.18 * down, 0.0))  # fmt: skip
        case _:
            return Pose(right=(0.46, 0.02 + 0.01 * swing))


def _interaction_pose(interaction: str, beat: float) -> Pose:
    swing = math.sin(beat)
    up = 0.5 - 0.5 * math.cos(beat)
    match interaction:
        case "drink":
            return Pose(right=(0.15 - 0.08 * up, 0.16 - 0.22 * up))
        case "read":
            return Pose(left=(-0.12, 0.14), right=(0.12, 0.14 + 0.01 * swing))
        case "kick":
            kick = max(0.0, swing)
            return Pose(left=(-0.25, 0.1), right=(0.22, 0.15), lean=-0.12 * kick,
                        right_foot=(0.09 + 0.17 * kick, -0.12 * kick))  # fmt: skip
        case "umbrella":
            return Pose(right=(0.13, 0.06), x=0.03 * swing)
        case "phone":
            return Pose(right=(0.13, -0.12 + 0.006 * swing))
        case "guitar":
            return Pose(left=(-0.3, 0.08), right=(0.06 + 0.02 * math.sin(4 * beat), 0.2 + 0.05 * math.sin(2 * beat)))
        case "box":
            return Pose(lift=-0.04 * up, left=(-0.13, 0.26 - 0.14 * up), right=(0.13, 0.26 - 0.14 * up))
        case "hug":
            return Pose(x=0.12, left=(0.22, 0.08), right=(0.3, 0.14 + 0.02 * swing), lean=0.06)
        case _:
            return Pose(right=(0.25, 0.2 + 0.04 * math.sin(2 * beat)))


def _partner_pose(interaction: str, beat: float) -> Pose:
    if interaction == "hug":
        return Pose(x=-0.12, left=(-0.3, 0.1 + 0.02 * math.sin(beat)), right=(-0.2, 0.16), lean=-0.06)
    return Pose(left=(-0.25, 0.2 + 0.04 * math.sin(2 * beat)))


class Body(NamedTuple):
    """A body's joints in pixels."""

    size: float
    head: Point
    neck: Point
    hip: Point
    left: Point
    right: Point
    left_foot: Point
    right_foot: Point


def _body(place: Point, size: float, stance: Pose) -> Body:
    """The place on the ground, the height in pixels and a pose; where the joints are."""
    x, ground = place[0] + stance.x * size, place[1]
    hip = (x, ground - (LEG + stance.lift) * size)
    cos, sin = math.cos(stance.lean), math.sin(stance.lean)
    neck = (hip[0] + sin * TORSO * size, hip[1] - cos * TORSO * size)
    head = (neck[0] + sin * HEAD * size, neck[1] - cos * HEAD * size)
    left, right = ((neck[0] + px * size, neck[1] + py * size) for px, py in (stance.left, stance.right))
    feet = [(x + px * size, ground + py * size) for px, py in (stance.left_foot, stance.right_foot)]
    return Body(size, head, neck, hip, left, right, feet[0], feet[1])


def _bodies(scene: Scene, t: float) -> list[tuple[Identity, Body]]:
    """A scene and a time; every person with the joints in pixels of the kept size."""
    room = {"jump": 0.82, "umbrella": 0.84, "dance": 0.93, "wave": 0.95}  # for what reaches above the head
    size = 0.94 * room.get(scene.action or scene.interaction or "", 1.0) * min(scene.height, 1.15 * scene.width)
    ground = 0.975 * scene.height
    middle = 0.5 * scene.width
    if scene.partner is None:
        shift = -0.1 if scene.interaction == "kick" else 0.0
        return [(scene.identity, _body((middle + shift * size, ground), size, pose(scene, t)))]
    beat = 2 * math.pi * (t + scene.seed % 100 / 100)
    apart, size = 0.25 * size, 0.88 * size
    return [
        (scene.identity, _body((middle - apart, ground), size, pose(scene, t))),
        (scene.partner, _body((middle + apart, ground), size, _partner_pose(scene.interaction or "", beat))),
    ]


def head_places(scene: Scene, t: float) -> list[tuple[Identity, float, float, float]]:
    """A scene of whole bodies and a time; (person, x, y, radius) of every head in pixels of the kept size."""
    return [(person, *body.head, HEAD * body.size * 0.92) for person, body in _bodies(scene, t)]


def _bend(start: Point, end: Point, bone: float, side: float) -> Point:
    """Two ends of a limb of two equal bones; its elbow or knee, on the given side."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(math.hypot(dx, dy), 1e-6)
    out = math.sqrt(max(bone * bone - length * length / 4, 0.0))
    return (start[0] + end[0]) / 2 + side * out * dy / length, (start[1] + end[1]) / 2 - side * out * dx / length


def _limb(draw: ImageDraw, points: list[Point], width: float, color: Color) -> None:
    draw.line(points, fill=color, width=round(width), joint="curve")
    for x, y in points:
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=color)


def draw_figures(draw: ImageDraw, scene: Scene, t: float, face: Expression, scale: int) -> None:
    """A canvas ``scale`` times the kept size, a scene, a time and the main face; draws all people and objects."""
    bodies = [(person, _scaled(body, scale)) for person, body in _bodies(scene, t)]
    main = bodies[0][1]
    if scene.action == "sit":
        _chair(draw, main, bodies[0][1].size, scale * (0.5 * scene.width - 0.06 * main.size / scale), main.left_foot[1])
    for index, (person, body) in enumerate(reversed(bodies)):
        is_main = index == len(bodies) - 1
        _draw_body(draw, person, body, face if is_main else Expression(), scene.from_behind)
    if scene.interaction == "hug":  # the partner's arm lies over the main person's back
        person, body = bodies[1]
        _arm(draw, person, body, body.left, -1)
    draw_object(draw, scene, t, main)


def _scaled(body: Body, scale: int) -> Body:
    joints = [(x * scale, y * scale) for x, y in body[1:]]
    return Body(body.size * scale, *joints)


def _arm(draw: ImageDraw, person: Identity, body: Body, hand: Point, side: int) -> None:
    size = body.size
    shoulder = (body.neck[0] + side * 0.1 * size, body.neck[1] + 0.035 * size)
    elbow = _bend(shoulder, hand, ARM * size, float(side if hand[1] > shoulder[1] else -side))
    sleeve = mix(CLOTH[person.shirt], (0, 0, 0), 0.18)
    _limb(draw, [shoulder, elbow, hand], 0.075 * size, sleeve)
    r = 0.045 * size
    draw.ellipse((hand[0] - r, hand[1] - r, hand[0] + r, hand[1] + r), fill=SKIN[person.skin])


def _draw_body(draw: ImageDraw, person: Identity, body: Body, face: Expression, from_behind: bool) -> None:
    size, pants = body.size, PANTS[person.index % len(PANTS)]
    for side, foot in ((-1, body.left_foot), (1, body.right_foot)):
        hip = (body.hip[0] + side * 0.05 * size, body.hip[1])
        ankle = (foot[0], foot[1] - 0.03 * size)
        _limb(
            draw,
            [hip, _bend(hip, ankle, (LEG - 0.025) * size / 2, 1.0 if ankle[0] >= hip[0] else -1.0), ankle],
            0.09 * size,
            pants,
        )
        draw.ellipse(
            (foot[0] - 0.065 * size, foot[1] - 0.055 * size, foot[0] + 0.065 * size, foot[1]), fill=(30, 24, 24)
        )
    _limb(draw, [body.hip, (body.neck[0], body.neck[1] + 0.06 * size)], 0.2 * size, CLOTH[person.shirt])
    if from_behind:
        _arms(draw, person, body)
    pen = Pen(
        draw, *body.head, HEAD * size * 0.92, 0.0, math.atan2(body.head[0] - body.neck[0], body.neck[1] - body.head[1])
    )
    draw_face(pen, person, face, from_behind)
    if not from_behind:
        _arms(draw, person, body)


def _arms(draw: ImageDraw, person: Identity, body: Body) -> None:
    _arm(draw, person, body, body.left, -1)
    _arm(draw, person, body, body.right, 1)


def _chair(draw: ImageDraw, body: Body, size: float, x: float, ground: float) -> None:
    seat, wood = ground - 0.2 * size, (128, 78, 36)
    draw.rectangle((x - 0.19 * size, seat - 0.36 * size, x - 0.14 * size, ground), fill=wood)
    draw.rectangle((x - 0.19 * size, seat, x + 0.17 * size, seat + 0.05 * size), fill=wood)
    draw.rectangle((x + 0.12 * size, seat, x + 0.17 * size, ground), fill=wood)


def draw_object(draw: ImageDraw, scene: Scene, t: float, body: Body) -> None:
    """A canvas, a scene, a time and its main body; draws what that person holds or plays with."""
    size, (x, y), beat = body.size, body.right, 2 * math.pi * (t + scene.seed % 100 / 100)

    def box(x0: float, y0: float, x1: float, y1: float, color: Color, outline: Color | None = None) -> None:
        draw.rectangle((x + x0 * size, y + y0 * size, x + x1 * size, y + y1 * size), fill=color, outline=outline,
                       width=max(1, round(0.012 * size)))  # fmt: skip

    if scene.action == "clap" and x - body.left[0] < 0.16 * size:
        for dx in (-0.1, -0.035, 0.035, 0.1):  # the clap itself, so that a single frame tells it
            draw.line(
                (x + dx * size, y - 0.08 * size, x + 1.7 * dx * size, y - 0.15 * size), fill=(255, 250, 120), width=5
            )
    match scene.interaction:
        case "drink":
            draw.ellipse(
                (x + 0.03 * size, y - 0.05 * size, x + 0.12 * size, y + 0.04 * size), outline=(20, 150, 220), width=5
            )
            box(-0.06, -0.08, 0.06, 0.07, (40, 190, 250), (10, 80, 140))
        case "read":
            middle = ((body.left[0] + body.right[0]) / 2, y)
            for side in (-0.17, 0.17):
                edge = middle[0] + side * size
                points = [(middle[0], y - 0.07 * size), (edge, y - 0.11 * size), (edge, y + 0.08 * size),
                          (middle[0], y + 0.12 * size)]  # fmt: skip
                draw.polygon(points, fill=(252, 250, 235), outline=(150, 30, 30), width=4)
        case "kick":
            kick = math.sin(beat)
            away = 0.2 * max(0.0, kick) + (0.12 * (1 - max(0.0, kick)))
            bx, by, r = (
                body.hip[0] + (0.2 + away) * size,
                body.left_foot[1] - (0.08 + 0.22 * max(0.0, kick)) * size,
                0.085 * size,
            )
            draw.ellipse((bx - r, by - r, bx + r, by + r), fill=(250, 250, 250), outline=(20, 20, 20), width=4)
            draw.regular_polygon((bx, by, r * 0.5), 5, rotation=round(60 * beat) % 360, fill=(20, 20, 20))
        case "umbrella":
            top = body.head[1] - 0.22 * size
            draw.line((x, y, x, top), fill=(60, 40, 30), width=6)
            roof = (x - 0.42 * size, top - 0.06 * size, x + 0.24 * size, top + 0.34 * size)
            draw.pieslice(roof, 180, 360, fill=(230, 40, 120), outline=(130, 10, 60), width=4)
        case "phone":
            box(-0.035, -0.085, 0.035, 0.07, (15, 15, 18), (120, 220, 255))
        case "guitar":
            gx, gy, wood = body.neck[0] + 0.06 * size, body.neck[1] + 0.24 * size, (206, 112, 30)
            hand = body.left
            draw.line((gx, gy, hand[0], hand[1]), fill=(90, 50, 20), width=round(0.04 * size))
            for dx, dy, r in ((0.08, 0.03, 0.12), (-0.02, -0.02, 0.085)):
                px, py = gx + dx * size, gy + dy * size
                draw.ellipse((px - r * size, py - r * size, px + r * size, py + r * size), fill=wood)
            draw.ellipse((gx - 0.02 * size, gy - 0.02 * size, gx + 0.07 * size, gy + 0.07 * size), fill=(40, 20, 10))
            r = 0.045 * size
            draw.ellipse((x - r, y - r, x + r, y + r), fill=SKIN[scene.identity.skin])
        case "box":
            dx = ((body.left[0] + body.right[0]) / 2 - x) / size
            box(dx - 0.15, -0.12, dx + 0.15, 0.12, (190, 140, 80), (110, 70, 30))
            box(dx - 0.03, -0.12, dx + 0.03, 0.12, (230, 210, 150))
