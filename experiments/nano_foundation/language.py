"""Text of the built-in corpus for the foundation's text models, about training people only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from people import replace_people

from omnihuman.corpus.closeup import build_closeups
from omnihuman.corpus.conversation import build_conversations
from omnihuman.corpus.description import caption_frame, describe_scene
from omnihuman.corpus.phrases import describe_hair
from omnihuman.corpus.world import Scene, build_scenes, sample_scene

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
DELIMITERS = ("<vi_start>", "<vi_end>", "<au_start>", "<au_end>", "<im_start>", "<im_end>")
PLACEHOLDERS = ("<video>", "<audio>", "<image>")


class Sample(NamedTuple):
    """A record with its scene, and descriptions of the scene's video and audio."""

    scene: Scene
    record: dict[str, Any]
    descriptions: dict[str, str]


def iterate_samples(rng: np.random.Generator, split: str = "train") -> Iterator[Sample]:
    """Yield samples without end in training, otherwise those of the split's clips.

    Descriptions for detailed questions include the skin; in training, half of the others do.
    """
    for scene in _iterate_scenes(rng, split):
        for record in build_conversations(scene, rng):
            fine = split == "train" and rng.random() < 0.5
            yield Sample(scene, record, describe_scene(scene, rng, fine=fine))
        for record in build_closeups(scene, rng):
            # a feature that is missing in the description of one shot would look like a difference
            drop = 0.0 if scene.shots else 0.05
            yield Sample(scene, record, describe_scene(scene, rng, drop=drop, fine=True))


def _iterate_scenes(rng: np.random.Generator, split: str, shots_share: float = 0.4) -> Iterator[Scene]:
    if split != "train":
        yield from (scene for scene in build_scenes(0) if scene.split == split)
        return
    while True:
        if rng.random() < shots_share:
            # the pairs of 48 people are soon memorized
            yield replace_people(sample_scene(rng, kind="shots"), rng, num_candidates=12)
        else:
            yield sample_scene(rng)


def remove_placeholders(text: str) -> str:
    """Return a question without its placeholders."""
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, "")
    return text.strip()


def describe_differences(scene: Scene) -> str:
    """Name the features in which the people of two shots differ, clothes excepted."""
    one, two = (shot.identity for shot in scene.shots)
    features = {
        "hat": (one.hat, two.hat),
        "hair": (describe_hair(one), describe_hair(two)),
        "skin": (one.skin, two.skin),
        "glasses": (one.glasses, two.glasses),
        "beard": (one.beard, two.beard),
    }
    return ", ".join(name for name, (first, second) in features.items() if first != second) or "nothing"


def iterate_texts(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Yield every question, answer, description and caption of ``count`` scenes."""
    for _ in range(count):
        scene = sample_scene(rng)
        for record in build_conversations(scene, rng):
            for turn in record["conversations"]:
                yield remove_placeholders(turn["value"])
        for text in describe_scene(scene, rng).values():
            if text:
                yield text
        if scene.has_video:
            yield caption_frame(scene, 1.0, rng)
