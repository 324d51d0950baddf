"""Voices: length, determinism, word alignment, and a prosody that can be measured."""

from dataclasses import replace

import numpy as np
import pytest

from omnihuman.corpus.voice import PROSODY, SAMPLE_RATE, align_words, synthesize_waveform
from omnihuman.corpus.world import EMOTIONS, Scene, build_scenes

AUDIBLE = [scene for scene in build_scenes(0) if scene.has_audio]


@pytest.mark.parametrize("scene", AUDIBLE[::150], ids=lambda scene: scene.id)
def test_waveforms_have_the_length_of_the_scene_and_repeat(scene: Scene) -> None:
    samples = synthesize_waveform(scene)
    assert samples.shape == (round(scene.duration * SAMPLE_RATE),) and samples.dtype == np.float32
    assert 0.05 < np.abs(samples).max() < 1 and (samples == synthesize_waveform(scene)).all()


def test_words_follow_each_other_inside_the_clip() -> None:
    for scene in AUDIBLE:
        spans = align_words(scene)
        assert tuple(span.word for span in spans if span.speaker == 0) == scene.transcript
        assert tuple(span.word for span in spans if span.speaker == 1) == scene.partner_transcript
        edges = [0.0]
        for span in spans:
            edges += [span.start, span.end]
        edges.append(scene.duration)
        assert edges == sorted(edges)


def test_speech_is_loud_at_the_words_and_quiet_before() -> None:
    scene = next(s for s in AUDIBLE if s.kind == "speech" and s.emotion == "neutral")
    samples, spans = synthesize_waveform(scene), align_words(scene)
    speech = samples[int(spans[0].start * SAMPLE_RATE) : int(spans[-1].end * SAMPLE_RATE)]
    assert np.abs(speech).mean() > 8 * np.abs(samples[: int(0.15 * SAMPLE_RATE)]).mean()


def _with_voice(emotion: str) -> Scene:
    scene = next(s for s in AUDIBLE if s.kind == "speech" and s.emotion == "neutral")
    return replace(scene, emotion=emotion, shown_by="voice", duration=4.0)


def test_emotions_differ_in_loudness_and_speed() -> None:
    assert set(PROSODY) == set(EMOTIONS)
    loudness = {emotion: float(np.abs(synthesize_waveform(_with_voice(emotion))).max()) for emotion in EMOTIONS}
    assert loudness["angry"] > loudness["neutral"] > loudness["sad"]
    lengths = {emotion: align_words(_with_voice(emotion))[-1].end for emotion in EMOTIONS}
    assert lengths["sad"] > lengths["neutral"] > lengths["fear"]


def test_voice_is_neutral_if_only_the_face_shows_the_emotion() -> None:
    scene = _with_voice("angry")
    calm = synthesize_waveform(replace(scene, shown_by="face"))
    assert (calm == synthesize_waveform(replace(scene, emotion="neutral", shown_by="none"))).all()
    assert (calm != synthesize_waveform(scene)).any()
