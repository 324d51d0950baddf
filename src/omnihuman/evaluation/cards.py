"""A static page with a card per answer: media, question, answer and weights; it loads nothing from the network."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.folder import UNANSWERED, Evaluation
from omnihuman.evaluation.page import intersect, render_page
from omnihuman.evaluation.tables import Table
from omnihuman.metric.score import Score

STATES = ("wrong", "invalid", UNANSWERED, "right")
"""States of a card, in the order of the page's filter; free text is ``text``."""

Bars = list[tuple[str, float, str]]
"""Name, share of the full width (0 to 1), printed number."""


@dataclass(frozen=True)
class Card:
    """The content of a card.

    Attributes:
        id: of the question.
        group: of the question.
        label: the reference's class, empty where there are no classes.
        prompt: the user's text.
        earlier_turns: (prompt, answer) of the turns before.
        reference: as text.
        answer: the model's text.
        parsed: the parsed answer, empty where it equals the text.
        rule: of the parser.
        state: ``right``, ``wrong``, ``invalid``, ``unanswered`` or ``text``.
        error: why there is no answer.
        missing_slots: slots that the file could not fill.
        baseline_answer: the baseline's answer, ``None`` without a baseline.
        disagrees: the baseline's parsed answer is another one.
        bars: title -> weights of a fusion, or probabilities of the options.
        notes: name -> text: scores of this answer, a judge's remarks.
        images: kind -> file, relative to the page.
        audio: file, relative to the page.
        clip: file and times of the medium.
    """

    id: str
    group: str
    label: str
    prompt: str
    earlier_turns: tuple[tuple[str, str], ...]
    reference: str
    answer: str
    parsed: str
    rule: str
    state: str
    error: str
    missing_slots: tuple[str, ...]
    baseline_answer: str | None
    disagrees: bool
    bars: Mapping[str, Bars] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    audio: str = ""
    clip: str = ""


def build_cards(
    evaluation: Evaluation,
    scores: Sequence[Score],
    baseline: Evaluation | None = None,
    publish: bool = False,
    max_cards: int | None = None,
) -> list[Card]:
    """Return a card per answer, those with thumbnails first.

    Args:
        evaluation: with the answers.
        scores: of the evaluation; cards of free text show the score of their answer.
        baseline: another evaluation of the same benchmark, whose answers are shown as well.
        publish: leave out frames, audio and file names.
        max_cards: number of cards; ``None`` for all.

    Raises:
        ValueError: the baseline is of another benchmark.
    """
    baseline_answers: dict[str, tuple[str, Any]] = {}
    if baseline is not None:
        _check_baseline(evaluation, baseline)
        for prediction, (value, _) in zip(baseline.predictions, baseline.parsed, strict=True):
            baseline_answers[prediction.id] = (prediction.answer or f"({UNANSWERED})", value)
    notes = _collect_notes(evaluation, scores)
    order = sorted(
        range(len(evaluation.predictions)), key=lambda index: "card" not in evaluation.predictions[index].meta
    )
    cards = []
    for index in order[:max_cards]:
        name = evaluation.predictions[index].id
        cards.append(_build_card(evaluation, index, notes.get(name, {}), baseline_answers.get(name), publish))
    return cards


def write_page(
    file: Path,
    evaluation: Evaluation,
    report: Mapping[str, Any],
    tables: Sequence[Table],
    cards: Sequence[Card],
    charts: Sequence[tuple[str, str]],
    baseline: str = "",
) -> None:
    """Write the page.

    Args:
        file: of the page.
        evaluation: that the page reports.
        report: content of ``metrics.json``.
        tables: above the cards.
        cards: see ``build_cards``.
        charts: (title, file beside the page).
        baseline: name of the evaluation that the cards compare with.
    """
    labels, states = {card.label for card in cards}, {card.state for card in cards}
    html = render_page(
        "cards.html.j2",
        report=report,
        tables=tables,
        cards=cards,
        charts=charts,
        baseline=baseline,
        total=len(evaluation.predictions),
        labels=intersect(evaluation.benchmark.labels, labels),
        groups=list(dict.fromkeys(card.group for card in cards if card.group)),
        states=intersect(STATES, states),
    )
    file.write_text(html, encoding="utf-8")


def _check_baseline(evaluation: Evaluation, baseline: Evaluation) -> None:
    benchmark, expected = baseline.benchmark.name, evaluation.benchmark.name
    if benchmark != expected:
        raise ValueError(f"baseline: {baseline.folder} is an evaluation of {benchmark}; expected {expected}.")


def _build_card(
    evaluation: Evaluation,
    index: int,
    notes: Mapping[str, str],
    baseline_answer: tuple[str, Any] | None,
    publish: bool,
) -> Card:
    prediction, reference = evaluation.predictions[index], evaluation.references[index]
    value, rule = evaluation.parsed[index]
    label, clip, error = "", "", ""
    thumbnails: dict[str, str] = {}
    if evaluation.benchmark.labels:
        label = str(reference)
    if not publish:
        clip, error = _format_clip(prediction.media), prediction.error or ""
        thumbnails = _link_thumbnails(evaluation.folder, prediction)
    answer, parsed = prediction.answer or "", ""
    if value is not None and _format_value(value) != answer.strip():
        parsed = _format_value(value)
    other_answer, disagrees = None, False
    if baseline_answer is not None:
        other_answer, other_value = baseline_answer
        disagrees = other_value != value
    return Card(
        id=prediction.id,
        group=prediction.group,
        label=label,
        prompt=prediction.prompt,
        earlier_turns=prediction.previous_turns,
        reference=_format_value(reference),
        answer=answer,
        parsed=parsed,
        rule=rule,
        state=_determine_state(evaluation, index),
        error=error,
        missing_slots=prediction.missing_slots,
        baseline_answer=other_answer,
        disagrees=disagrees,
        bars=_build_bars(prediction),
        notes=notes,
        audio=thumbnails.pop("audio", ""),
        images=thumbnails,
        clip=clip,
    )


def _determine_state(evaluation: Evaluation, index: int) -> str:
    value, _ = evaluation.parsed[index]
    correct = evaluation.correct[index]
    if evaluation.predictions[index].answer is None:
        return UNANSWERED
    if value is None:
        return "invalid"
    if correct is None:
        return "text"
    return "right" if correct else "wrong"


def _format_clip(media: Mapping[str, Any]) -> str:
    """Return file and times of a clip, ``clips/1.mp4, 0 to 2.5 s``."""
    if not media.get("file"):
        return ""
    if media.get("end") is None:
        return str(media["file"])
    return f"{media['file']}, {media.get('start') or 0:g} to {media['end']:g} s"


def find_thumbnails(folder: Path, prediction: Prediction) -> dict[str, Path]:
    """Return kind -> file of the thumbnails; predictions may be anyone's, so files outside the folder are left out.

    Args:
        folder: of the evaluation.
        prediction: of it.
    """
    root, files = folder.resolve(), {}
    for kind, name in prediction.meta.get("card", {}).items():
        file = (root / str(name)).resolve()
        if kind in ("frames", "faces", "audio") and file.is_relative_to(root) and file.is_file():
            files[kind] = file
    return files


def _link_thumbnails(folder: Path, prediction: Prediction) -> dict[str, str]:
    """Return kind -> URL of the thumbnails, relative to the folder."""
    links = {}
    for kind, file in find_thumbnails(folder, prediction).items():
        links[kind] = quote(file.relative_to(folder.resolve()).as_posix())
    return links


def _format_value(value: Any) -> str:
    """Return a reference or a parsed answer as text."""
    if isinstance(value, set | frozenset):
        return ", ".join(map(str, sorted(value)))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _build_bars(prediction: Prediction) -> dict[str, Bars]:
    """Return the weights of the fusions and the probabilities of the options."""
    bars: dict[str, Bars] = {}
    for fusion, weights in prediction.weights.items():
        largest = max(1.0, *map(abs, weights.values())) if weights else 1.0
        bars[fusion] = [(stream, abs(weight) / largest, f"{weight:.2f}") for stream, weight in weights.items()]
    if prediction.log_probs and len(prediction.log_probs) == len(prediction.options):
        bars["options"] = []
        largest = max(prediction.log_probs)  # subtracted, so that no exponential underflows
        total = sum(math.exp(log_prob - largest) for log_prob in prediction.log_probs)
        for option, log_prob in zip(prediction.options, prediction.log_probs, strict=True):
            share = math.exp(log_prob - largest) / total
            bars["options"].append((option, share, f"{100 * share:.0f} % ({log_prob:.2f})"))
    return bars


def _collect_notes(evaluation: Evaluation, scores: Sequence[Score]) -> dict[str, dict[str, str]]:
    """Return id -> name -> note: scores of single answers where answers are free text, and the benchmark's remarks."""
    notes: dict[str, dict[str, str]] = {prediction.id: {} for prediction in evaluation.predictions}
    if None in evaluation.correct:
        for score in scores:
            _add_single_scores(notes, score)
    if hasattr(evaluation.benchmark, "remarks"):
        for prediction in evaluation.predictions:
            for key, remark in evaluation.benchmark.remarks(prediction).items():
                notes[prediction.id][str(key)] = str(remark)
    return notes


def _add_single_scores(notes: Mapping[str, dict[str, str]], score: Score) -> None:
    """Add what each answer contributes to a score that is a plain ratio (one column)."""
    if score.numerators.shape[1] != 1:
        return
    for name, numerator, denominator in zip(score.ids, score.numerators[:, 0], score.denominators[:, 0], strict=True):
        if denominator > 0 and name in notes:
            notes[name][score.name] = f"{score.scale * numerator / denominator:.3g}"
