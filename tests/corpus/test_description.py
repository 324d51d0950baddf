"""Descriptions of scenes: complete, in known words, and the same for the same generator."""

import numpy as np

from omnihuman.corpus.description import caption_frame, describe_scene
from omnihuman.corpus.phrases import EMOTION_ADJECTIVES, PLACE_PHRASES, build_vocabulary
from omnihuman.corpus.world import build_scenes

PUNCTUATION = str.maketrans(",.;?\n", "     ")


def test_descriptions_name_emotion_and_transcript() -> None:
    rng = np.random.default_rng(0)
    for scene in build_scenes(0):
        texts = describe_scene(scene, rng)
        assert bool(texts["video"]) == scene.has_video and bool(texts["audio"]) == scene.has_audio
        if scene.kind == "talk":
            emotions = (scene.face_emotion, EMOTION_ADJECTIVES[scene.face_emotion])
            assert any(word in texts["video"] for word in emotions)
        if scene.kind == "talk" and scene.transcript:
            emotions = (scene.voice_emotion, EMOTION_ADJECTIVES[scene.voice_emotion])
            assert any(word in texts["audio"] for word in emotions)
            assert " ".join(scene.transcript) in texts["audio"]


def test_fine_descriptions_name_the_skin() -> None:
    for scene in build_scenes(0)[::20]:
        if scene.has_video and not scene.from_behind:
            text = describe_scene(scene, np.random.default_rng(0), drop=0.0, fine=True)["video"]
            assert f"{scene.identity.skin} skin" in text


def test_descriptions_cover_both_shots() -> None:
    for scene in build_scenes(0):
        if not scene.shots:
            continue
        video = describe_scene(scene, np.random.default_rng(0), drop=0.0)["video"]
        first, _, second = video.partition("second shot")
        for text, shot in zip((first, second), scene.shots, strict=True):
            assert f"{shot.identity.shirt} shirt" in text and PLACE_PHRASES[shot.background] in text


def test_descriptions_and_captions_use_known_words() -> None:
    rng = np.random.default_rng(0)
    words: set[str] = set()
    for scene in build_scenes(0):
        texts = list(describe_scene(scene, rng, fine=True).values())
        if scene.has_video:
            texts.append(caption_frame(scene, 1.0, rng))
        words |= set(" ".join(texts).lower().translate(PUNCTUATION).split())
    assert words <= build_vocabulary(), words - build_vocabulary()
