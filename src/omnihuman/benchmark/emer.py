"""EMER: why somebody feels as they do; a judge compares the clues and the emotions that answers name."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, unique
from omnihuman.benchmark.emer_ov import PROMPT, clip_of, on_wheels, spoken, subtitled
from omnihuman.benchmark.text import (
    SUFFIXES,
    Media,
    TrainingClips,
    judged_by,
    marks,
    rows,
    text_of,
    to_record,
)
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import clue_overlap, label_overlap
from omnihuman.metric.events import overlap
from omnihuman.metric.open_vocabulary import our_wheels, wheel_scores
from omnihuman.metric.score import Score

FILES = {
    ("v1", "eng"): ("gt-eng.csv", "names", "reasons"),
    ("v1", "chi"): ("gt-chi.csv", "names", "reasons"),
    ("v2", "eng"): ("final-EMER-reason.csv", "name", "english"),
    ("v2", "chi"): ("final-EMER-reason.csv", "name", "chinese"),
}
"""Version and language -> table, its column of names and that of descriptions."""

OLD = "v1's 100 clips, gpt-3.5-turbo-16k-0613, Chinese prompts", "Omni-Emotion, table 2"
OURS = "says the same setting; 100 or 332 clips not stated", "Omni-Emotion, table 2"
NEW = "judged by GPT-4o; 100 or 332 clips not stated", "FaVChat, table 4"
ROWS: tuple[tuple[str, float, float, str, tuple[str, str]], ...] = (
    ("VideoChat-Text", 6.42, 3.94, "", OLD),
    ("Video-LLaMA", 6.64, 4.89, "", OLD),
    ("Video-ChatGPT", 6.95, 5.74, "", OLD),
    ("PandaGPT", 7.14, 5.51, "", OLD),
    ("VideoChat-Embed", 7.15, 5.65, "", OLD),
    ("Valley", 7.24, 5.77, "", OLD),
    ("Emotion-LLaMA", 7.83, 6.25, "VA", OLD),
    ("Omni-Emotion", 8.22, 6.78, "VAF", OURS),
    ("VideoChat-Text", 6.32, 3.97, "", NEW),
    ("Video-LLaMA", 6.51, 4.72, "", NEW),
    ("Video-ChatGPT", 6.98, 5.79, "", NEW),
    ("PandaGPT", 7.15, 5.49, "", NEW),
    ("VideoChat-Embed", 7.15, 5.65, "", NEW),
    ("Valley", 7.31, 5.76, "", NEW),
    ("FaVChat (7B, UMT-L)", 8.09, 6.71, "V", NEW),
    ("ground truth", 10.0, 10.0, "", NEW),
)
FUSED = OURS[0], "Omni-Emotion, table 3"
FUSIONS = ("concat per frame", 7.93), ("cross-attention", 7.31), ("concat per video", 8.22)


def _peer(method: str, modality: str, measured: tuple[str, str], **values: float) -> Peer:
    protocol, source = measured
    return Peer(method, values, modality, protocol, source)


class Emer(Benchmark):
    """The clips of EMER -> overlap of clues and of labels by a judge, 1 to 10; always of words.

    Reference: EMER (AffectGPT, arXiv 2306.15401): v1 has 100 clips with one emotion each, v2 332 without; 39 are in
    both. Omni-Emotion, table 2, FaVChat, table 4.
    Differs from the official judging, whose prompts are Chinese for either language: the judge's prompts are ours, and
    truths and answers are of one language. An answer that could not be asked counts 0. What needs no judge has names
    of its own: ``word_f1`` of the descriptions, and of English ones the emotion words in them on wheels (v1: those of
    the answer against the one true emotion).

    Args:
        root: folder of the clips.
        version: ``v1`` or ``v2``.
        language: of the truths, and of the answers that are wanted: ``eng``, ``chi``.
        annotations: the table; ``None``: the official name, from ``root`` on.
        videos: folder of ``<name>.mp4``, from ``root`` on.
        subtitles: table ``name``, ``english``, ``chinese``, or v1's own, whose lines go before the question, from
            ``root`` on; ``None``: none.
        prompt: what is asked about each clip.
        train_records: data files of the training; clips that both have are counted in ``protocol``.
        judge: for both overlaps, which are left out without one.
        missing_media: ``raise``, or ``skip`` clips that are not there and count them.
        max_new_tokens: length limit of an answer.
    """

    name = "emer"
    modality = "VAF"
    peers = (
        *(
            _peer(who, modality, how, clue_overlap=clue, label_overlap=label)
            for who, clue, label, modality, how in ROWS
        ),
        *(_peer(f"Omni-Emotion, {how}", "VAF", FUSED, clue_overlap=clue) for how, clue in FUSIONS),
    )

    def __init__(
        self,
        root: str,
        *,
        version: Literal["v1", "v2"] = "v2",
        language: Literal["eng", "chi"] = "eng",
        annotations: str | None = None,
        videos: str = "video",
        subtitles: str | None = None,
        prompt: str = PROMPT,
        train_records: str | Sequence[str] = (),
        judge: Judge | None = None,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 512,
    ) -> None:
        self.version, self.language = version, language
        file, self.key, self.column = FILES[version, language]
        self.annotations = Path(root, annotations or file)
        self.subtitles = None if subtitles is None else Path(root, subtitles)
        self.prompt, self.judge, self.max_new_tokens = prompt, judge, max_new_tokens
        self.training = TrainingClips(train_records, clip_of)
        self.media = Media(Path(root, videos), missing_media)

    def questions(self) -> list[Question]:
        self.media.start()
        said = spoken(self.subtitles, {"eng": "english", "chi": "chinese"}[self.language])
        self.training.start()
        found = []
        for where, row in rows(self.annotations, (self.key, self.column)):
            name = row[self.key]
            if file := self.media.find(name, f"{where}: {self.key}", SUFFIXES):
                prompt = subtitled(self.prompt, said, name, self.subtitles)
                meta: dict[str, Any] = {"emotion": row["emotions"]} if row.get("emotions") else {}
                meta |= self.training.mark(name)
                found.append(Question(to_record(file, prompt, name, where), row[self.column], meta=meta))
        return unique(found, str(self.annotations))

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return text_of(asked)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids = [each.id for each in predictions]
        shared = [shared_words(str(each.truth), each.answer or "") for each in predictions]
        scores = [Score.mean("word_f1", ids, shared, note="words that truth and answer share; no judge")]
        if self.language == "eng":
            truths = [on_wheels(str(each.meta.get("emotion", each.truth)), our_wheels()) for each in predictions]
            answers = [on_wheels(each.answer or "", our_wheels()) for each in predictions]
            scores += wheel_scores(ids, truths, answers)
        if self.judge is None:
            return scores
        judge, note = self.judge, f"judge {self.judge.id}"
        judged = []
        for name, measure in (("clue_overlap", clue_overlap), ("label_overlap", label_overlap)):

            def values(some: Sequence[Prediction], measure: Any = measure) -> list[float | None]:
                return list(measure(judge, [str(each.truth) for each in some], [str(each.answer) for each in some]))

            judged.append(overlap(ids, marks(predictions, values, 0.0), name, note))
        return judged + scores

    def protocol(self) -> dict[str, str]:
        return {
            "data": f"EMER {self.version}, {self.language}",
            "prompt": self.prompt,
            "subtitles": "none" if self.subtitles is None else self.subtitles.name,
            "judge": judged_by(self.judge, "clue_overlap and label_overlap"),
            "judge's prompts": "English, ours; the official ones are Chinese",
            **self.training.protocol(),
            **self.media.protocol(),
        }


def shared_words(truth: str, answer: str) -> float:
    """Two texts -> the F1 of the words, of Chinese the characters, that they share.

    >>> shared_words("He cries, sad.", "She cries"), shared_words("他很生气", "他生气")
    (0.4, 0.8571428571428571)
    """
    first, second = (Counter(re.findall(r"[㐀-鿿]|[^\W㐀-鿿]+", text.lower())) for text in (truth, answer))
    return 2 * (first & second).total() / max(1, first.total() + second.total())
