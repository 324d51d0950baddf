"""Sound of the built-in corpus: voices made of a source and formants, and everyday sounds, from a scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32

from omnihuman.data.sample.lexicon import VOWELS, spell
from omnihuman.data.sample.sounds import event
from omnihuman.data.sample.world import RATES, Identity, Scene

SAMPLE_RATE = 16000
WINDOW, HOP = 512, 128
LEAD = 0.2  # seconds of quiet before the first word

#: consonant -> (formants, loudness of the voice, loudness of the hiss, (centre, width) of the hiss in Hz)
CONSONANTS: dict[str, tuple[tuple[int, int, int], float, float, tuple[int, int]]] = {
    "w": ((300, 650, 2200), 0.6, 0.0, (1000, 500)), "y": ((280, 2250, 3000), 0.6, 0.0, (1000, 500)),
    "l": ((360, 1100, 2700), 0.6, 0.0, (1000, 500)), "r": ((330, 1100, 1600), 0.6, 0.0, (1000, 500)),
    "m": ((260, 950, 2100), 0.45, 0.0, (1000, 500)), "n": ((260, 1500, 2500), 0.45, 0.0, (1000, 500)),
    "s": ((300, 1700, 2600), 0.0, 0.6, (6000, 1500)), "f": ((300, 1100, 2300), 0.0, 0.35, (4000, 3500)),
    "h": ((500, 1500, 2500), 0.0, 0.3, (1500, 1500)), "z": ((300, 1400, 2500), 0.35, 0.25, (5000, 2500)),
    "t": ((300, 1800, 2700), 0.0, 0.9, (4500, 1500)), "k": ((300, 1600, 2200), 0.0, 0.9, (2200, 800)),
    "d": ((300, 1800, 2700), 0.3, 0.5, (3800, 1500)), "g": ((300, 1600, 2200), 0.3, 0.5, (1900, 800)),
    "b": ((300, 900, 2300), 0.3, 0.5, (700, 500)),
}  # fmt: skip
STOPS = "tkdgb"


@dataclass(frozen=True, slots=True)
class Prosody:
    """How an emotion sounds, beside its speed (``world.RATES``)."""

    pitch: float = 1.0  # level, times the speaker's own
    swing: float = 0.05  # of the pitch within each word
    glide: float = 0.0  # of the pitch over the utterance, in octaves
    energy: float = 0.5
    breath: float = 0.04
    tilt: float = 0.0  # bright (+) or dark (-), dB per octave
    rough: float = 0.0  # harshness: a fast beat in loudness
    rough_hz: float = 65.0
    tremor: float = 0.0  # of pitch and loudness, 8 times a second


PROSODY: dict[str, Prosody] = {
    "neutral": Prosody(),
    "happy": Prosody(pitch=1.4, swing=0.3, energy=0.8, tilt=1.5),
    "sad": Prosody(pitch=0.85, swing=0.02, glide=-0.45, energy=0.25, breath=0.25, tilt=-5.0),
    "angry": Prosody(pitch=1.15, swing=-0.12, glide=-0.2, energy=1.0, tilt=5.0, rough=0.75),
    "surprise": Prosody(pitch=1.3, swing=0.1, glide=1.0, energy=0.7, breath=0.08),
    "disgust": Prosody(pitch=0.72, swing=-0.25, energy=0.5, breath=0.03, tilt=-1.0, rough=0.95, rough_hz=24.0),
    "fear": Prosody(pitch=1.65, swing=0.03, energy=0.4, breath=0.3, tilt=0.5, tremor=0.22),
}


@lru_cache(maxsize=256)
def timeline(scene: Scene) -> tuple[tuple[float, float, str, int], ...]:
    """A scene; (start, end, word, speaker) of every spoken word, in seconds; speaker 1 is the partner."""
    return tuple(
        (min(start for start, _, _ in spans), max(end for _, end, _ in spans), word, speaker)
        for speaker, (words, sounds) in enumerate(_utterances(scene))
        for index, word in enumerate(words)
        if (spans := [(start, end, sound) for i, sound, start, end in sounds if i == index and sound])
    )


def _utterances(scene: Scene) -> list[tuple[tuple[str, ...], list[tuple[int, str, float, float]]]]:
    """A scene; for each speaker the words and (word index, sound, start, end), fitted into the clip."""
    turns = [words for words in (scene.words, scene.partner_words) if words]
    rate, pause = RATES[scene.voice_emotion], 0.15
    natural = sum(length for words in turns for _, _, length in spell(words)) / rate
    natural += pause * max(len(turns) - 1, 0)
    squeeze = min(1.0, (scene.duration - LEAD - 0.1) / max(natural, 1e-6))
    result, now = [], LEAD
    for words in turns:
        sounds = []
        for index, sound, length in spell(words):
            end = now + length / rate * squeeze
            sounds.append((index, sound, now, end))
            now = end
        result.append((words, sounds))
        now += pause * squeeze
    return result


def waveform(scene: Scene) -> Float32[np.ndarray, " S"]:
    """A scene with sound; its mono sound at 16 kHz, float32 [samples] within -1 and 1.

    >>> from omnihuman.data.sample.world import scenes
    >>> waveform(scenes(0)[0]).shape[0] / SAMPLE_RATE == scenes(0)[0].duration
    True
    """
    samples = round(scene.duration * SAMPLE_RATE)
    rng = np.random.default_rng((scene.seed, 7))
    wave = 0.002 * rng.standard_normal(samples)
    speakers = (scene.identity, scene.partner or scene.identity)
    for speaker, (_, sounds) in enumerate(_utterances(scene)):
        emotion = scene.voice_emotion if speaker == 0 else "neutral"
        wave += _speak(sounds, samples, speakers[speaker], PROSODY[emotion], rng)
    if scene.sound is not None:
        wave += event(scene.sound, samples, rng)
    return np.clip(wave, -0.99, 0.99).astype(np.float32)


def _speak(
    sounds: list[tuple[int, str, float, float]], samples: int, person: Identity, how: Prosody, rng: np.random.Generator
) -> Float[np.ndarray, " S"]:
    """Timed sounds, a length, a speaker and a prosody; the voice alone, [samples]."""
    formants, voiced, hiss, places = _tracks(sounds, samples // HOP + 1)
    time = np.arange(samples) / SAMPLE_RATE
    start, end = sounds[0][2], sounds[-1][3]
    progress = np.clip((time - start) / (end - start), 0, 1)
    words = np.array([[min(a for j, s, a, _ in sounds if j == i and s), max(b for j, s, _, b in sounds if j == i and s)]
                      for i in range(sounds[-1][0] + 1)])  # fmt: skip
    word = np.clip(np.searchsorted(words[:, 0], time, side="right") - 1, 0, None)
    within = np.clip((time - words[word, 0]) / (words[word, 1] - words[word, 0]), 0, 1)
    shake = how.tremor * np.sin(2 * np.pi * 8 * time)
    contour = (
        how.pitch * 2 ** (how.glide * (progress - 0.3) + 1.5 * how.swing * np.sin(np.pi * within)) * (1 + 0.6 * shake)
    )
    pitch = person.pitch * contour * (1 + 0.01 * np.cumsum(rng.standard_normal(samples)) / np.sqrt(samples))
    phase = np.cumsum(pitch) / SAMPLE_RATE
    buzz = 2 * (phase % 1) - 1
    buzz *= 1 - how.rough * (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * how.rough_hz * time)))
    noise = rng.standard_normal(samples)
    frequency = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    mouth = _resonance(frequency, formants * person.timbre)
    mouth = mouth * 10 ** (how.tilt * np.log2(np.maximum(frequency, 100) / 500) / 20)
    narrow = np.exp(-0.5 * ((frequency - places[:, :1]) / places[:, 1:]) ** 2)
    level = voiced * (1 + 1.8 * np.interp(np.arange(len(voiced)) * HOP, np.arange(samples), shake))
    wave = _filtered(buzz, mouth * level[:, None])
    wave /= max(float(np.abs(wave).max()), 1e-6)  # hiss and breath stay as loud beside the voice, dark or bright
    breath = mouth / mouth.max() * (how.breath * voiced)[:, None]
    wave += _filtered(noise, 0.8 * breath + 0.12 * narrow * hiss[:, None])
    return np.asarray(0.55 * how.energy * wave)


def _tracks(
    sounds: list[tuple[int, str, float, float]], count: int
) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, " F"], Float[np.ndarray, " F"], Float[np.ndarray, "F 2"]]:
    """Timed sounds and a number of hops; formants [F 3], loudness of voice and hiss [F], place of the hiss [F 2]."""
    now = np.arange(count) * HOP / SAMPLE_RATE
    formants = np.tile(np.array([500.0, 1500.0, 2500.0]), (count, 1))
    voiced, hiss, places = np.zeros(count), np.zeros(count), np.tile(np.array([3000.0, 2000.0]), (count, 1))
    for _, sound, start, end in sounds:
        inside = (now >= start) & (now < end)
        if not sound or not inside.any():
            continue
        part = ((now[inside] - start) / (end - start))[:, None]
        if sound in VOWELS:
            first, last = (np.array(side, dtype=float) for side in VOWELS[sound])
            formants[inside] = first + (last - first) * np.clip(1.6 * part - 0.3, 0, 1)
            voiced[inside] = 1.0
            continue
        target, voice, loud, place = CONSONANTS[sound]
        formants[inside], places[inside], voiced[inside], hiss[inside] = target, place, voice, loud
        if sound in STOPS:  # silence, then a burst
            hiss[inside] *= part[:, 0] > 0.5
    soft = np.array([1.0, 2.0, 1.0]) / 4
    for column in range(3):
        formants[1:-1, column] = np.convolve(formants[:, column], soft, "valid")
    return formants, np.convolve(voiced, soft, "same"), hiss, places


def _resonance(frequency: Float[np.ndarray, " N"], formants: Float[np.ndarray, "F 3"]) -> Float[np.ndarray, "F N"]:
    """Frequencies [N] and formants [F 3]; how strongly a mouth so shaped lets each through, [F N]."""
    peaks = formants[:, :, None]
    width = 60 + 0.05 * peaks
    strength = np.array([1.0, 0.6, 0.3])[None, :, None]
    return np.asarray((strength / (1 + ((frequency - peaks) / width) ** 2)).sum(axis=1) + 0.01)


def _filtered(source: Float[np.ndarray, " S"], response: Float[np.ndarray, "F N"]) -> Float[np.ndarray, " S"]:
    """A source [samples] and a response for every hop [F N]; the source through that slowly changing filter."""
    count = len(response)
    window = np.hanning(WINDOW + 1)[:-1]
    padded = np.pad(source, (WINDOW // 2, WINDOW))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:count] * window
    blocks = np.fft.irfft(np.fft.rfft(blocks) * response, n=WINDOW) * window
    out = np.zeros(count * HOP + WINDOW)
    for shift in range(WINDOW // HOP):  # every fourth block touches no other: add them in four passes
        part = blocks[shift :: WINDOW // HOP].reshape(-1)
        out[shift * HOP : shift * HOP + len(part)] += part
    return out[WINDOW // 2 : WINDOW // 2 + len(source)] / 1.5
