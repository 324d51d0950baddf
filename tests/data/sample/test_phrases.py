"""The tables of words: every emotion, action, interaction, sound and place has its words."""

from omnihuman.data.sample import phrases, world


def test_tables_are_complete() -> None:
    for table in (phrases.FEELS, phrases.LOOKS, phrases.MOUTHS, phrases.BROWS, phrases.EYES, phrases.VOICES):
        assert tuple(table) == world.EMOTIONS
    for table, names in ((phrases.ACTS, world.ACTIONS), (phrases.POSES, world.ACTIONS), (phrases.HEARD, world.SOUNDS),
                         (phrases.INTERACTS, world.INTERACTIONS), (phrases.PLACES, world.BACKGROUNDS)):  # fmt: skip
        assert tuple(table) == names


def test_joined_reads_like_a_list() -> None:
    assert phrases.joined(["a"]) == "a"
    assert phrases.joined(["a", "b", "c"]) == "a, b and c"
