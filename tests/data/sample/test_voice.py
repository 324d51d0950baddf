"""Voices: the told length, the same for one scene, words on time, and prosody that can be measured."""

from dataclasses import replace

import numpy as np
import pytest

from omnihuman.data.sample.voice import PROSODY, SAMPLE_RATE, timeline, waveform
from omnihuman.data.sample.world import EMOTIONS, Scene, scenes

HEARD = [scene for scene in scenes(0) if scene.has_audio]


@pytest.mark.parametrize("scene", HEARD[::150], ids=lambda scene: scene.id)
def test_waveforms_have_the_told_length_and_never_differ(scene: Scene) -> None:
    samples = waveform(scene)
    assert samples.shape == (round(scene.duration * SAMPLE_RATE),) and samples.dtype == np.float32
    assert 0.05 < np.abs(samples).max() < 1 and (samples == waveform(scene)).all()


def test_words_follow_each_other_inside_the_clip() -> None:
    for scene in HEARD:
        spoken = timeline(scene)
        assert tuple(word for _, _, word, who in spoken if who == 0) == scene.words
        assert tuple(word for _, _, word, who in spoken if who == 1) == scene.partner_words
        edges = [0.0, *(edge for start, end, _, _ in spoken for edge in (start, end)), scene.duration]
        assert edges == sorted(edges)


def test_speech_is_where_the_words_are() -> None:
    scene = next(s for s in HEARD if s.kind == "speech" and s.emotion == "neutral")
    samples, spoken = waveform(scene), timeline(scene)
    loud = np.abs(samples[int(spoken[0][0] * SAMPLE_RATE) : int(spoken[-1][1] * SAMPLE_RATE)]).mean()
    assert loud > 8 * np.abs(samples[: int(0.15 * SAMPLE_RATE)]).mean()


def _as(emotion: str) -> Scene:
    scene = next(s for s in HEARD if s.kind == "speech" and s.emotion == "neutral")
    return replace(scene, emotion=emotion, shown_by="voice", duration=4.0)


def test_every_emotion_has_its_own_sound() -> None:
    assert set(PROSODY) == set(EMOTIONS)
    loudness = {emotion: float(np.abs(waveform(_as(emotion))).max()) for emotion in EMOTIONS}
    assert loudness["angry"] > loudness["neutral"] > loudness["sad"]
    lengths = {emotion: timeline(_as(emotion))[-1][1] for emotion in EMOTIONS}
    assert lengths["sad"] > lengths["neutral"] > lengths["fear"]


def test_a_neutral_voice_where_only_the_face_tells() -> None:
    scene = _as("angry")
    calm = waveform(replace(scene, shown_by="face"))
    assert (calm == waveform(replace(scene, emotion="neutral", shown_by="none"))).all()
    assert (calm != waveform(scene)).any()
