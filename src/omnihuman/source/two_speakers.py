"""Speech of two people at once: what does one of them say? Made of any speech data set whose speakers are named."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from omnihuman.corpus.write import write_wav
from omnihuman.data.media import probe, read
from omnihuman.data.record import BadSample
from omnihuman.modality import SAMPLE_RATE
from omnihuman.source.annotation import AnnotatedRecord, Annotation, AnnotationSource
from omnihuman.source.labels import FREE_TEXT, Labels
from omnihuman.source.mixing import draw_pairs, mix_speech
from omnihuman.source.root import SPLITS
from omnihuman.source.splits import assign_splits, parse_splits

FOLDER = "mixtures"
"""Folder of the audio files below that of the records."""

FRACTIONS = (0.8, 0.1, 0.1)
"""Shares of train, val and test of a data set without splits, people apart."""

GENDERS = {
    "m": "man",
    "male": "man",
    "man": "man",
    "male_masculine": "man",
    "f": "woman",
    "female": "woman",
    "woman": "woman",
    "female_feminine": "woman",
}
"""Gender as data sets write it, in lower case -> ours."""

CUES = {"gender": ("man", "woman"), "order": ("first", "second"), "level": ("louder", "quieter")}
"""Way to tell the speakers apart -> keys of their names in ``speakers``."""

MIN_DELAY = 0.5
"""Seconds between the beginnings of two utterances, of which one is then the first."""

MIN_LEVEL = 3.0
"""dB between two utterances, of which one is then the louder."""

PLACEHOLDER = "{speaker}"


@dataclass(frozen=True, slots=True)
class _Mixture:
    """Two utterances, the first of which begins, and all that is drawn for them.

    Attributes:
        utterances: of different people.
        delay: of the second, in samples.
        level: of the first above the second, in dB.
        cue: that tells the speakers apart, a key of ``CUES``.
        names: of the speakers, keys of ``speakers``.
        text: wording of a training record.
    """

    utterances: tuple[AnnotatedRecord, AnnotatedRecord]
    delay: int
    level: float
    cue: str
    names: tuple[str, str]
    text: str


class TwoSpeakersSource(AnnotationSource):
    """The utterances of a speech data set, mixed in pairs -> a question about each of the two speakers.

    A speaker is named by what tells the two apart: the gender where the data set has it, who begins, or who is louder.
    Each utterance is in one mixture at most. Splits are those of the data set, so that nobody is in two of them; the
    record of a mixture has the person who is asked for, and the transcript of the other one in ``meta``.

    Reference: HumanOmni, section 1, speaker-specific speech. LibriMix (Cosentino et al. 2020): two utterances of
    different speakers, their levels drawn at random.
    Differs from LibriMix: the second speaker begins later, by a share of overlap that is drawn as in SparseLibriMix, so
    that the order names a speaker; there is no noise.

    Args:
        path: of the speech data set.
        root: folder that the paths of its media are relative to.
        out: folder of the records; the mixtures are written to ``mixtures`` in it.
        speech: path and root -> the source of the utterances, with their transcripts as answers.
        seed: of the pairs, overlaps, levels, names and wordings.
        task: name of what is asked for.
        questions: wordings of the question with ``{speaker}``, see ``load_questions``.
        speakers: man, woman, first, second, louder, quieter -> words for this speaker; ``None``: never named so.
        overlap: least and largest share of the shorter utterance during which both speak.
        level: least and largest level of the first speaker above the second, in dB.
        max_mixtures: of a split; ``None``: as many as there are pairs.
        max_seconds: of a mixture; pairs that are longer are left out and counted.
        question: in place of ``questions``, with ``{speaker}``.
        system: system prompt.

    Raises:
        ValueError: an option is invalid.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        out: str | Path,
        speech: Callable[..., AnnotationSource],
        task: str,
        questions: str | None,
        speakers: Mapping[str, str | None],
        seed: int = 0,
        overlap: Any = (0.0, 0.8),
        level: Any = (-5.0, 5.0),
        max_mixtures: int | None = None,
        max_seconds: Any = 30.0,
        question: str | None = None,
        system: str | None = None,
    ) -> None:
        super().__init__(
            path,
            Path(out).expanduser(),
            task=task,
            question=question,
            questions=questions,
            options=FREE_TEXT,
            system=system,
        )
        self.speech = speech(path, root)
        self.texts = self.questions.texts if self.questions else (str(question),)
        # an utterance alone is never asked about
        self.speech.question, self.speech.options = self.texts[0], self.speech.options or FREE_TEXT
        if without := [text for text in self.texts if PLACEHOLDER not in text]:
            raise ValueError(f"question={without[0]!r}: write {PLACEHOLDER} where the name of the speaker belongs.")
        self.speakers = _check_speakers(speakers)
        self.overlap = _check_range("overlap", overlap, 0.0, 1.0)
        self.level = _check_range("level", level, -60.0, 60.0)
        self.seed, self.max_mixtures = seed, max_mixtures
        _, self.max_seconds = _check_range("max_seconds", (0, max_seconds), 0.0, 3600.0)

    def annotate(self) -> tuple[Labels, list[AnnotatedRecord]]:
        self.root.mkdir(parents=True, exist_ok=True)
        return super().annotate()

    def annotations(self) -> Iterator[Annotation]:
        labels, items = self.speech.annotate()
        if labels.names is not None:
            raise ValueError(
                f"{self.path}: its answers are classes, {', '.join(labels.names)[:80]}; two speakers need transcripts."
            )
        self.notes += self.speech.notes
        yield from (Annotation(item.annotation.place, error=item.error) for item in items if item.error is not None)
        utterances = [item for item in items if item.error is None]
        written = set[Path]()
        for split, members in self._split(utterances).items():
            for number, mixture in enumerate(self._draw_mixtures(split, members)):
                file = self.root / FOLDER / split / f"{number:06}.wav"
                written.add(file)
                yield from self._write(file, split, mixture)
        surplus = set((self.root / FOLDER).rglob("*.wav")) - written
        if surplus:
            self.notes.append(f"{self.root / FOLDER} has {len(surplus)} files that are not of this command")

    def _split(self, utterances: Sequence[AnnotatedRecord]) -> dict[str, list[AnnotatedRecord]]:
        """Return the utterances of each split.

        Raises:
            ValueError: the speakers are not named, or a split has an unknown name.
        """
        annotations = [item.annotation for item in utterances]
        if any(annotation.person is None for annotation in annotations):
            raise ValueError(
                f"{self.path}: its speakers are not named, so that two cannot be told apart; choose another "
                "source@source.speech=..., or name their column, source.speech.person=<column> of a table."
            )
        if any(annotation.split is not None for annotation in annotations):
            names = parse_splits(annotation.split for annotation in annotations)
        else:
            names = assign_splits(utterances, FRACTIONS, self.seed)
        splits: dict[str, list[AnnotatedRecord]] = {split: [] for split in SPLITS}
        for item, name in zip(utterances, names, strict=True):
            splits[name].append(item)
        return splits

    def _draw_mixtures(self, split: str, utterances: Sequence[AnnotatedRecord]) -> Iterator[_Mixture]:
        """Yield the mixtures of a split, at most ``max_mixtures``, and note the pairs that make none."""
        rng = random.Random(f"{self.seed}/{split}")
        pairs = draw_pairs(utterances, lambda item: item.annotation.person, rng)
        num_single, num_mixtures = len(utterances) - 2 * len(pairs), 0
        unused = Counter[str]()
        for first, second in pairs:
            if num_mixtures == self.max_mixtures:
                break
            mixture = self._draw_mixture(first, second, rng)
            if isinstance(mixture, str):
                unused[mixture] += 1
                continue
            num_mixtures += 1
            yield mixture
        if num_single:
            unused["utterances without a partner"] = num_single
        for reason, count in unused.items():
            self.notes.append(f"{split}: {reason}: {count}")

    def _draw_mixture(self, first: AnnotatedRecord, second: AnnotatedRecord, rng: random.Random) -> _Mixture | str:
        """Return a mixture of two utterances, or why there is none."""
        lengths = [self._count_samples(item) for item in (first, second)]
        if not all(lengths):
            return "pairs without audio"
        delay = lengths[0] - round(rng.uniform(*self.overlap) * min(lengths))
        level = round(rng.uniform(*self.level), 1)
        if max(lengths[0], delay + lengths[1]) > self.max_seconds * SAMPLE_RATE:
            return f"pairs longer than source.max_seconds={self.max_seconds:g}"
        genders = [_find_gender(item) for item in (first, second)]
        names: dict[str, tuple[str, str]] = {}
        if None not in genders and genders[0] != genders[1]:
            names["gender"] = (str(genders[0]), str(genders[1]))
        if delay >= MIN_DELAY * SAMPLE_RATE:
            names["order"] = ("first", "second")
        if abs(level) >= MIN_LEVEL:
            names["level"] = ("louder", "quieter") if level > 0 else ("quieter", "louder")
        cues = [cue for cue, keys in names.items() if all(map(self.speakers.get, keys))]
        if not cues:
            return "pairs that nothing tells apart"
        cue = rng.choice(cues)
        return _Mixture((first, second), delay, level, cue, names[cue], rng.choice(self.texts))

    def _count_samples(self, item: AnnotatedRecord) -> int:
        start, end = _find_span(item)
        return probe(self._locate(item)).num_samples(start, end)

    def _locate(self, item: AnnotatedRecord) -> Path:
        """Return the file of the audio of an utterance."""
        raw = item.raw or {}
        return self.speech.base / str(next(raw[key] for key in ("audio_track", "audio", "video") if key in raw))

    def _write(self, file: Path, split: str, mixture: _Mixture) -> Iterator[Annotation]:
        """Write the file of a mixture, and yield the question about each of its speakers."""
        place = " and ".join(item.annotation.place for item in mixture.utterances)
        try:
            first, second = (self._read(item) for item in mixture.utterances)
        except BadSample as bad:
            yield Annotation(place, error=bad)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_wav(file, mix_speech(first, second, mixture.delay, mixture.level))
        text = mixture.text if split == "train" else self.texts[0]
        end = min(len(first), mixture.delay + len(second))
        for index, item in enumerate(mixture.utterances):
            other = mixture.utterances[1 - index]
            meta = {
                "cue": mixture.cue,
                "level": mixture.level if index == 0 else 0.0 - mixture.level,
                "overlap": round(max(0, end - mixture.delay) / SAMPLE_RATE, 2),
                "other_person": other.annotation.person,
                "other_transcript": other.annotation.answer,
                "files": [(utterance.raw or {})["id"] for utterance in (item, other)],
            }
            yield Annotation(
                place,
                item.annotation.answer,
                {"audio": file.relative_to(self.root).as_posix()},
                question=text.replace(PLACEHOLDER, str(self.speakers[mixture.names[index]])),
                split=split,
                person=item.annotation.person,
                meta=meta,
            )

    def _read(self, item: AnnotatedRecord) -> Float32[np.ndarray, " S"]:
        """Return the audio of an utterance.

        Raises:
            BadSample: it cannot be read.
        """
        start, end = _find_span(item)
        _, _, waveform = read(self._locate(item), num_samples=self._count_samples(item), start=start, end=end)
        assert waveform is not None, "it has samples"
        return waveform.numpy()


def _find_span(item: AnnotatedRecord) -> tuple[float, float | None]:
    """Return the first and the last second of an utterance in its file."""
    raw = item.raw or {}
    return raw.get("start", 0.0), raw.get("end")


def _find_gender(item: AnnotatedRecord) -> str | None:
    """Return the gender of a speaker, ``None`` where the data set does not name it."""
    return GENDERS.get(str(item.annotation.meta.get("gender")).lower())


def _check_speakers(speakers: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the words for the speakers.

    Raises:
        ValueError: a key is unknown, or no cue has both of its words.
    """
    known = list(chain.from_iterable(CUES.values()))
    if unknown := [key for key in speakers if key not in known]:
        raise ValueError(f"source.speakers.{unknown[0]}: choose from {', '.join(known)}.")
    if not any(all(map(speakers.get, keys)) for keys in CUES.values()):
        raise ValueError(f"source.speakers={dict(speakers)}: name both of a pair: {', '.join(known)}.")
    return dict(speakers)


def _check_range(key: str, values: Any, least: float, most: float) -> tuple[float, float]:
    """Return two numbers in order.

    Raises:
        ValueError: they are not two numbers within the limits.
    """
    numbers = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    is_range = len(numbers) == 2 and all(isinstance(number, int | float) for number in numbers)
    if not is_range or not least <= numbers[0] <= numbers[1] <= most:
        raise ValueError(f"source.{key}={values}: expected two numbers from {least:g} to {most:g}, the smaller first.")
    return float(numbers[0]), float(numbers[1])
