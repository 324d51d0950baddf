"""Bodies: bones keep their length, and two people stand beside each other."""

import math

from omnihuman.data.sample.figure import _bend, head_places
from omnihuman.data.sample.world import scenes


def test_a_bent_limb_keeps_its_bones() -> None:
    x, y = _bend((0.0, 0.0), (3.0, 4.0), 4.0, 1.0)
    assert math.isclose(math.hypot(x, y), 4.0) and math.isclose(math.hypot(x - 3, y - 4), 4.0)


def test_people_who_interact_stand_side_by_side() -> None:
    for name in ("hug", "handshake"):
        scene = next(s for s in scenes(0) if s.interaction == name)
        (first, x0, _, radius), (second, x1, _, _) = head_places(scene, 0.5)
        assert first != second and x1 - x0 > radius
