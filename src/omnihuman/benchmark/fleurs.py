"""FLEURS: read speech; word error rate for English, character error rate for Mandarin."""

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
from omnihuman.data.text_files import read_lines
from omnihuman.metric.score import Score
from omnihuman.metric.speech import NORMALIZERS, cer, wer

METRICS = {"en_us": "wer", "cmn_hans_cn": "cer"}
"""Language, as named in the dataset -> its metric."""

COLUMNS = ("id", "file name", "raw transcription", "transcription", "letters", "samples", "gender")
"""Columns of a .tsv, which has no header."""


class Fleurs(Benchmark):
    """A copy of ``google/fleurs`` -> WER of English and CER of Mandarin, in percent.

    Reference: FLEURS: ``data/<language>/test.tsv``, and the audio files of ``data/<language>/audio/test.tar.gz``,
    unpacked in its folder. HumanOmni, table 5, which calls both rates WER.
    Differs from it: the prompt and the normalizer are ours, HumanOmni's are not published.

    Args:
        root: the copy, or its folder ``data``.
        languages: ``en_us``, ``cmn_hans_cn``; the first is the main score.
        split: ``test`` or ``dev``.
        reference: column of the references: ``transcription`` (normalized) or ``raw transcription``.
        numbers: spell out those of Mandarin, so that ``23`` and ``二十三`` are equal.
        prompt: for each sentence.
        normalizer: of English references and answers, see ``metric.speech.wer``.
        missing_media: ``raise``, or ``skip`` sentences with missing audio files and count them.
        max_new_tokens: maximum length of an answer.
    """

    name = "fleurs"
    view = "A"
    published = read_peers("fleurs")

    def __init__(
        self,
        root: str,
        *,
        languages: str | Sequence[str] = tuple(METRICS),
        split: Literal["test", "dev"] = "test",
        reference: str = "transcription",
        numbers: bool = True,
        prompt: str = PROMPT,
        normalizer: str = "whisper_english",
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 256,
    ) -> None:
        column = reference.replace("_", " ")
        if column not in COLUMNS[2:4]:
            raise ValueError(f"reference={reference}: choose from transcription, raw transcription.")
        if normalizer not in NORMALIZERS:
            raise ValueError(f"normalizer={normalizer}: choose from {', '.join(NORMALIZERS)}.")
        self.root = Path(root)
        if (self.root / "data").is_dir():
            self.root = self.root / "data"
        self.languages, self.split = check_subset("languages", languages, tuple(METRICS)), split
        self.reference = column
        self.numbers = numbers
        self.prompt, self.normalizer, self.max_new_tokens = prompt, normalizer, max_new_tokens
        self.media = Media(self.root, missing_media)

    def questions(self) -> list[Question]:
        self.media.reset()
        questions: list[Question] = []
        for language in self.languages:
            questions += self._read_language(language)
        return check_unique_ids(questions, str(self.root))

    def _read_language(self, language: str) -> Iterator[Question]:
        path = self.root / language / f"{self.split}.tsv"
        if not path.is_file():
            raise ValueError(
                f"{path}: there is no such file; set root to a copy of google/fleurs with "
                f"data/{language}/{self.split}.tsv and its audio files (not the parquet form)."
            )
        audio = self._find_audio(language)
        lines = list(read_lines(path))
        if not lines:
            raise ValueError(f"{path} is empty; download it again.")
        for location, line in lines:
            cells = line.split("\t")
            if len(cells) != len(COLUMNS):
                raise ValueError(
                    f"{location}: got {len(cells)} columns, expected {len(COLUMNS)}: {', '.join(COLUMNS)}."
                )
            row = dict(zip(COLUMNS, cells, strict=True))
            reference, file_name = row[self.reference].strip(), row["file name"]
            if not reference:
                raise ValueError(f"{location}: the {self.reference} is empty; remove the line or set reference.")
            file = self.media.find(f"{audio}/{file_name}", f"{location}: file name")
            if file is not None:
                name = f"{language}/{Path(file_name).stem}"
                record = build_record(file, self.prompt, name, location, audio_only=True)
                yield Question(record, reference, language, meta={"sentence": row["id"]})

    def _find_audio(self, language: str) -> str:
        """Find the folder of the audio files below the root: next to the archive or next to the .tsv."""
        folders = (f"{language}/audio/{self.split}", f"{language}/{self.split}")
        for folder in folders:
            if (self.root / folder).is_dir():
                return folder
        archive = self.root / language / "audio" / f"{self.split}.tar.gz"
        if archive.is_file() and self.media.missing == "raise":
            raise ValueError(f"{archive}: unpack it first: tar -xzf {archive} -C {archive.parent}")
        return folders[0]

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_transcript(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        metrics = {"wer": partial(wer, normalizer=self.normalizer), "cer": partial(cer, numbers=self.numbers)}
        scores = []
        for language in self.languages:
            name = METRICS[language]
            scores += score_groups(name, predictions, (language,), metrics[name], _sentence)
        return scores

    def protocol(self) -> dict[str, str]:
        return {
            "prompt": self.prompt,
            "reference": f"the column {self.reference} of {self.split}.tsv",
            "English": f"WER, normalizer {self.normalizer}",
            "Mandarin": f"CER, simplified characters, numbers {'spelled out' if self.numbers else 'as they stand'}",
            "resampling": "by sentence",
            **self.media.protocol(),
        }


def _sentence(prediction: Prediction) -> str:
    """Return the sentence of an utterance; up to three people read the same sentence."""
    return f"{prediction.group}/{prediction.meta.get('sentence', prediction.id)}"
