"""A static page with the answers of several evaluations to the same questions, side by side, in one file."""

import base64
import mimetypes
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omnihuman.evaluation.cards import Card, build_cards, find_thumbnails
from omnihuman.evaluation.folder import Evaluation, load_evaluation
from omnihuman.evaluation.page import intersect, render_page
from omnihuman.metric.answer import fold
from omnihuman.metric.score import Score

AGREEMENTS = ("some right", "wrong, not alike", "not alike", "all right", "wrong, alike", "alike")
"""Relations between the answers to one question, in the order of the page; free text is ``not alike`` or ``alike``."""


@dataclass(frozen=True)
class Comparison:
    """A question with its answers.

    Attributes:
        cards: one per evaluation.
        agreement: of the answers, one of ``AGREEMENTS``.
        spread: between the best and the worst headline score of an answer of free text; else 0.
        media: kind -> file of a thumbnail.
    """

    cards: tuple[Card, ...]
    agreement: str
    spread: float = 0.0
    media: Mapping[str, Path] = field(default_factory=dict)

    @property
    def images(self) -> dict[str, str]:
        """Kind -> URL with the data, ``frames`` and ``faces``."""
        return {kind: _encode(file) for kind, file in self.media.items() if kind != "audio"}

    @property
    def audio(self) -> str:
        """URL with the data; empty without audio."""
        return _encode(self.media["audio"]) if "audio" in self.media else ""

    @property
    def question(self) -> Card:
        """The card of the first evaluation, for what all have in common."""
        return self.cards[0]

    @property
    def has_one_prompt(self) -> bool:
        """True if all were asked in the same words; a converted model is asked in those of its authors."""
        return len({card.prompt for card in self.cards}) == 1


@dataclass(frozen=True)
class Summary:
    """An evaluation among the others.

    Attributes:
        name: run and view, with the size or the folder where these do not tell it from the others.
        score: the headline score with its name; empty without one.
        num_right: right answers; ``None`` for free text.
        num_alone: right answers to questions that all other evaluations answer wrong; ``None`` for free text.
    """

    name: str
    score: str
    num_right: int | None
    num_alone: int | None


def write_gallery(
    file: Path, folders: Sequence[Path], publish: bool = False, max_cards: int | None = None
) -> dict[str, int]:
    """Write a page of evaluations of the same questions, those first whose answers differ.

    It reads only the folders: no model, no data of the benchmark. The page has the frames and the audio that
    ``evaluate`` saved for its first questions.

    Args:
        file: of the page.
        folders: of two evaluations or more.
        publish: leave out frames, audio and file names.
        max_cards: number of questions; ``None`` for all.

    Returns:
        Agreement of the answers -> number of questions, of all of them.

    Raises:
        ValueError: a folder is invalid or named twice, or the questions are not the same.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < max(2, len(paths)):
        raise ValueError(f"gallery=[{','.join(map(str, folders))}]: name two different evaluations or more.")
    evaluations = [load_evaluation(folder) for folder in folders]
    for other in evaluations[1:]:
        check_same_questions(evaluations[0], other)
    scores = [evaluation.benchmark.scores(evaluation.predictions) for evaluation in evaluations]
    comparisons = compare_answers(evaluations, scores, publish)
    counts = Counter(comparison.agreement for comparison in comparisons)
    cards = [comparison.question for comparison in comparisons[:max_cards]]
    page = render_page(
        "gallery.html.j2",
        benchmark=evaluations[0].benchmark.name,
        summaries=summarize(evaluations, scores),
        comparisons=comparisons[:max_cards],
        total=len(comparisons),
        counts={agreement: counts[agreement] for agreement in intersect(AGREEMENTS, set(counts))},
        labels=intersect(evaluations[0].benchmark.labels, {card.label for card in cards}),
        groups=list(dict.fromkeys(card.group for card in cards if card.group)),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return dict(counts)


def check_same_questions(first: Evaluation, other: Evaluation) -> None:
    """Check that two evaluations are of the same questions; their prompts and views may differ.

    Raises:
        ValueError: they are not.
    """
    names = [evaluation.benchmark.name for evaluation in (first, other)]
    if names[0] != names[1]:
        raise ValueError(
            f"gallery: {first.folder} is an evaluation of {names[0]}, {other.folder} of {names[1]}; choose evaluations "
            "of one benchmark, for runs by benchmark=<name>."
        )
    expected = {prediction.id: prediction for prediction in first.predictions}
    shared = [prediction for prediction in other.predictions if prediction.id in expected]
    if not len(shared) == len(expected) == len(other.predictions):
        parts = []
        for evaluation in (first, other):
            reason = evaluation.incomplete_reason
            parts.append(f"{evaluation.folder} has {len(evaluation.predictions)}{f' ({reason})' if reason else ''}")
        raise ValueError(
            f"gallery: the questions are not the same: {', '.join(parts)}, and {len(shared)} are in both; evaluate "
            "both with the same benchmark options and limit."
        )
    for prediction in shared:
        question = expected[prediction.id]
        if (prediction.reference, prediction.options) != (question.reference, question.options):
            raise ValueError(
                f"gallery: {prediction.id} has another reference or other options in {other.folder} than in "
                f"{first.folder}; evaluate both on the same files."
            )


def compare_answers(
    evaluations: Sequence[Evaluation], scores: Sequence[Sequence[Score]], publish: bool = False
) -> list[Comparison]:
    """Return the questions with their answers in the order of ``AGREEMENTS``, those with media first in each.

    Of free text, those with the widest spread of scores come first.

    Args:
        evaluations: of the same questions.
        scores: of each evaluation.
        publish: leave out frames, audio and file names.
    """
    columns: list[dict[str, Card]] = []
    for evaluation, evaluation_scores in zip(evaluations, scores, strict=True):
        cards = build_cards(evaluation, evaluation_scores, publish=publish)
        columns.append({card.id: card for card in cards})
    values = [_list_values(evaluation_scores) for evaluation_scores in scores]
    media = {} if publish else _find_media(evaluations)
    comparisons = []
    for prediction in evaluations[0].predictions:
        name = prediction.id
        answers = tuple(column[name] for column in columns)
        agreement, spread = find_agreement(answers), 0.0
        if agreement == "not alike":
            numbers = [value[name] for value in values if name in value]
            spread = max(numbers, default=0.0) - min(numbers, default=0.0)
        comparisons.append(Comparison(answers, agreement, spread, media.get(name, {})))
    return sorted(comparisons, key=_order)


def find_agreement(cards: Sequence[Card]) -> str:
    """Return how answers to one question compare, one of ``AGREEMENTS``; case and outer punctuation do not count."""
    is_alike = len({(card.state, fold(card.parsed or card.answer)) for card in cards}) == 1
    alike = "alike" if is_alike else "not alike"
    states = [card.state for card in cards]
    if "text" in states:
        return alike
    if "right" not in states:
        return f"wrong, {alike}"
    return "all right" if set(states) == {"right"} else "some right"


def summarize(evaluations: Sequence[Evaluation], scores: Sequence[Sequence[Score]]) -> list[Summary]:
    """Return the rows of the table above the questions.

    Args:
        evaluations: of the same questions.
        scores: of each evaluation.
    """
    right = []
    for evaluation in evaluations:
        answers = zip(evaluation.predictions, evaluation.correct, strict=True)
        right.append({prediction.id for prediction, is_correct in answers if is_correct})
    summaries = []
    for index, (name, evaluation) in enumerate(zip(_name_evaluations(evaluations), evaluations, strict=True)):
        headline = scores[index][0] if scores[index] else None
        score = f"{headline.name} {headline.value:.2f}" if headline else ""
        num_right, num_alone = None, None
        if None not in evaluation.correct:
            alone = right[index].difference(*right[:index], *right[index + 1 :])
            num_right, num_alone = len(right[index]), len(alone)
        summaries.append(Summary(name, score, num_right, num_alone))
    return summaries


def _name_evaluations(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return run and view of evaluations, then the size, then the folder, as far as they are needed to differ."""
    names = [f"{evaluation.run}, {evaluation.view}" for evaluation in evaluations]
    sizes = [f"{name} ({evaluation.config.get('size')})" for name, evaluation in zip(names, evaluations, strict=True)]
    folders = [f"{name}: {evaluation.folder}" for name, evaluation in zip(names, evaluations, strict=True)]
    return next((texts for texts in (names, sizes) if len(set(texts)) == len(texts)), folders)


def _list_values(scores: Sequence[Score]) -> dict[str, float]:
    """Return id -> headline score of its answer; empty where the score is no plain ratio (one column)."""
    if not scores or scores[0].numerators.shape[1] != 1:
        return {}
    values: dict[str, float] = {}
    for name, numerator, denominator in zip(
        scores[0].ids, scores[0].numerators[:, 0], scores[0].denominators[:, 0], strict=True
    ):
        if denominator > 0:
            values[name] = float(numerator / denominator)
    return values


def _find_media(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Path]]:
    """Return id -> kind -> thumbnail, of the first evaluation that has one of the kind."""
    media: dict[str, dict[str, Path]] = {}
    for evaluation in evaluations:
        for prediction in evaluation.predictions:
            files = find_thumbnails(evaluation.folder, prediction)
            media[prediction.id] = files | media.get(prediction.id, {})
    return media


def _encode(file: Path) -> str:
    mime = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return f"data:{mime};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _order(comparison: Comparison) -> tuple[int, bool, float]:
    return AGREEMENTS.index(comparison.agreement), not comparison.media, -comparison.spread
