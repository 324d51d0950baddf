"""Expressions as numbers: all seven differ, and blending ends where it should."""

from itertools import combinations, pairwise

from omnihuman.data.sample.face import EXPRESSIONS, blend, motion, smooth
from omnihuman.data.sample.world import EMOTIONS


def test_expressions_are_those_of_the_seven_emotions_and_far_apart() -> None:
    assert set(EXPRESSIONS) == set(EMOTIONS)
    for one, other in combinations(EXPRESSIONS.values(), 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 3


def test_blend_ends_at_both_expressions() -> None:
    start, end = EXPRESSIONS["neutral"], EXPRESSIONS["fear"]
    assert blend(start, end, 0.0) == start
    assert all(abs(a - b) < 1e-9 for a, b in zip(blend(start, end, 1.0), end, strict=True))
    assert (smooth(-1.0), smooth(0.5), smooth(2.0)) == (0.0, 0.5, 1.0)


def test_a_head_at_rest_moves_less_than_one_in_fear() -> None:
    def way(emotion: str) -> float:
        places = [motion(emotion, 1.0, t / 10, 0.0)[0] for t in range(10)]
        return sum(abs(b - a) for a, b in pairwise(places))

    assert way("fear") > 10 * way("neutral")
