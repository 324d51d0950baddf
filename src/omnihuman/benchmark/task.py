"""Records of one task as questions: how each kind of answer is parsed and scored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from omnihuman.benchmark.base import INVALID, Benchmark, Prediction, Question, unzip
from omnihuman.benchmark.text import parse_text
from omnihuman.benchmark.transcription import OTHER, parse_transcript
from omnihuman.data.options import read_options
from omnihuman.data.record import Record
from omnihuman.metric.answer import CUT, final_answer, fold
from omnihuman.metric.caption import cider, rouge_l
from omnihuman.metric.emotion import match_label, parse_label, score_labels
from omnihuman.metric.open_vocabulary import parse_labels, score_label_sets
from omnihuman.metric.score import Score, equal, group_positions, select
from omnihuman.metric.speech import score_speakers, score_transcripts
from omnihuman.metric.verification import parse_yes_no, score_verification

KINDS = {"label": 48, "choice": 48, "labels": 64, "pairs": 16, "speech": 256, "text": 256}
"""Kind of the answers -> maximum length of one, in tokens."""

YES_NO = ("yes", "no")

T = TypeVar("T", str, list[str])


class TaskBenchmark(Benchmark):
    """Records of one task -> the scores of their kind of answer.

    ``label``: WAR and UAR of classes that are the same in all questions. ``choice``: the accuracy of options that each
    question has of its own. ``labels``: the overlap of sets of labels. ``pairs``: the accuracy of two answers, of which
    the first means that two clips show the same. ``speech``: WER and CER of transcripts; where all records have the
    words of another speaker (``meta.other_transcript``), also how near the answers are to those. ``text``: CIDEr and
    ROUGE-L.

    Attributes:
        kind: of the answers, a key of ``KINDS``.
        forms: label -> other words for it, in references and in answers.
        parser: of labels and choices: ``strict``, ``official`` or ``answer_tag``.
    """

    kind: str
    forms: Mapping[str, Sequence[str]]
    parser: str = "strict"

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        if self.kind == "label":
            return parse_label(prediction.answer, self.labels, self.forms, self.parser)
        if self.kind == "choice":
            return parse_label(prediction.answer, prediction.options, parser=self.parser)
        if self.kind == "pairs":
            return self._parse_pair(prediction)
        return {"labels": _parse_label_set, "speech": parse_transcript, "text": parse_text}[self.kind](prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        scores = self._score(predictions)
        groups = group_positions([prediction.group for prediction in predictions])
        # CIDEr weighs n-grams by the captions of all groups, so scores of single groups are not comparable.
        if self.kind == "text" or len(groups) < 2:
            return scores
        for group, positions in sorted(groups.items()):
            for score in self._score(select(predictions, positions)):
                scores.append(replace(score, name=f"{score.name}/{group}"))
        return scores

    def build_question(self, record: Record, group: str = "", meta: Mapping[str, Any] | None = None) -> Question:
        """Build the question of a record, whose last answer is the reference; earlier turns are its context.

        Raises:
            ValueError: the answer is not of the kind; the message names the record.
        """
        *turns, (_, reference) = record.messages
        options = self.labels
        if self.kind == "choice":
            options = read_options(record)
            if not options:
                raise ValueError(f"{record.location}: meta.options is missing; list the options of the question.")
        # Without needs, every view gets the same questions, even those that it cannot answer.
        question = replace(record, messages=(*turns, ("assistant", "")), needs=())
        meta = dict(meta or {})
        if self.kind == "speech":
            group, meta = group or _read_text(record, "cue"), meta | _read_other(record)
        return Question(question, self._read_reference(reference, options, record.location), group, options, meta)

    def _read_reference(self, answer: str, options: Sequence[str], location: str) -> Any:
        """Return the reference in the form that ``parse`` returns."""
        if options:
            match = match_label(answer, options, self.forms)
            if match is None:
                raise ValueError(f"{location}: {self._describe_unknown(answer, options)}")
            return match[0]
        reference: str | list[str] = answer
        if self.kind == "labels":
            reference = parse_labels(answer)
        is_empty = not reference or not answer.strip()
        if is_empty and self.kind != "speech":  # a clip without speech has an empty transcript
            raise ValueError(f"{location}: the answer {answer!r:.80} is empty; write it, or remove the record.")
        return reference

    def _describe_unknown(self, answer: str, options: Sequence[str]) -> str:
        expected = f"the answer {answer!r:.80} is none of {', '.join(map(repr, options))}"
        if self.kind == "choice":
            return f"{expected}, its meta.options: correct one of them."
        word = fold(answer)
        return f"{expected}: correct it, or map it with benchmark.labels={{{options[0]}: [{word:.80}], ...}}."

    def _parse_pair(self, prediction: Prediction) -> tuple[str | None, str]:
        same, different = self.labels
        if (fold(same), fold(different)) != YES_NO:
            forms = {
                same: ["yes", *self.forms.get(same, ())],
                different: ["no", "不是", *self.forms.get(different, ())],
            }
            return parse_label(prediction.answer, self.labels, forms)
        is_same, rule = parse_yes_no(prediction.answer)
        return {True: same, False: different, None: None}[is_same], rule

    def _score(self, predictions: Sequence[Prediction]) -> list[Score]:
        """Return the scores of the kind, for all predictions together."""
        ids, references, _ = unzip(predictions)
        parsed = [self.parse(prediction)[0] for prediction in predictions]
        if self.kind == "label":
            return score_labels(ids, references, parsed, self.labels, note=f"parser {self.parser}")
        if self.kind == "choice":
            return [Score.mean("accuracy", ids, equal(parsed, references))]
        if self.kind == "pairs":
            return score_pairs(predictions, parsed, self.labels[0])
        if self.kind == "labels":
            return score_label_sets(ids, references, _fill(parsed, []), [[]] * len(ids), "labels as written")
        texts = ids, references, _fill(parsed, "")
        if self.kind == "speech":
            return _score_speech(predictions, texts[2])
        return [cider(*texts), rouge_l(*texts)]


def score_pairs(
    predictions: Sequence[Prediction],
    parsed: Sequence[str | None],
    same: str,
    folds: Sequence[str] | None = None,
    note: str = "",
) -> list[Score]:
    """Compute the accuracy of pairs, with log-probabilities of both options also AUC and EER.

    Args:
        predictions: of the pairs; their first option means that both clips are the same.
        parsed: their answers.
        same: the label of pairs that are the same.
        folds: of the pairs.
        note: footnote of the table.
    """
    has_log_probs = any(prediction.log_probs for prediction in predictions)
    references, yes_scores = [], []
    for prediction in predictions:
        is_same = prediction.reference == same
        references.append(is_same)
        # a failed generation gets the worst possible probability
        yes_scores.append(_first_probability(prediction) if prediction.log_probs else float(not is_same))
    answers = [None if label is None else label == same for label in parsed]
    ids = [prediction.id for prediction in predictions]
    return score_verification(ids, references, answers, folds, yes_scores if has_log_probs else None, note)


def _first_probability(prediction: Prediction) -> float:
    first, second = prediction.log_probs
    return 1 / (1 + math.exp(min(700.0, second - first)))


def _read_text(record: Record, key: str) -> str:
    """Return a text in a record's ``meta``, empty without one."""
    annotation = record.meta.get("meta")
    value = annotation.get(key) if isinstance(annotation, Mapping) else None
    return value if isinstance(value, str) else ""


def _read_other(record: Record) -> dict[str, str]:
    """Return the words of another speaker than the one that is asked for, as an entry of a question's ``meta``."""
    text = _read_text(record, OTHER)
    return {OTHER: text} if text else {}


def _score_speech(predictions: Sequence[Prediction], parsed: Sequence[str]) -> list[Score]:
    ids, references, _ = unzip(predictions)
    rivals = [prediction.meta.get(OTHER) for prediction in predictions]
    if all(isinstance(text, str) for text in rivals):
        return score_speakers(ids, references, list(map(str, rivals)), parsed)
    return score_transcripts(ids, references, parsed)


def _parse_label_set(prediction: Prediction) -> tuple[Any, str]:
    final = final_answer(prediction.answer)
    if final is None:
        return CUT
    labels = parse_labels(final)
    return (labels, "listed") if labels else INVALID


def _fill(parsed: Sequence[T | None], default: T) -> list[T]:
    """Return the parsed answers, with a default for invalid ones."""
    return [answer or default for answer in parsed]
