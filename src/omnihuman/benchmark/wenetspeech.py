"""WenetSpeech: spontaneous Mandarin from the internet and from meetings, mixed and character error rates."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import (
    Benchmark,
    Prediction,
    Question,
    check_subset,
    check_unique_ids,
    read_peers,
)
from omnihuman.benchmark.text import Media, build_record
from omnihuman.benchmark.transcription import PROMPT, parse_transcript, score_groups
from omnihuman.metric.score import Score
from omnihuman.metric.speech import cer, mer
from omnihuman.source.recordings import read_recordings, read_value

SUBSETS = ("TEST_NET", "TEST_MEETING", "DEV")


class WenetSpeech(Benchmark):
    """The segments of ``WenetSpeech.json`` -> MER and CER of each subset, in percent.

    Reference: WenetSpeech, MER over Chinese characters and English words; its recordings are hours long, so a segment
    is decoded from its ``begin_time`` to its ``end_time``.
    Differs from the official tokenizer: an English word is one token even if a character follows without a space,
    unless ``official_glue`` is set. References are not corrected: a few of TEST_NET are known to be wrong (WenetSpeech
    issue 63).

    Args:
        root: the folder of ``WenetSpeech.json`` and ``audio/``.
        subsets: to run, by their official names; the first is the main score.
        prompt: for each segment.
        numbers: spell them out, so that ``23`` and ``二十三`` are equal.
        official_glue: join an English word with the character right after it to one token, as the official script does.
        missing_media: ``raise``, or ``skip`` segments with missing recordings and count them.
        max_new_tokens: maximum length of an answer.
    """

    name = "wenetspeech"
    view = "A"
    published = read_peers("wenetspeech")

    def __init__(
        self,
        root: str,
        *,
        subsets: str | Sequence[str] = ("TEST_NET", "TEST_MEETING"),
        prompt: str = PROMPT,
        numbers: bool = True,
        official_glue: bool = False,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 256,
    ) -> None:
        self.root, self.subsets = Path(root), check_subset("subsets", subsets, SUBSETS)
        self.prompt, self.official_glue = prompt, official_glue
        self.numbers = numbers
        self.media = Media(self.root, missing_media)
        self.max_new_tokens = max_new_tokens

    def questions(self) -> list[Question]:
        self.media.reset()
        path = self.root / "WenetSpeech.json"
        questions: list[Question] = []
        for location, recording in read_recordings(path):
            questions += self._read_segments(location, recording)
        found_subsets = {question.group for question in questions}
        for subset in self.subsets:
            if subset not in found_subsets and not self.media.skipped:
                raise ValueError(f"{path}: there is no segment of the subset {subset}; remove it from subsets.")
        questions.sort(key=lambda question: self.subsets.index(question.group))
        return check_unique_ids(questions, str(path))

    def _read_segments(self, location: str, recording: Any) -> Iterator[Question]:
        """Build the questions of a recording; a segment counts for the first of its subsets."""
        for number, segment in enumerate(read_value(recording, "segments", location, list)):
            place = f"{location}.segments[{number}]"
            subset = self._find_subset(read_value(segment, "subsets", place, list))
            if subset is None:
                continue
            name, transcript = read_value(segment, "sid", place, str), read_value(segment, "text", place, str)
            start = float(read_value(segment, "begin_time", place, int, float))
            end = float(read_value(segment, "end_time", place, int, float))
            if not 0 <= start < end:
                raise ValueError(f"{place}: end_time {end:g} must be after begin_time {start:g}.")
            file = self.media.find(read_value(recording, "path", location, str), f"{location}.path")
            if file is not None:
                record = build_record(file, self.prompt, name, place, audio_only=True, start=start, end=end)
                meta = {"recording": str(recording.get("aid", file.stem))}
                yield Question(record, transcript, subset, meta=meta)

    def _find_subset(self, names: list[Any]) -> str | None:
        for subset in self.subsets:
            if subset in names:
                return subset
        return None

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_transcript(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        mixed = partial(mer, numbers=self.numbers, official_glue=self.official_glue)
        characters = partial(cer, numbers=self.numbers)
        scores = score_groups("mer", predictions, self.subsets, mixed, _recording)
        return scores + score_groups("cer", predictions, self.subsets, characters, _recording)

    def protocol(self) -> dict[str, str]:
        glue = "as joined by the official tokenizer" if self.official_glue else "words and characters apart"
        return {
            "prompt": self.prompt,
            "MER": f"Chinese characters and English words, {glue}",
            "CER": "Chinese characters and single letters",
            "normalizer": f"simplified characters, numbers {'spelled out' if self.numbers else 'as they stand'}",
            "resampling": "by recording",
            **self.media.protocol(),
        }


def _recording(prediction: Prediction) -> str:
    return str(prediction.meta.get("recording", prediction.id))
