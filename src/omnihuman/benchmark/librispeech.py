"""LibriSpeech: read English, word error rates of the two clean and the two other parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, unique
from omnihuman.benchmark.text import Media, to_record
from omnihuman.benchmark.transcription import PROMPT, chosen, figures, lines, transcript
from omnihuman.metric.score import Score
from omnihuman.metric.speech import NORMALIZERS, wer

SPLITS = ("test-clean", "test-other", "dev-clean", "dev-other")


def _peer(method: str, *figures: float | None) -> Peer:
    names = ("wer/dev-clean", "wer/dev-other", "wer/test-clean", "wer/test-other")
    values = {name: figure for name, figure in zip(names, figures, strict=True) if figure is not None}
    return Peer(method, values, "A", "prompt and normaliser not stated", "HumanOmni, table 5")


class LibriSpeech(Benchmark):
    """The utterances of a folder ``LibriSpeech`` -> WER of each part, in percent.

    Reference: openslr 12: ``<part>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac`` and beside them
    ``<speaker>-<chapter>.trans.txt``, a line for each. HumanOmni, table 5.
    Differs from it: the prompt and the normaliser are ours, its own are not published.

    Args:
        root: the folder that holds ``test-clean`` and the others.
        splits: parts that are asked; the first is the headline.
        prompt: what is asked about each utterance.
        normalizer: of both sides before they are compared: see ``metric.speech.wer``.
        missing_media: ``raise``, or ``skip`` utterances whose sound is not there and count them.
        max_new_tokens: length limit of an answer.
    """

    name = "librispeech"
    modality = "A"
    peers = (
        _peer("Qwen2-Audio", 1.3, 3.4, 1.6, 3.6),
        _peer("SenseVoice-L", None, None, 2.5, 4.2),
        _peer("VITA", 7.6, 16.6, 8.1, 18.4),
        _peer("Mini-Omni2", 4.7, 9.4, 4.8, 9.8),
        _peer("HumanOmni", 3.8, 7.5, 3.7, 8.0),
    )

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
        self.root, self.splits, self.prompt = Path(root), chosen("splits", splits, SPLITS), prompt
        self.normalizer = normalizer
        self.media = Media(self.root, missing_media)
        self.max_new_tokens = max_new_tokens

    def questions(self) -> list[Question]:
        self.media.start()
        found = []
        for split in self.splits:
            folder = self.root / split
            lists = sorted(folder.glob("*/*/*.trans.txt"))
            if not lists:
                raise ValueError(
                    f"{folder}: there is no <speaker>/<chapter>/*.trans.txt; root is the folder LibriSpeech: "
                    f"unpack {split}.tar.gz there or leave {split} out of splits."
                )
            for path in lists:
                found += self._chapter(path, split)
        return unique(found, str(self.root))

    def _chapter(self, path: Path, split: str) -> list[Question]:
        found = []
        for where, line in lines(path):
            name, words = [*line.split(maxsplit=1), ""][:2]
            if not words:
                raise ValueError(f"{where}: {line!r} has no words; a line is <utterance> <WORDS>.")
            sound = path.parent.relative_to(self.root) / f"{name}.flac"
            if file := self.media.find(str(sound), where):
                record = to_record(file, self.prompt, f"{split}/{name}", where, sound_only=True)
                found.append(Question(record, words.strip(), split, meta={"speaker": path.parts[-3]}))
        return found

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return transcript(asked)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        speakers = {each.id: str(each.meta.get("speaker", each.id)) for each in predictions}

        def measure(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> Score:
            return wer(ids, references, answers, normalizer=self.normalizer, speakers=[speakers[each] for each in ids])

        return figures("wer", predictions, self.splits, measure)

    def protocol(self) -> dict[str, str]:
        return {
            "prompt": self.prompt,
            "normaliser": self.normalizer,
            "WER": "edits over words of a whole part; resampled by speaker",
            **self.media.protocol(),
        }
