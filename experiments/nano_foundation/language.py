"""Text of the built-in corpus, as the foundation's text models read it; training people only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from omnihuman.data.sample.language import conversations, notes, picture_caption
from omnihuman.data.sample.world import Scene, random_scene, scenes

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
MARKS = ("<vi_start>", "<vi_end>", "<au_start>", "<au_end>", "<im_start>", "<im_end>")


class Told(NamedTuple):
    """A record with its scene and the scene in words."""

    scene: Scene
    record: dict[str, Any]
    notes: dict[str, str]


def told(rng: np.random.Generator, split: str = "train") -> Iterator[Told]:
    """A random generator and a split; endless records, or those of the split's own clips."""
    endless = (random_scene(rng) for _ in iter(int, 1))
    for scene in endless if split == "train" else (s for s in scenes(0) if s.split == split):
        for record in conversations(scene, rng):
            yield Told(scene, record, notes(scene, rng))


def sentences(rng: np.random.Generator, count: int) -> Iterator[str]:
    """A random generator and a number of scenes; every sentence that is asked, said and noted about them."""
    for _ in range(count):
        scene = random_scene(rng)
        for record in conversations(scene, rng):
            for turn in record["conversations"]:
                yield turn["value"].replace("<video>", "").replace("<audio>", "").replace("<image>", "").strip()
        yield from (text for text in notes(scene, rng).values() if text)
        if scene.has_video:
            yield picture_caption(scene, 1.0, rng)
