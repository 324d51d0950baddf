"""Judge texts for benchmarks: texts in, scores or labels per text out, ``None`` where the judge failed."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from statistics import fmean, stdev
from typing import Any, TypeVar

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.protocols import (
    CLUES,
    ENTAILMENT,
    EVENTS,
    EXTRACTION,
    GROUPING,
    GROUPING_LAST_WINS,
    LABEL_OVERLAP,
    SAME_PERSON,
    STATES,
    VIDEO_CHATGPT,
)

ASPECTS = ("correctness", "detail", "context", "temporal")
"""Video-ChatGPT's scores of a single answer; the fifth, consistency, compares two."""

T = TypeVar("T")
Counts = tuple[int, int, int, int]
"""Entailed and all events of an answer, entailed and all events of its reference."""


def judge_video_chatgpt(
    judge: Judge,
    questions: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    aspects: Sequence[str] = ASPECTS,
) -> dict[str, list[float | None]]:
    """Answers about videos -> aspect -> a score of 0 to 5 per answer.

    Reference: Video-ChatGPT's scores as DFEC uses them: the caption prompt is the question, the reference caption the
    reference answer, one call per aspect.

    >>> from omnihuman.judge.rule import RuleJudge
    >>> judge_video_chatgpt(RuleJudge(), ["What?"], ["a man waves"], ["a man waves"], ["detail"])
    {'detail': [5.0]}
    """
    items = []
    for question, reference, answer in zip(questions, references, answers, strict=True):
        items.append({"question": question, "reference": reference, "answer": answer})
    return {aspect: _query_scores(judge, VIDEO_CHATGPT[aspect], items) for aspect in aspects}


def judge_consistency(
    judge: Judge, questions: Sequence[tuple[str, str]], references: Sequence[str], answers: Sequence[tuple[str, str]]
) -> list[float | None]:
    """Answers to two phrasings of a question -> a score of 0 to 5 per pair."""
    items = []
    for (question, other_question), reference, (answer, other_answer) in zip(
        questions, references, answers, strict=True
    ):
        item = {"question": question, "other_question": other_question, "reference": reference}
        items.append(item | {"answer": answer, "other_answer": other_answer})
    return _query_scores(judge, VIDEO_CHATGPT["consistency"], items)


def judge_clue_overlap(judge: Judge, references: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """Descriptions of an emotional state -> agreement of their clues with the reference, 1 to 10 (EMER)."""
    return _query_scores(judge, CLUES, _pair_items(references, answers))


def judge_label_overlap(judge: Judge, references: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """Descriptions of an emotional state -> agreement of their emotions with the reference, 1 to 10.

    Reference: EMER's label overlap: two calls name the emotions, one compares them. Differs from it: each list is
    sorted, so that equal lists are one question.
    """

    def judge_once(repeat: int) -> list[float | None]:
        verdicts = judge.query(STATES, [{"text": text} for text in (*references, *answers)], repeat)
        labels = _read_replies(verdicts, lambda reply: sorted(reply.labels))
        items: list[Item] = []
        is_judged = []
        for first, second in zip(labels[: len(references)], labels[len(references) :], strict=True):
            is_judged.append(first is not None and second is not None)
            if is_judged[-1]:
                items.append({"reference": first, "answer": second})
        scores = iter(_read_replies(judge.query(LABEL_OVERLAP, items, repeat), _read_score))
        return [next(scores) if judged else None for judged in is_judged]

    return _mean_over_repeats(judge, LABEL_OVERLAP.name, judge_once)


def judge_autodq(
    judge: Judge,
    references: Sequence[str],
    answers: Sequence[str],
    events: Sequence[Sequence[str] | None] | None = None,
) -> list[Counts | None]:
    """Descriptions -> (entailed, all) events of the answer and (entailed, all) events of the reference, per answer.

    Precision is the ratio of the first two, recall that of the last two, 1 without events; the score is the F1 of mean
    precision and mean recall. Counts are summed over repeats.

    Reference: AutoDQ (Tarsier, arXiv 2407.00634): texts in lower case; only entailed events count.
    Differs from it: an empty text has no events and entails none, without a call.

    Args:
        judge: to query.
        references: reference descriptions.
        answers: of the model.
        events: of the references, where the annotation has them.

    >>> from omnihuman.judge.rule import RuleJudge
    >>> judge_autodq(RuleJudge(), ["A man waves. He sits."], ["A man waves."])
    [(1, 1, 1, 2)]
    """
    annotated: Sequence[Sequence[str] | None] = [None] * len(references)
    if events is not None:
        annotated = events
    reference_texts = [text.lower() for text in references]
    answer_texts = [text.lower() for text in answers]
    repeats = []
    for repeat in range(judge.repeats):
        repeats.append(_judge_events(judge, reference_texts, answer_texts, annotated, repeat))
    return [_sum_counts(counts) for counts in zip(*repeats, strict=True)]


def _judge_events(
    judge: Judge,
    references: list[str],
    answers: list[str],
    annotated: Sequence[Sequence[str] | None],
    repeat: int,
) -> list[Counts | None]:
    """Extract the events of both texts and count those that the other text entails."""
    unannotated = [index for index, events in enumerate(annotated) if events is None]
    unannotated_texts = [references[index] for index in unannotated]
    extracted = _query_nonempty(judge, EVENTS, "events", [*unannotated_texts, *answers], repeat)
    answer_events = extracted[len(unannotated) :]
    reference_events = [None if events is None else list(events) for events in annotated]
    for index, events in zip(unannotated, extracted, strict=False):
        reference_events[index] = events
    entailed = _count_entailed(judge, [*references, *answers], [*answer_events, *reference_events], repeat)
    correct, covered = entailed[: len(references)], entailed[len(references) :]
    counts: list[Counts | None] = []
    for row in zip(correct, answer_events, covered, reference_events, strict=True):
        counts.append(_count_events(*row))
    return counts


def _count_events(
    correct: int | None, predicted: list[str] | None, covered: int | None, true: list[str] | None
) -> Counts | None:
    if correct is None or predicted is None or covered is None or true is None:
        return None
    return correct, len(predicted), covered, len(true)


def _sum_counts(counts: Sequence[Counts | None]) -> Counts | None:
    judged = [count for count in counts if count is not None]
    if not judged:
        return None
    correct, predicted, covered, true = (sum(column) for column in zip(*judged, strict=True))
    return correct, predicted, covered, true


def extract_labels(judge: Judge, answers: Sequence[str]) -> list[list[str] | None]:
    """Free-form answers -> the emotion labels in each, lower case, unique; not repeated (EMER-OV)."""
    replies = _query_nonempty(judge, EXTRACTION, "labels", answers)
    return [None if labels is None else _normalize(labels) for labels in replies]


def judge_same_person(judge: Judge, descriptions: Sequence[tuple[str, str]]) -> list[bool | None]:
    """Pairs of descriptions of a face -> whether both are of one person; not repeated (FaVChat, table 5).

    >>> from omnihuman.judge.rule import RuleJudge
    >>> judge_same_person(RuleJudge(), [("a bald man", "a man, bald"), ("a bald man", "a young girl")])
    [True, False]
    """
    items = [{"first": first, "second": second} for first, second in descriptions]
    return _read_replies(judge.query(SAME_PERSON, items), attrgetter("same"))


def group_labels(
    judge: Judge,
    references: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    compat_last_wins: bool = False,
) -> list[list[list[str]] | None]:
    """Label sets -> groups of synonyms among all labels of a question, lower case; not repeated.

    Reference: EMER-OV's grouping (MERTools), question by question. Differs from it: labels are sent in alphabetical
    order (there in the order of Python's hashes), and a single label is not sent.

    Args:
        judge: to query.
        references: reference labels.
        answers: predicted labels.
        compat_last_wins: a label that the judge puts into several groups counts for the last, not the first.

    >>> from omnihuman.judge.rule import RuleJudge
    >>> group_labels(RuleJudge(), [["Sad"]], [["happy", "sad"]])
    [[['happy'], ['sad']]]
    """
    groups: list[list[list[str]] | None] = []
    items: list[Item] = []
    for reference, answer in zip(references, answers, strict=True):
        labels = sorted(_normalize([*reference, *answer]))
        groups.append([labels] if labels else [])
        if len(labels) > 1:
            items.append({"labels": labels})
    protocol = GROUPING_LAST_WINS if compat_last_wins else GROUPING
    replies = iter(_read_replies(judge.query(protocol, items), lambda reply: reply.groups))
    for index, group in enumerate(groups):
        if group and len(group[0]) > 1:
            groups[index] = next(replies)
    return groups


def _normalize(labels: Sequence[str]) -> list[str]:
    stripped = (label.strip().lower() for label in labels)
    return list(dict.fromkeys(filter(None, stripped)))


def _pair_items(references: Sequence[str], answers: Sequence[str]) -> list[Item]:
    pairs = zip(references, answers, strict=True)
    return [{"reference": reference, "answer": answer} for reference, answer in pairs]


def _read_replies(verdicts: Sequence[Verdict | None], read: Callable[[Any], T]) -> list[T | None]:
    """Read a value from each reply; ``None`` where the judge failed."""
    return [None if verdict is None else read(verdict.reply) for verdict in verdicts]


def _read_score(reply: Any) -> float:
    return float(reply.score)


def _query_scores(judge: Judge, protocol: Protocol, items: Sequence[Item]) -> list[float | None]:
    def judge_once(repeat: int) -> list[float | None]:
        return _read_replies(judge.query(protocol, items, repeat), _read_score)

    return _mean_over_repeats(judge, protocol.name, judge_once)


def _mean_over_repeats(
    judge: Judge, protocol: str, judge_once: Callable[[int], list[float | None]]
) -> list[float | None]:
    """Return the mean score of each item over the repeats; the spread of the repeats' means goes to the ledger."""
    repeats = [judge_once(repeat) for repeat in range(judge.repeats)]
    means: list[float | None] = []
    complete = []
    for scores in zip(*repeats, strict=True):
        judged = [score for score in scores if score is not None]
        means.append(fmean(judged) if judged else None)
        if len(judged) == judge.repeats:
            complete.append(judged)
    if judge.repeats > 1 and complete:
        judge.ledger.spread[protocol] = stdev(fmean(scores) for scores in zip(*complete, strict=True))
    return means


def _query_nonempty(
    judge: Judge, protocol: Protocol, field: str, texts: Sequence[str], repeat: int = 0
) -> list[list[str] | None]:
    """Query texts and return a field of each reply; an empty text has an empty list, without a query."""
    items = [{"text": text} for text in texts if text.strip()]
    replies = iter(_read_replies(judge.query(protocol, items, repeat), attrgetter(field)))
    return [next(replies) if text.strip() else [] for text in texts]


def _count_entailed(
    judge: Judge, texts: Sequence[str], events: Sequence[list[str] | None], repeat: int
) -> list[int | None]:
    """Return how many of the events each text entails."""
    counts: list[int | None] = [None if names is None else 0 for names in events]
    indices = [index for index, names in enumerate(events) if names and texts[index].strip()]
    items = [{"text": texts[index], "events": events[index]} for index in indices]
    entailed = _read_replies(judge.query(ENTAILMENT, items, repeat), _count_entailments)
    for index, count in zip(indices, entailed, strict=True):
        counts[index] = count
    return counts


def _count_entailments(reply: Any) -> int:
    return sum(relation.relationship == "entailment" for relation in reply.events)
