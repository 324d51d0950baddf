"""LibriSpeech: read English speech, word error rates of the two clean and the two other splits."""

from collections.abc import Sequence
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
from omnihuman.metric.speech import NORMALIZERS, wer

SPLITS = ("test-clean", "test-other", "dev-clean", "dev-other")


class LibriSpeech(Benchmark):
    """The utterances of a folder ``LibriSpeech`` -> WER of each split, in percent.

    Reference: openslr 12: ``<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`` and in the same
    folder ``<speaker>-<chapter>.trans.txt``, a line per utterance. HumanOmni, table 5.
    Differs from it: the prompt and the normalizer are ours, HumanOmni's are not published.

    Args:
        root: the folder of ``test-clean`` and the other splits.
        splits: to run; the first is the main score.
        prompt: for each utterance.
        normalizer: of references and answers, see ``metric.speech.wer``.
        missing_media: ``raise``, or ``skip`` utterances with missing audio files and count them.
        max_new_tokens: maximum length of an answer.
    """

    name = "librispeech"
    view = "A"
    published = read_peers("librispeech")

    def __init__(
        self,
        root: str,
        *,
        splits: str | Sequence[str] = SPLITS,
        prompt: str = PROMPT,
        normalizer: str = "whisper_english",
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 256,
    ) -> None:
        if normalizer not in NORMALIZERS:
            raise ValueError(f"normalizer={normalizer}: choose from {', '.join(NORMALIZERS)}.")
        self.root, self.splits, self.prompt = Path(root), check_subset("splits", splits, SPLITS), prompt
        self.normalizer = normalizer
        self.media = Media(self.root, missing_media)
        self.max_new_tokens = max_new_tokens

    def questions(self) -> list[Question]:
        self.media.reset()
        questions = []
        for split in self.splits:
            folder = self.root / split
            transcripts = sorted(folder.glob("*/*/*.trans.txt"))
            if not transcripts:
                raise ValueError(
                    f"{folder}: there is no <speaker>/<chapter>/*.trans.txt; set root to the folder LibriSpeech: "
                    f"unpack {split}.tar.gz there or remove {split} from splits."
                )
            for path in transcripts:
                questions += self._read_chapter(path, split)
        return check_unique_ids(questions, str(self.root))

    def _read_chapter(self, path: Path, split: str) -> list[Question]:
        questions = []
        for location, line in read_lines(path):
            cells = line.split(maxsplit=1)
            if len(cells) < 2:
                raise ValueError(f"{location}: {line!r} has no transcript; expected <utterance> <WORDS>.")
            name, transcript = cells
            audio = path.parent.relative_to(self.root) / f"{name}.flac"
            file = self.media.find(str(audio), location)
            if file is not None:
                record = build_record(file, self.prompt, f"{split}/{name}", location, audio_only=True)
                questions.append(Question(record, transcript.strip(), split, meta={"speaker": path.parts[-3]}))
        return questions

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_transcript(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        metric = partial(wer, normalizer=self.normalizer)
        return score_groups("wer", predictions, self.splits, metric, _speaker)

    def protocol(self) -> dict[str, str]:
        return {
            "prompt": self.prompt,
            "normalizer": self.normalizer,
            "WER": "edits per word of a split; resampled by speaker",
            **self.media.protocol(),
        }


def _speaker(prediction: Prediction) -> str:
    return str(prediction.meta.get("speaker", prediction.id))
