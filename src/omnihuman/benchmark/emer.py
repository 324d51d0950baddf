"""EMER: explanations of emotions; a judge compares the clues and the emotions of answer and reference."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Prediction, Question, check_unique_ids, read_peers, unzip
from omnihuman.benchmark.emer_ov import PROMPT, Subtitles, find_wheel_words, identify_clip
from omnihuman.benchmark.text import (
    SUFFIXES,
    Media,
    TrainingClips,
    build_record,
    describe_judge,
    judge_answers,
    parse_text,
    read_csv,
)
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import judge_clue_overlap, judge_label_overlap
from omnihuman.metric.answer import final_answer
from omnihuman.metric.events import score_overlap
from omnihuman.metric.open_vocabulary import built_in_wheels, score_on_wheels
from omnihuman.metric.score import Score
from omnihuman.source.emer import FILES


class Emer(Benchmark):
    """The clips of EMER -> a judge's overlap of clues and of labels, 1 to 10; always the overlap of words.

    Reference: EMER (AffectGPT, arXiv 2306.15401): v1 has 100 clips with one emotion each, v2 332 without; 39 are in
    both. Omni-Emotion, table 2, FaVChat, table 4.
    Differs from the official judging, whose prompts are Chinese for either language: the judge's prompts are ours, and
    references and answers are in the same language. A failed generation scores 0. Scores without a judge have other
    names: ``word_f1`` of the descriptions, and for English ones the agreement of their emotion words on wheels (v1: of
    the answer with the one annotated emotion).

    Args:
        root: folder of the clips.
        version: ``v1`` or ``v2``.
        language: of references and answers: ``eng``, ``chi``.
        annotations: the table, relative to ``root``; ``None``: the official name.
        videos: folder of ``<name>.mp4``, relative to ``root``.
        subtitles: table with the columns ``name``, ``english``, ``chinese``, or that of v1, relative to ``root``; they
            precede the question. ``None``: no subtitles.
        prompt: for each clip.
        train_records: data files of the training; ``protocol`` counts the clips that are also in them.
        judge: for both overlaps, which are omitted without one.
        missing_media: ``raise``, or ``skip`` missing clips and count them.
        max_new_tokens: maximum length of an answer.
    """

    name = "emer"
    view = "VAF"
    published = read_peers("emer")

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
        self.training = TrainingClips(train_records, identify_clip)
        self.media = Media(Path(root, videos), missing_media)

    def questions(self) -> list[Question]:
        self.media.reset()
        subtitles = Subtitles(self.subtitles, {"eng": "english", "chi": "chinese"}[self.language])
        self.training.reset()
        questions = []
        for location, row in read_csv(self.annotations, (self.key, self.column)):
            name = row[self.key]
            file = self.media.find(name, f"{location}: {self.key}", SUFFIXES)
            if file is None:
                continue
            prompt = subtitles.prepend(self.prompt, name)
            meta: dict[str, Any] = {"emotion": row["emotions"]} if row.get("emotions") else {}
            meta |= self.training.check(name)
            questions.append(Question(build_record(file, prompt, name, location), row[self.column], meta=meta))
        return check_unique_ids(questions, str(self.annotations))

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_text(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        scores: list[Score] = []
        if self.judge is not None:
            for name, judge in (("clue_overlap", judge_clue_overlap), ("label_overlap", judge_label_overlap)):
                scores.append(self._judge_overlap(name, predictions, partial(judge, self.judge)))
        ids, references, answers = unzip(predictions)
        shares = [word_f1(reference, answer) for reference, answer in zip(references, answers, strict=True)]
        scores.append(Score.mean("word_f1", ids, shares, note="common words of reference and answer; no judge"))
        if self.language == "eng":
            scores += self._score_on_wheels(ids, predictions)
        return scores

    def _judge_overlap(
        self,
        name: str,
        predictions: Sequence[Prediction],
        judge: Callable[[Sequence[str], Sequence[str]], list[float | None]],
    ) -> Score:
        assert self.judge is not None

        def judge_texts(answered: Sequence[Prediction]) -> list[float | None]:
            _, references, answers = unzip(answered)
            return judge(references, answers)

        zero: float | None = 0.0
        ids, _, _ = unzip(predictions)
        return score_overlap(ids, judge_answers(predictions, judge_texts, zero), name, f"judge {self.judge.id}")

    def _score_on_wheels(self, ids: Sequence[str], predictions: Sequence[Prediction]) -> list[Score]:
        wheels = built_in_wheels()
        references, answers = [], []
        for prediction in predictions:
            emotion = str(prediction.meta.get("emotion", prediction.reference))
            references.append(find_wheel_words(emotion, wheels))
            answers.append(find_wheel_words(final_answer(prediction.answer) or "", wheels))
        return score_on_wheels(ids, references, answers)

    def protocol(self) -> dict[str, str]:
        return {
            "data": f"EMER {self.version}, {self.language}",
            "prompt": self.prompt,
            "subtitles": "none" if self.subtitles is None else self.subtitles.name,
            "judge": describe_judge(self.judge, "clue_overlap and label_overlap"),
            "judge's prompts": "English, ours; the official ones are Chinese",
            **self.training.protocol(),
            **self.media.protocol(),
        }


def word_f1(reference: str, answer: str) -> float:
    """Return the F1 of the common words (Chinese: characters) of two texts.

    >>> word_f1("He cries, sad.", "She cries"), word_f1("他很生气", "他生气")
    (0.4, 0.8571428571428571)
    """
    first, second = (Counter(re.findall(r"[㐀-鿿]|[^\W㐀-鿿]+", text.lower())) for text in (reference, answer))
    return 2 * (first & second).total() / max(1, first.total() + second.total())
