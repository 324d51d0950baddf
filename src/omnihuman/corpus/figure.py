"""Bodies of the built-in corpus: poses over time, and the drawing of people and objects."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL.ImageDraw import ImageDraw

from omnihuman.corpus.face import CLOTH, SKIN, Color, Expression, Pen, draw_face, mix_colors
from omnihuman.corpus.world import Identity, Scene

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the frame."""

PANTS: tuple[Color, ...] = ((40, 46, 84), (70, 60, 54), (30, 30, 34))
HEAD, TORSO, LEG, ARM = 0.145, 0.31, 0.38, 0.19  # shares of a body's height; ARM and LEG / 2 are the length of one bone


class Pose(NamedTuple):
    """Pose of a body: lengths in body heights, x to the right, y down."""

    x: float = 0.0  # of the body from its place
    lift: float = 0.0  # of the hip above its height in standing
    lean: float = 0.0  # of the torso to the right, radians
    left: Point = (-0.2, 0.37)  # hand, relative to the neck
    right: Point = (0.2, 0.37)
    left_foot: Point = (-0.09, 0.0)  # relative to the ground below the body
    right_foot: Point = (0.09, 0.0)


def _compute_beat(scene: Scene, t: float) -> float:
    """Return the phase of a motion of one cycle per second, in radians; scenes differ in their start."""
    return 2 * math.pi * (t + scene.seed % 100 / 100)


def compute_pose(scene: Scene, t: float) -> Pose:
    """Return the pose of the main person of a scene at a time."""
    beat = _compute_beat(scene, t)
    if scene.interaction is not None:
        return _compute_interaction_pose(scene.interaction, beat)
    swing = math.sin(beat)
    bounce = abs(swing)
    match scene.action:
        case "wave":
            return Pose(right=(0.25 + 0.13 * math.sin(1.3 * beat), -0.24))
        case "jump":
            out = 0.09 + 0.07 * bounce
            return Pose(
                lift=0.17 * bounce,
                left=(-0.26, -0.15 * bounce),
                right=(0.26, -0.15 * bounce),
                left_foot=(-out, -0.17 * bounce),
                right_foot=(out, -0.17 * bounce),
            )
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
            return Pose(
                x=far,
                left=(-0.08 + 0.2 * swing, 0.35),
                right=(0.08 - 0.2 * swing, 0.35),
                left_foot=(-0.19 * swing, -0.06 * max(0.0, math.cos(beat))),
                right_foot=(0.19 * swing, -0.06 * max(0.0, -math.cos(beat))),
            )
        case "sit":
            down = 1.0 if scene.is_still else min(1.0, max(0.0, (t - 0.3) / 0.8))
            return Pose(
                lift=-0.17 * down,
                x=-0.06,
                left=(0.1, 0.3),
                right=(0.2, 0.3),
                left_foot=(0.02 + 0.16 * down, 0.0),
                right_foot=(0.09 + 0.18 * down, 0.0),
            )
        case _:
            return Pose(right=(0.46, 0.02 + 0.01 * swing))


def _compute_interaction_pose(interaction: str, beat: float) -> Pose:
    swing = math.sin(beat)
    up = 0.5 - 0.5 * math.cos(beat)
    match interaction:
        case "drink":
            return Pose(right=(0.15 - 0.08 * up, 0.16 - 0.22 * up))
        case "read":
            return Pose(left=(-0.12, 0.14), right=(0.12, 0.14 + 0.01 * swing))
        case "kick":
            kick = max(0.0, swing)
            return Pose(
                left=(-0.25, 0.1), right=(0.22, 0.15), lean=-0.12 * kick, right_foot=(0.09 + 0.17 * kick, -0.12 * kick)
            )
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


def _compute_partner_pose(interaction: str, beat: float) -> Pose:
    if interaction == "hug":
        return Pose(x=-0.12, left=(-0.3, 0.1 + 0.02 * math.sin(beat)), right=(-0.2, 0.16), lean=-0.06)
    return Pose(left=(-0.25, 0.2 + 0.04 * math.sin(2 * beat)))


class Body(NamedTuple):
    """Height and joints of a body, in pixels; ``left`` and ``right`` are the hands."""

    size: float
    head: Point
    neck: Point
    hip: Point
    left: Point
    right: Point
    left_foot: Point
    right_foot: Point


def _place_body(place: Point, size: float, pose: Pose) -> Body:
    """Return the joints of a body of a height in pixels that stands at a place on the ground."""
    x, ground = place[0] + pose.x * size, place[1]
    hip = (x, ground - (LEG + pose.lift) * size)
    cos, sin = math.cos(pose.lean), math.sin(pose.lean)
    neck = (hip[0] + sin * TORSO * size, hip[1] - cos * TORSO * size)
    return Body(
        size=size,
        head=(neck[0] + sin * HEAD * size, neck[1] - cos * HEAD * size),
        neck=neck,
        hip=hip,
        left=_shift_point(neck, pose.left, size),
        right=_shift_point(neck, pose.right, size),
        left_foot=_shift_point((x, ground), pose.left_foot, size),
        right_foot=_shift_point((x, ground), pose.right_foot, size),
    )


def _shift_point(origin: Point, offset: Point, scale: float) -> Point:
    return origin[0] + offset[0] * scale, origin[1] + offset[1] * scale


def _place_bodies(scene: Scene, t: float) -> list[tuple[Identity, Body]]:
    """Return every person of a scene with the joints at a time, in pixels of the frame."""
    # motions and objects above the head need room, so the body is smaller
    shrink = {"jump": 0.82, "umbrella": 0.84, "dance": 0.93, "wave": 0.95}
    size = 0.94 * shrink.get(scene.action or scene.interaction or "", 1.0) * min(scene.height, 1.15 * scene.width)
    ground = 0.975 * scene.height
    middle = 0.5 * scene.width
    pose = compute_pose(scene, t)
    if scene.partner is None:
        shift = -0.1 if scene.interaction == "kick" else 0.0
        return [(scene.identity, _place_body((middle + shift * size, ground), size, pose))]
    apart, size = 0.25 * size, 0.88 * size
    partner_pose = _compute_partner_pose(scene.interaction or "", _compute_beat(scene, t))
    return [
        (scene.identity, _place_body((middle - apart, ground), size, pose)),
        (scene.partner, _place_body((middle + apart, ground), size, partner_pose)),
    ]


def locate_heads(scene: Scene, t: float) -> list[tuple[Identity, float, float, float]]:
    """Return (person, x, y, radius) of every head of a scene of whole bodies, in pixels of the frame."""
    return [(person, *body.head, HEAD * body.size * 0.92) for person, body in _place_bodies(scene, t)]


def locate_bodies(scene: Scene, t: float) -> list[Box]:
    """Return the bounding box of every body of a scene of whole bodies, without what they wear on the head or hold."""
    boxes = []
    for _, body in _place_bodies(scene, t):
        size = body.size
        ends = [(body.head, 1.1 * HEAD * size), (body.hip, 0.1 * size)]
        for hand, foot, side in ((body.left, body.left_foot, -1), (body.right, body.right_foot, 1)):
            elbow = _locate_arm(body, hand, side)[1]
            ends += [(hand, 0.045 * size), (elbow, 0.04 * size), (foot, 0.065 * size)]
        left = min(x - margin for (x, _), margin in ends)
        right = max(x + margin for (x, _), margin in ends)
        top = min(y - margin for (_, y), margin in ends)
        boxes.append((left, top, right, max(body.left_foot[1], body.right_foot[1])))
    return boxes


def _locate_joint(start: Point, end: Point, bone: float, side: float) -> Point:
    """Return the elbow or knee between two ends of a limb of two equal bones, bent to a side (1 or -1)."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(math.hypot(dx, dy), 1e-6)
    out = math.sqrt(max(bone * bone - length * length / 4, 0.0))
    return (start[0] + end[0]) / 2 + side * out * dy / length, (start[1] + end[1]) / 2 - side * out * dx / length


def draw_figures(draw: ImageDraw, scene: Scene, t: float, face: Expression, scale: int) -> None:
    """Draw the people and objects of a scene on a canvas ``scale`` times the frame, ``face`` on the main person."""
    bodies = [(person, _scale_body(body, scale)) for person, body in _place_bodies(scene, t)]
    main = bodies[0][1]
    if scene.action == "sit":
        x = scale * (0.5 * scene.width - 0.06 * main.size / scale)
        _draw_chair(draw, main.size, x, main.left_foot[1])
    for person, body in bodies[1:]:
        _draw_body(draw, person, body, Expression(), scene.from_behind)
    _draw_body(draw, scene.identity, main, face, scene.from_behind)
    if scene.interaction == "hug":  # the partner's arm lies over the main person's back
        person, body = bodies[1]
        _draw_arm(draw, person, body, body.left, -1)
    draw_object(draw, scene, t, main)


def _scale_body(body: Body, scale: int) -> Body:
    joints = [(x * scale, y * scale) for x, y in body[1:]]
    return Body(body.size * scale, *joints)


def _draw_limb(draw: ImageDraw, points: list[Point], width: float, color: Color) -> None:
    draw.line(points, fill=color, width=round(width), joint="curve")
    for x, y in points:
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=color)


def _draw_circle(draw: ImageDraw, x: float, y: float, radius: float, color: Color) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _locate_arm(body: Body, hand: Point, side: int) -> tuple[Point, Point]:
    """Return the shoulder and the elbow of the arm to a hand."""
    shoulder = (body.neck[0] + side * 0.1 * body.size, body.neck[1] + 0.035 * body.size)
    bend = side if hand[1] > shoulder[1] else -side
    return shoulder, _locate_joint(shoulder, hand, ARM * body.size, float(bend))


def _draw_arm(draw: ImageDraw, person: Identity, body: Body, hand: Point, side: int) -> None:
    size = body.size
    shoulder, elbow = _locate_arm(body, hand, side)
    sleeve = mix_colors(CLOTH[person.shirt], (0, 0, 0), 0.18)
    _draw_limb(draw, [shoulder, elbow, hand], 0.075 * size, sleeve)
    _draw_circle(draw, *hand, 0.045 * size, SKIN[person.skin])


def _draw_arms(draw: ImageDraw, person: Identity, body: Body) -> None:
    _draw_arm(draw, person, body, body.left, -1)
    _draw_arm(draw, person, body, body.right, 1)


def _draw_leg(draw: ImageDraw, body: Body, foot: Point, side: int, pants: Color) -> None:
    size = body.size
    hip = (body.hip[0] + side * 0.05 * size, body.hip[1])
    ankle = (foot[0], foot[1] - 0.03 * size)
    bend = 1.0 if ankle[0] >= hip[0] else -1.0
    knee = _locate_joint(hip, ankle, (LEG - 0.025) * size / 2, bend)
    _draw_limb(draw, [hip, knee, ankle], 0.09 * size, pants)
    shoe = (foot[0] - 0.065 * size, foot[1] - 0.055 * size, foot[0] + 0.065 * size, foot[1])
    draw.ellipse(shoe, fill=(30, 24, 24))


def _draw_body(draw: ImageDraw, person: Identity, body: Body, face: Expression, from_behind: bool) -> None:
    size = body.size
    pants = PANTS[person.index % len(PANTS)]
    _draw_leg(draw, body, body.left_foot, -1, pants)
    _draw_leg(draw, body, body.right_foot, 1, pants)
    _draw_limb(draw, [body.hip, (body.neck[0], body.neck[1] + 0.06 * size)], 0.2 * size, CLOTH[person.shirt])
    if from_behind:
        _draw_arms(draw, person, body)
    tilt = math.atan2(body.head[0] - body.neck[0], body.neck[1] - body.head[1])
    draw_face(Pen(draw, *body.head, HEAD * size * 0.92, 0.0, tilt), person, face, from_behind)
    if not from_behind:
        _draw_arms(draw, person, body)


def _draw_chair(draw: ImageDraw, size: float, x: float, ground: float) -> None:
    seat, wood = ground - 0.2 * size, (128, 78, 36)
    draw.rectangle((x - 0.19 * size, seat - 0.36 * size, x - 0.14 * size, ground), fill=wood)
    draw.rectangle((x - 0.19 * size, seat, x + 0.17 * size, seat + 0.05 * size), fill=wood)
    draw.rectangle((x + 0.12 * size, seat, x + 0.17 * size, ground), fill=wood)


def draw_object(draw: ImageDraw, scene: Scene, t: float, body: Body) -> None:
    """Draw the object that the main person of a scene holds or plays with."""
    beat = _compute_beat(scene, t)
    if scene.action == "clap":
        _draw_clap(draw, body)
    match scene.interaction:
        case "drink":
            _draw_cup(draw, body)
        case "read":
            _draw_book(draw, body)
        case "kick":
            _draw_ball(draw, body, beat)
        case "umbrella":
            _draw_umbrella(draw, body)
        case "phone":
            _draw_box(draw, body, (-0.035, -0.085, 0.035, 0.07), (15, 15, 18), (120, 220, 255))
        case "guitar":
            _draw_guitar(draw, body, SKIN[scene.identity.skin])
        case "box":
            _draw_parcel(draw, body)


def _draw_box(
    draw: ImageDraw,
    body: Body,
    edges: tuple[float, float, float, float],
    color: Color,
    outline: Color | None = None,
) -> None:
    """Draw a box with edges (x0, y0, x1, y1) in body heights from the right hand."""
    (x, y), size = body.right, body.size
    x0, y0, x1, y1 = edges
    corners = (x + x0 * size, y + y0 * size, x + x1 * size, y + y1 * size)
    draw.rectangle(corners, fill=color, outline=outline, width=max(1, round(0.012 * size)))


def _draw_clap(draw: ImageDraw, body: Body) -> None:
    """Draw rays above hands that meet, so that a single frame shows the clap."""
    (x, y), size = body.right, body.size
    if x - body.left[0] < 0.16 * size:
        for dx in (-0.1, -0.035, 0.035, 0.1):
            ray = (x + dx * size, y - 0.08 * size, x + 1.7 * dx * size, y - 0.15 * size)
            draw.line(ray, fill=(255, 250, 120), width=5)


def _draw_cup(draw: ImageDraw, body: Body) -> None:
    (x, y), size = body.right, body.size
    handle = (x + 0.03 * size, y - 0.05 * size, x + 0.12 * size, y + 0.04 * size)
    draw.ellipse(handle, outline=(20, 150, 220), width=5)
    _draw_box(draw, body, (-0.06, -0.08, 0.06, 0.07), (40, 190, 250), (10, 80, 140))


def _draw_book(draw: ImageDraw, body: Body) -> None:
    y, size = body.right[1], body.size
    middle = (body.left[0] + body.right[0]) / 2
    for side in (-0.17, 0.17):
        edge = middle + side * size
        page = [
            (middle, y - 0.07 * size),
            (edge, y - 0.11 * size),
            (edge, y + 0.08 * size),
            (middle, y + 0.12 * size),
        ]
        draw.polygon(page, fill=(252, 250, 235), outline=(150, 30, 30), width=4)


def _draw_ball(draw: ImageDraw, body: Body, beat: float) -> None:
    size = body.size
    kick = max(0.0, math.sin(beat))
    away = 0.2 * kick + (0.12 * (1 - kick))
    x = body.hip[0] + (0.2 + away) * size
    y = body.left_foot[1] - (0.08 + 0.22 * kick) * size
    r = 0.085 * size
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 250, 250), outline=(20, 20, 20), width=4)
    draw.regular_polygon((x, y, r * 0.5), 5, rotation=round(60 * beat) % 360, fill=(20, 20, 20))


def _draw_umbrella(draw: ImageDraw, body: Body) -> None:
    (x, y), size = body.right, body.size
    top = body.head[1] - 0.22 * size
    draw.line((x, y, x, top), fill=(60, 40, 30), width=6)
    roof = (x - 0.42 * size, top - 0.06 * size, x + 0.24 * size, top + 0.34 * size)
    draw.pieslice(roof, 180, 360, fill=(230, 40, 120), outline=(130, 10, 60), width=4)


def _draw_guitar(draw: ImageDraw, body: Body, skin: Color) -> None:
    size = body.size
    x, y = body.neck[0] + 0.06 * size, body.neck[1] + 0.24 * size
    draw.line((x, y, *body.left), fill=(90, 50, 20), width=round(0.04 * size))
    for dx, dy, radius in ((0.08, 0.03, 0.12), (-0.02, -0.02, 0.085)):
        _draw_circle(draw, x + dx * size, y + dy * size, radius * size, (206, 112, 30))
    draw.ellipse((x - 0.02 * size, y - 0.02 * size, x + 0.07 * size, y + 0.07 * size), fill=(40, 20, 10))
    _draw_circle(draw, *body.right, 0.045 * size, skin)  # the hand, over the guitar


def _draw_parcel(draw: ImageDraw, body: Body) -> None:
    """Draw a box between both hands, with a ribbon."""
    middle = ((body.left[0] + body.right[0]) / 2 - body.right[0]) / body.size
    _draw_box(draw, body, (middle - 0.15, -0.12, middle + 0.15, 0.12), (190, 140, 80), (110, 70, 30))
    _draw_box(draw, body, (middle - 0.03, -0.12, middle + 0.03, 0.12), (230, 210, 150))
