"""Tables of phrases: every emotion, action, interaction, sound event and place has its phrase."""

import pytest

from omnihuman.corpus import phrases, world


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (phrases.EMOTION_ADJECTIVES, world.EMOTIONS),
        (phrases.EXPRESSION_PHRASES, world.EMOTIONS),
        (phrases.MOUTH_SENTENCES, world.EMOTIONS),
        (phrases.BROW_SENTENCES, world.EMOTIONS),
        (phrases.EYE_SENTENCES, world.EMOTIONS),
        (phrases.VOICE_ADJECTIVES, world.EMOTIONS),
        (phrases.ACTION_PHRASES, world.ACTIONS),
        (phrases.POSE_SENTENCES, world.ACTIONS),
        (phrases.INTERACTION_PHRASES, world.INTERACTIONS),
        (phrases.SOUND_CLAUSES, world.SOUNDS),
        (phrases.PLACE_PHRASES, world.BACKGROUNDS),
    ],
)
def test_tables_are_complete(table: dict[str, object], names: tuple[str, ...]) -> None:
    assert tuple(table) == names


def test_phrases_are_joined_as_a_list() -> None:
    assert phrases.join_phrases(["a"]) == "a"
    assert phrases.join_phrases(["a", "b", "c"]) == "a, b and c"
