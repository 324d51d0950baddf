"""Bodies: bones keep their length, and people who interact stand side by side."""

import math

import pytest

from omnihuman.corpus.figure import _locate_joint, locate_heads
from omnihuman.corpus.world import build_scenes


def test_bones_of_a_bent_limb_keep_their_length() -> None:
    x, y = _locate_joint((0.0, 0.0), (3.0, 4.0), 4.0, 1.0)
    assert math.isclose(math.hypot(x, y), 4.0) and math.isclose(math.hypot(x - 3, y - 4), 4.0)


@pytest.mark.parametrize("interaction", ["hug", "handshake"])
def test_people_who_interact_stand_side_by_side(interaction: str) -> None:
    scene = next(s for s in build_scenes(0) if s.interaction == interaction)
    (first, x0, _, radius), (second, x1, _, _) = locate_heads(scene, 0.5)
    assert first != second and x1 - x0 > radius
