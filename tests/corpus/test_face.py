"""Expressions: all seven differ, and interpolation ends at both."""

from itertools import combinations, pairwise

from omnihuman.corpus.face import EXPRESSIONS, blend_expressions, compute_head_motion, smoothstep
from omnihuman.corpus.world import EMOTIONS


def test_expressions_of_the_seven_emotions_are_far_apart() -> None:
    assert set(EXPRESSIONS) == set(EMOTIONS)
    for one, other in combinations(EXPRESSIONS.values(), 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 3


def test_blend_ends_at_both_expressions() -> None:
    start, end = EXPRESSIONS["neutral"], EXPRESSIONS["fear"]
    assert blend_expressions(start, end, 0.0) == start
    assert all(abs(a - b) < 1e-9 for a, b in zip(blend_expressions(start, end, 1.0), end, strict=True))
    assert (smoothstep(-1.0), smoothstep(0.5), smoothstep(2.0)) == (0.0, 0.5, 1.0)


def test_neutral_heads_move_less_than_fearful_ones() -> None:
    def path_length(emotion: str) -> float:
        positions = [compute_head_motion(emotion, 1.0, t / 10, 0.0)[0] for t in range(10)]
        return sum(abs(b - a) for a, b in pairwise(positions))

    assert path_length("fear") > 10 * path_length("neutral")
