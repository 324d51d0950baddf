"""Audio of the built-in corpus: source-filter speech synthesis, mixed with sound events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from omnihuman.corpus.lexicon import VOWELS, spell_words
from omnihuman.corpus.sounds import synthesize_event
from omnihuman.corpus.world import SPEECH_RATES, Identity, Scene

SAMPLE_RATE = 16000
WINDOW, HOP = 512, 128
LEAD_SECONDS = 0.2  # silence before the first word
PAUSE_SECONDS = 0.15  # between two speakers

#: consonant -> (formants in Hz, level of the voice, level of the hiss, (centre, width) of the hiss in Hz)
CONSONANTS: dict[str, tuple[tuple[int, int, int], float, float, tuple[int, int]]] = {
    "w": ((300, 650, 2200), 0.6, 0.0, (1000, 500)),
    "y": ((280, 2250, 3000), 0.6, 0.0, (1000, 500)),
    "l": ((360, 1100, 2700), 0.6, 0.0, (1000, 500)),
    "r": ((330, 1100, 1600), 0.6, 0.0, (1000, 500)),
    "m": ((260, 950, 2100), 0.45, 0.0, (1000, 500)),
    "n": ((260, 1500, 2500), 0.45, 0.0, (1000, 500)),
    "s": ((300, 1700, 2600), 0.0, 0.6, (6000, 1500)),
    "f": ((300, 1100, 2300), 0.0, 0.35, (4000, 3500)),
    "h": ((500, 1500, 2500), 0.0, 0.3, (1500, 1500)),
    "z": ((300, 1400, 2500), 0.35, 0.25, (5000, 2500)),
    "t": ((300, 1800, 2700), 0.0, 0.9, (4500, 1500)),
    "k": ((300, 1600, 2200), 0.0, 0.9, (2200, 800)),
    "d": ((300, 1800, 2700), 0.3, 0.5, (3800, 1500)),
    "g": ((300, 1600, 2200), 0.3, 0.5, (1900, 800)),
    "b": ((300, 900, 2300), 0.3, 0.5, (700, 500)),
}
STOPS = "tkdgb"


@dataclass(frozen=True, slots=True)
class Prosody:
    """Prosody of an emotion; its speed is in ``world.SPEECH_RATES``."""

    pitch: float = 1.0  # factor on the speaker's pitch
    swing: float = 0.05  # rise of the pitch within a word, in units of 1.5 octaves
    glide: float = 0.0  # rise of the pitch over the utterance, in octaves
    energy: float = 0.5
    breath: float = 0.04
    tilt: float = 0.0  # spectral tilt in dB per octave: bright (+) or dark (-)
    roughness: float = 0.0  # depth of a fast amplitude modulation, heard as harshness
    roughness_hz: float = 65.0
    tremor: float = 0.0  # depth of a modulation of pitch and amplitude at 8 Hz


PROSODY: dict[str, Prosody] = {
    "neutral": Prosody(),
    "happy": Prosody(pitch=1.4, swing=0.3, energy=0.8, tilt=1.5),
    "sad": Prosody(pitch=0.85, swing=0.02, glide=-0.45, energy=0.25, breath=0.25, tilt=-5.0),
    "angry": Prosody(pitch=1.15, swing=-0.12, glide=-0.2, energy=1.0, tilt=5.0, roughness=0.75),
    "surprise": Prosody(pitch=1.3, swing=0.1, glide=1.0, energy=0.7, breath=0.08),
    "disgust": Prosody(pitch=0.72, swing=-0.25, energy=0.5, breath=0.03, tilt=-1.0, roughness=0.95, roughness_hz=24.0),
    "fear": Prosody(pitch=1.65, swing=0.03, energy=0.4, breath=0.3, tilt=0.5, tremor=0.22),
}


class TimedPhoneme(NamedTuple):
    """A phoneme in a clip: the index of its word, its name (``""`` for a pause), start and end in seconds."""

    word: int
    name: str
    start: float
    end: float


class WordSpan(NamedTuple):
    """A spoken word with start and end in seconds; speaker 0 is the main person, 1 the partner."""

    start: float
    end: float
    word: str
    speaker: int


class _Tracks(NamedTuple):
    """Control signals of a voice, one value per hop."""

    formants: Float[np.ndarray, "F 3"]
    voice: Float[np.ndarray, " F"]
    hiss: Float[np.ndarray, " F"]
    hiss_bands: Float[np.ndarray, "F 2"]


@lru_cache(maxsize=256)
def align_words(scene: Scene) -> tuple[WordSpan, ...]:
    """Return the time span of every spoken word of a scene."""
    spans: list[WordSpan] = []
    utterances = zip(_list_utterances(scene), _align_phonemes(scene), strict=True)
    for speaker, (words, phonemes) in enumerate(utterances):
        for word, (start, end) in zip(words, _word_edges(phonemes), strict=True):
            spans.append(WordSpan(start, end, word, speaker))
    return tuple(spans)


def _list_utterances(scene: Scene) -> list[tuple[str, ...]]:
    """List the words of each speaker, silent speakers left out."""
    return [words for words in (scene.transcript, scene.partner_transcript) if words]


def _align_phonemes(scene: Scene) -> list[list[TimedPhoneme]]:
    """Return the timed phonemes of each speaker; speech that is too long for the clip is sped up."""
    utterances = [spell_words(words) for words in _list_utterances(scene)]
    rate = SPEECH_RATES[scene.voice_emotion]
    length = sum(phoneme.seconds for phoneme in chain(*utterances)) / rate
    length += PAUSE_SECONDS * max(len(utterances) - 1, 0)
    scale = min(1.0, (scene.duration - LEAD_SECONDS - 0.1) / max(length, 1e-6))
    aligned: list[list[TimedPhoneme]] = []
    time = LEAD_SECONDS
    for utterance in utterances:
        phonemes: list[TimedPhoneme] = []
        for phoneme in utterance:
            end = time + phoneme.seconds / rate * scale
            phonemes.append(TimedPhoneme(phoneme.word, phoneme.name, time, end))
            time = end
        aligned.append(phonemes)
        time += PAUSE_SECONDS * scale
    return aligned


def _word_edges(phonemes: list[TimedPhoneme]) -> list[tuple[float, float]]:
    """Return start and end of every word, without the pauses around it."""
    edges: dict[int, tuple[float, float]] = {}
    for phoneme in phonemes:
        if phoneme.name:
            start, _ = edges.get(phoneme.word, (phoneme.start, phoneme.end))
            edges[phoneme.word] = (start, phoneme.end)
    return list(edges.values())


def synthesize_waveform(scene: Scene) -> Float32[np.ndarray, " S"]:
    """Synthesize the audio of a scene: mono, 16 kHz, float32 `[samples]` within -1 and 1.

    >>> from omnihuman.corpus.world import build_scenes
    >>> synthesize_waveform(build_scenes(0)[0]).shape[0] / SAMPLE_RATE == build_scenes(0)[0].duration
    True
    """
    num_samples = round(scene.duration * SAMPLE_RATE)
    rng = np.random.default_rng((scene.seed, 7))
    wave = 0.002 * rng.standard_normal(num_samples)
    speakers = (scene.identity, scene.partner or scene.identity)
    for speaker, phonemes in enumerate(_align_phonemes(scene)):
        emotion = scene.voice_emotion if speaker == 0 else "neutral"
        wave += _synthesize_voice(phonemes, num_samples, speakers[speaker], PROSODY[emotion], rng)
    if scene.sound is not None:
        wave += synthesize_event(scene.sound, num_samples, rng)
    return np.clip(wave, -0.99, 0.99).astype(np.float32)


def _synthesize_voice(
    phonemes: list[TimedPhoneme], num_samples: int, person: Identity, prosody: Prosody, rng: np.random.Generator
) -> Float[np.ndarray, " S"]:
    """Synthesize one speaker, `[samples]`: a buzz and a noise, each shaped by the formants of the phonemes."""
    tracks = _build_tracks(phonemes, num_samples // HOP + 1)
    time = np.arange(num_samples) / SAMPLE_RATE
    tremor = prosody.tremor * np.sin(2 * np.pi * 8 * time)
    contour = _pitch_contour(phonemes, time, prosody) * (1 + 0.6 * tremor)
    jitter = 0.01 * np.cumsum(rng.standard_normal(num_samples)) / np.sqrt(num_samples)
    pitch = person.pitch * contour * (1 + jitter)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    buzz = 2 * (phase % 1) - 1
    buzz *= 1 - prosody.roughness * (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * prosody.roughness_hz * time)))
    noise = rng.standard_normal(num_samples)

    frequency = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    mouth = _compute_resonance(frequency, tracks.formants * person.timbre)
    mouth = mouth * 10 ** (prosody.tilt * np.log2(np.maximum(frequency, 100) / 500) / 20)
    hiss = np.exp(-0.5 * ((frequency - tracks.hiss_bands[:, :1]) / tracks.hiss_bands[:, 1:]) ** 2)
    hops = np.arange(len(tracks.voice)) * HOP
    level = tracks.voice * (1 + 1.8 * np.interp(hops, np.arange(num_samples), tremor))
    wave = _filter_frames(buzz, mouth * level[:, None])
    # normalize the voice before hiss and breath are added: tilt must not change their relative level
    wave /= max(float(np.abs(wave).max()), 1e-6)
    breath = mouth / mouth.max() * (prosody.breath * tracks.voice)[:, None]
    wave += _filter_frames(noise, 0.8 * breath + 0.12 * hiss * tracks.hiss[:, None])
    return np.asarray(0.55 * prosody.energy * wave)


def _pitch_contour(
    phonemes: list[TimedPhoneme], time: Float[np.ndarray, " S"], prosody: Prosody
) -> Float[np.ndarray, " S"]:
    """Return the pitch relative to the speaker's, `[samples]`: a glide over the utterance, an arc over each word."""
    start, end = phonemes[0].start, phonemes[-1].end
    progress = np.clip((time - start) / (end - start), 0, 1)
    edges = np.array(_word_edges(phonemes))
    word = np.clip(np.searchsorted(edges[:, 0], time, side="right") - 1, 0, None)
    within = np.clip((time - edges[word, 0]) / (edges[word, 1] - edges[word, 0]), 0, 1)
    octaves = prosody.glide * (progress - 0.3) + 1.5 * prosody.swing * np.sin(np.pi * within)
    return np.asarray(prosody.pitch * 2**octaves)


def _build_tracks(phonemes: list[TimedPhoneme], num_hops: int) -> _Tracks:
    """Build the control signals of a voice from its timed phonemes."""
    time = np.arange(num_hops) * HOP / SAMPLE_RATE
    formants = np.tile(np.array([500.0, 1500.0, 2500.0]), (num_hops, 1))
    voice = np.zeros(num_hops)
    hiss = np.zeros(num_hops)
    hiss_bands = np.tile(np.array([3000.0, 2000.0]), (num_hops, 1))
    for phoneme in phonemes:
        inside = (time >= phoneme.start) & (time < phoneme.end)
        if not phoneme.name or not inside.any():
            continue
        progress = ((time[inside] - phoneme.start) / (phoneme.end - phoneme.start))[:, None]
        if phoneme.name in VOWELS:
            first, last = np.array(VOWELS[phoneme.name], dtype=float)
            formants[inside] = first + (last - first) * np.clip(1.6 * progress - 0.3, 0, 1)
            voice[inside] = 1.0
            continue
        formants[inside], voice[inside], hiss[inside], hiss_bands[inside] = CONSONANTS[phoneme.name]
        if phoneme.name in STOPS:  # silence, then a burst
            hiss[inside] *= progress[:, 0] > 0.5
    kernel = np.array([1.0, 2.0, 1.0]) / 4
    for column in range(3):
        formants[1:-1, column] = np.convolve(formants[:, column], kernel, "valid")
    return _Tracks(formants, np.convolve(voice, kernel, "same"), hiss, hiss_bands)


def _compute_resonance(
    frequency: Float[np.ndarray, " N"], formants: Float[np.ndarray, "F 3"]
) -> Float[np.ndarray, "F N"]:
    """Return the gain of the vocal tract at every frequency, `[F N]`."""
    peaks = formants[:, :, None]
    width = 60 + 0.05 * peaks
    strength = np.array([1.0, 0.6, 0.3])[None, :, None]
    return np.asarray((strength / (1 + ((frequency - peaks) / width) ** 2)).sum(axis=1) + 0.01)


def _filter_frames(source: Float[np.ndarray, " S"], response: Float[np.ndarray, "F N"]) -> Float[np.ndarray, " S"]:
    """Filter a source `[samples]` with one frequency response per hop, by overlap-add."""
    count = len(response)
    window = np.hanning(WINDOW + 1)[:-1]
    padded = np.pad(source, (WINDOW // 2, WINDOW))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:count] * window
    blocks = np.fft.irfft(np.fft.rfft(blocks) * response, n=WINDOW) * window
    out = np.zeros(count * HOP + WINDOW)
    for shift in range(WINDOW // HOP):  # every fourth block touches no other, so four passes add them all
        part = blocks[shift :: WINDOW // HOP].reshape(-1)
        out[shift * HOP : shift * HOP + len(part)] += part
    return out[WINDOW // 2 : WINDOW // 2 + len(source)] / 1.5
