"""What benchmarks want to know of a judge: texts in, figures or labels of each text out, ``None`` where it failed."""

from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.protocols import (
    CLUES,
    ENTAILMENT,
    EVENTS,
    EXTRACTION,
    GROUPING,
    GROUPING_LAST_WINS,
    LABEL_OVERLAP,
    STATES,
    VIDEO_CHATGPT,
)

ASPECTS = ("correctness", "detail", "context", "temporal")
"""Video-ChatGPT's scores of one answer; the fifth, consistency, is of two."""
Counts = tuple[int, int, int, int]


def video_chatgpt(
    judge: Judge, questions: Sequence[str], truths: Sequence[str], answers: Sequence[str],
    aspects: Sequence[str] = ASPECTS,
) -> dict[str, list[float | None]]:  # fmt: skip
    """Answers about videos -> aspect -> a score of 0 to 5 for each.

    Reference: Video-ChatGPT's scores as DFEC uses them: the caption prompt is the question, the reference caption the
    truth, one call an aspect.

    >>> from omnihuman.judge.rule import RuleJudge
    >>> video_chatgpt(RuleJudge(), ["What?"], ["a man waves"], ["a man waves"], ["detail"])
    {'detail': [5.0]}
    """
    items = [
        {"question": question, "truth": truth, "answer": answer}
        for question, truth, answer in zip(questions, truths, answers, strict=True)
    ]
    return {aspect: _scores(judge, VIDEO_CHATGPT[aspect], items) for aspect in aspects}


def consistency(
    judge: Judge, questions: Sequence[tuple[str, str]], truths: Sequence[str], answers: Sequence[tuple[str, str]]
) -> list[float | None]:
    """Answers to two wordings of a question -> a score of 0 to 5 for each pair."""
    items = [
        {"question": question, "other_question": other, "truth": truth, "answer": answer, "other_answer": other_answer}
        for (question, other), truth, (answer, other_answer) in zip(questions, truths, answers, strict=True)
    ]
    return _scores(judge, VIDEO_CHATGPT["consistency"], items)


def clue_overlap(judge: Judge, truths: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """Descriptions of an emotional state -> how far their clues agree with the truth's, 1 to 10 (EMER)."""
    items = [{"truth": truth, "answer": answer} for truth, answer in zip(truths, answers, strict=True)]
    return _scores(judge, CLUES, items)


def label_overlap(judge: Judge, truths: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """Descriptions of an emotional state -> how far the emotions in them agree with the truth's, 1 to 10.

    Reference: EMER's label overlap: two calls name the emotions, one compares them. Differs from it: each list is put
    in alphabetical order, so that equal lists are one question.
    """

    def once(repeat: int) -> list[float | None]:
        items = [{"text": text} for text in (*truths, *answers)]
        named = [sorted(verdict.reply.labels) if verdict else None for verdict in judge.ask(STATES, items, repeat)]
        pairs = list(zip(named[: len(truths)], named[len(truths) :], strict=True))
        both = [{"truth": truth, "answer": answer} for truth, answer in pairs if None not in (truth, answer)]
        scores = iter(_points(judge.ask(LABEL_OVERLAP, both, repeat)))
        return [None if None in pair else next(scores) for pair in pairs]

    return _repeated(judge, LABEL_OVERLAP.name, once)


def autodq(
    judge: Judge,
    truths: Sequence[str],
    answers: Sequence[str],
    events: Sequence[Sequence[str] | None] | None = None,
) -> list[Counts | None]:
    """Descriptions -> (entailed, all) events of the answer and (entailed, all) events of the truth, for each.

    Precision is the first two's ratio, recall the last two's, 1 where there are no events; the figure is the F1 of mean
    precision and mean recall. Over repeats counts add up.

    Reference: AutoDQ (Tarsier, arXiv 2407.00634): texts in lower case; an event counts only where it is entailed.
    Differs from it: an empty text has no events and entails none, without a call.

    Args:
        judge: who is asked.
        truths: reference descriptions.
        answers: of the model.
        events: of the truths, where the annotation has them.

    >>> from omnihuman.judge.rule import RuleJudge
    >>> autodq(RuleJudge(), ["A man waves. He sits."], ["A man waves."])
    [(1, 1, 1, 2)]
    """
    size = len(truths)
    given = list(events) if events is not None else [None] * size
    true_texts, texts = [text.lower() for text in truths], [text.lower() for text in answers]

    def once(repeat: int) -> list[Counts | None]:
        lacking = [number for number in range(size) if given[number] is None]
        found = _events(judge, [*(true_texts[number] for number in lacking), *texts], repeat)
        told = [None if one is None else list(one) for one in given]
        for number, one in zip(lacking, found, strict=False):
            told[number] = one
        said = found[len(lacking) :]
        entailed = _entailed(judge, [*true_texts, *texts], [*said, *told], repeat)
        outcome: list[Counts | None] = []
        for mine, right, theirs, covered in zip(said, entailed[:size], told, entailed[size:], strict=True):
            if mine is None or right is None or theirs is None or covered is None:
                outcome.append(None)
            else:
                outcome.append((right, len(mine), covered, len(theirs)))
        return outcome

    runs = [once(repeat) for repeat in range(judge.repeats)]
    added: list[Counts | None] = []
    for every in zip(*runs, strict=True):
        kept = [one for one in every if one is not None]
        a, b, c, d = (sum(one[k] for one in kept) for k in range(4))
        added.append((a, b, c, d) if kept else None)
    return added


def extract_labels(judge: Judge, answers: Sequence[str]) -> list[list[str] | None]:
    """Free answers -> the emotion labels in each, lower case, each once; repeats do not matter (EMER-OV)."""
    filled = [number for number, text in enumerate(answers) if text.strip()]
    labels: list[list[str] | None] = [[] for _ in answers]
    for number, verdict in zip(filled, judge.ask(EXTRACTION, [{"text": answers[n]} for n in filled]), strict=True):
        labels[number] = list(_plain(verdict.reply.labels)) if verdict else None
    return labels


def group_labels(
    judge: Judge, truths: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], compat_last_wins: bool = False
) -> list[list[list[str]] | None]:
    """Label sets -> groups of one meaning of all labels of a question, lower case; repeats do not matter.

    Reference: EMER-OV's grouping (MERTools), question by question. Differs from it: labels are asked in alphabetical
    order (there in that of Python's hashes), and a single one without a call.

    Args:
        judge: who is asked.
        truths: true labels.
        answers: predicted ones.
        compat_last_wins: a label that the judge puts into several groups counts for the last, not the first.

    >>> from omnihuman.judge.rule import RuleJudge
    >>> group_labels(RuleJudge(), [["Sad"]], [["happy", "sad"]])
    [[['happy'], ['sad']]]
    """
    unions = [sorted(_plain([*truth, *answer])) for truth, answer in zip(truths, answers, strict=True)]
    groups: list[list[list[str]] | None] = [[[label] for label in union] for union in unions]
    several = [number for number, union in enumerate(unions) if len(union) > 1]
    protocol = GROUPING_LAST_WINS if compat_last_wins else GROUPING
    for number, verdict in zip(several, judge.ask(protocol, [{"labels": unions[n]} for n in several]), strict=True):
        groups[number] = verdict.reply.groups if verdict else None
    return groups


def _plain(labels: Sequence[str]) -> dict[str, None]:
    return dict.fromkeys(label for raw in labels if (label := raw.strip().lower()))


def _points(verdicts: Sequence[Verdict | None]) -> list[float | None]:
    return [float(verdict.reply.score) if verdict else None for verdict in verdicts]


def _scores(judge: Judge, protocol: Protocol, items: Sequence[Item]) -> list[float | None]:
    return _repeated(judge, protocol.name, lambda repeat: _points(judge.ask(protocol, items, repeat)))


def _repeated(judge: Judge, name: str, once: Callable[[int], list[float | None]]) -> list[float | None]:
    """The mean of each item's scores over the repeats; how far the repeats' figures differ goes to the ledger."""
    runs = [once(repeat) for repeat in range(judge.repeats)]
    every = [[score for score in scores if score is not None] for scores in zip(*runs, strict=True)]
    complete = [scores for scores in every if len(scores) == judge.repeats]
    if judge.repeats > 1 and complete:
        judge.ledger.spread[name] = stdev(fmean(scores) for scores in zip(*complete, strict=True))
    return [fmean(scores) if scores else None for scores in every]


def _events(judge: Judge, texts: Sequence[str], repeat: int) -> list[list[str] | None]:
    filled = [number for number, text in enumerate(texts) if text.strip()]
    events: list[list[str] | None] = [[] for _ in texts]
    for number, verdict in zip(filled, judge.ask(EVENTS, [{"text": texts[n]} for n in filled], repeat), strict=True):
        events[number] = list(verdict.reply.events) if verdict else None
    return events


def _entailed(judge: Judge, texts: Sequence[str], events: Sequence[list[str] | None], repeat: int) -> list[int | None]:
    """How many of the events each text entails."""
    counts: list[int | None] = [None if told is None else 0 for told in events]
    asked = [number for number, told in enumerate(events) if told and texts[number].strip()]
    items = [{"text": texts[number], "events": events[number]} for number in asked]
    for number, verdict in zip(asked, judge.ask(ENTAILMENT, items, repeat), strict=True):
        entailed = [one for one in verdict.reply.events if one.relationship == "entailment"] if verdict else []
        counts[number] = len(entailed) if verdict else None
    return counts
