"""FLEURS: read sentences; word error rate for English, character error rate for Mandarin."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, unique
from omnihuman.benchmark.text import Media, to_record
from omnihuman.benchmark.transcription import PROMPT, chosen, figures, lines, transcript
from omnihuman.metric.score import Score
from omnihuman.metric.speech import NORMALIZERS, cer, wer

FIGURES = {"en_us": "wer", "cmn_hans_cn": "cer"}
"""Language, as the data set names it -> what is counted."""

COLUMNS = ("id", "file name", "raw transcription", "transcription", "letters", "samples", "gender")
"""Of a .tsv, which has no head."""


def _peer(method: str, english: float, mandarin: float) -> Peer:
    values = {"wer/en_us": english, "cer/cmn_hans_cn": mandarin}
    protocol = "the table says WER for both; order of its columns not checked; normaliser not stated"
    return Peer(method, values, "A", protocol, "HumanOmni, table 5")


class Fleurs(Benchmark):
    """A copy of ``google/fleurs`` -> WER of English and CER of Mandarin, in percent.

    Reference: FLEURS: ``data/<language>/test.tsv``, and the sound that ``data/<language>/audio/test.tar.gz`` holds,
    unpacked beside it. HumanOmni, table 5, which calls both figures WER.
    Differs from it: the prompt and the normaliser are ours, its own are not published.

    Args:
        root: the copy, or its folder ``data``.
        languages: that are asked: ``en_us``, ``cmn_hans_cn``; the first is the headline.
        split: ``test`` or ``dev``.
        reference: which column is the truth: ``transcription`` (normalised) or ``raw transcription``.
        numbers: spell out those of Mandarin: ``23`` and ``二十三`` are one.
        prompt: what is asked about each sentence.
        normalizer: of both sides of English: see ``metric.speech.wer``.
        missing_media: ``raise``, or ``skip`` sentences whose sound is not there and count them.
        max_new_tokens: length limit of an answer.
    """

    name = "fleurs"
    modality = "A"
    peers = (_peer("Qwen2-Audio", 9.0, 15.7), _peer("Baichuan-Omni", 7.0, 4.7), _peer("HumanOmni", 6.3, 7.5))

    def __init__(
        self,
        root: str,
        *,
        languages: str | Sequence[str] = tuple(FIGURES),
        split: Literal["test", "dev"] = "test",
        reference: str = "transcription",
        numbers: bool = True,
        prompt: str = PROMPT,
        normalizer: str = "whisper_english",
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 256,
    ) -> None:
        if (column := reference.replace("_", " ")) not in COLUMNS[2:4]:
            raise ValueError(f"reference={reference}: choose from transcription, raw transcription.")
        if normalizer not in NORMALIZERS:
            raise ValueError(f"normalizer={normalizer}: choose from {', '.join(NORMALIZERS)}.")
        root_ = Path(root)
        self.root = root_ / "data" if (root_ / "data").is_dir() else root_
        self.languages, self.split = chosen("languages", languages, tuple(FIGURES)), split
        self.reference = column
        self.numbers = numbers
        self.prompt, self.normalizer, self.max_new_tokens = prompt, normalizer, max_new_tokens
        self.media = Media(self.root, missing_media)

    def questions(self) -> list[Question]:
        self.media.start()
        return unique([each for language in self.languages for each in self._language(language)], str(self.root))

    def _language(self, language: str) -> Iterator[Question]:
        path = self.root / language / f"{self.split}.tsv"
        if not path.is_file():
            raise ValueError(
                f"{path}: there is no such file; root is a copy of google/fleurs with data/{language}/{self.split}.tsv "
                "and its sound (a copy as parquet holds no files that could be read: fetch the .tsv form)."
            )
        sound = self._sound(language)
        asked = list(lines(path))
        if not asked:
            raise ValueError(f"{path} is empty; fetch it again.")
        for where, line in asked:
            cells = line.split("\t")
            if len(cells) != len(COLUMNS):
                raise ValueError(f"{where}: {len(cells)} columns; a line has {len(COLUMNS)}: {', '.join(COLUMNS)}.")
            row = dict(zip(COLUMNS, cells, strict=True))
            if not row[self.reference].strip():
                raise ValueError(f"{where}: the {self.reference} is empty; take the line out or set reference.")
            if file := self.media.find(f"{sound}/{row['file name']}", f"{where}: file name"):
                name = f"{language}/{Path(row['file name']).stem}"
                record = to_record(file, self.prompt, name, where, sound_only=True)
                yield Question(record, row[self.reference].strip(), language, meta={"sentence": row["id"]})

    def _sound(self, language: str) -> str:
        """Where the sound lies, below the root: the archive is unpacked beside itself or beside the .tsv."""
        places = (f"{language}/audio/{self.split}", f"{language}/{self.split}", f"{language}/audio")
        if found := next((place for place in places[:2] if (self.root / place).is_dir()), None):
            return found
        archive = self.root / places[2] / f"{self.split}.tar.gz"
        if archive.is_file() and self.media.missing == "raise":
            raise ValueError(f"{archive}: unpack it first: tar -xzf {archive} -C {archive.parent}")
        return places[0]

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return transcript(asked)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        # a sentence is read by up to three people
        sentences = {each.id: f"{each.group}/{each.meta.get('sentence', each.id)}" for each in predictions}

        def words(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> Score:
            return wer(ids, references, answers, self.normalizer, [sentences[each] for each in ids])

        def characters(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> Score:
            return cer(ids, references, answers, self.numbers, [sentences[each] for each in ids])

        scores = []
        for language in self.languages:
            measure = words if FIGURES[language] == "wer" else characters
            scores += figures(FIGURES[language], predictions, (language,), measure)
        return scores

    def protocol(self) -> dict[str, str]:
        return {
            "prompt": self.prompt,
            "truth": f"the column {self.reference} of {self.split}.tsv",
            "English": f"WER, normaliser {self.normalizer}",
            "Mandarin": f"CER, simplified characters, numbers {'spelled out' if self.numbers else 'as they stand'}",
            "resampling": "by sentence",
            **self.media.protocol(),
        }
