"""A page of cards: what was seen and heard, asked and answered; static, and asking nobody for anything."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omnihuman.benchmark.base import Prediction
from omnihuman.evaluation.folder import Evaluation
from omnihuman.evaluation.tables import Table
from omnihuman.metric.score import Score

Bars = list[tuple[str, float, str]]
"""Name, share of the full width (0 to 1), number in words."""


@dataclass(frozen=True)
class Card:
    """What a card shows.

    Attributes:
        id: of the question.
        group: of the question.
        label: the class that is true, where there are classes.
        prompt: the user's words.
        before: turns before.
        truth: in words.
        answer: the model's own words.
        parsed: what they mean, where that differs from the words.
        rule: by which they were read.
        state: ``right``, ``wrong``, ``invalid``, ``not asked``, ``text``.
        error: why it was not asked.
        lacking: slots that the file could not fill.
        other: the answer of the evaluation that this one is compared with.
        disagrees: with it.
        bars: title -> weights of a fusion, or probabilities of the options.
        notes: name -> words: the figures of this answer, what a judge said.
        pictures: kind -> file, relative to the page.
        sound: file, relative to the page.
        clip: file and times of the medium.
    """

    id: str
    group: str
    label: str
    prompt: str
    before: tuple[tuple[str, str], ...]
    truth: str
    answer: str
    parsed: str
    rule: str
    state: str
    error: str
    lacking: tuple[str, ...]
    other: str | None
    disagrees: bool
    bars: Mapping[str, Bars] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    sound: str = ""
    clip: str = ""


def cards_of(
    evaluation: Evaluation, scores: Sequence[Score], baseline: Evaluation | None = None, publish: bool = False,
    most: int | None = None,
) -> list[Card]:  # fmt: skip
    """A card for each of the first ``most`` answers, those with kept media before the others.

    Args:
        evaluation: whose answers.
        scores: theirs; what a single answer got is shown where answers are free text.
        baseline: another evaluation of the same benchmark, whose answers stand beside.
        publish: ids in the place of frames, sound and files.
        most: cards; ``None`` for all.

    Raises:
        ValueError: the baseline is of another benchmark.
    """
    others: dict[str, tuple[Prediction, Any]] = {}
    if baseline is not None:
        if baseline.benchmark.name != evaluation.benchmark.name:
            names = (
                f"{baseline.folder} answers {baseline.benchmark.name}, {evaluation.folder} {evaluation.benchmark.name}"
            )
            raise ValueError(f"baseline: {names}; give an evaluation of the same benchmark.")
        pairs = zip(baseline.predictions, baseline.parsed, strict=True)
        others = {prediction.id: (prediction, parsed) for prediction, (parsed, _) in pairs}
    noted = _notes(evaluation, scores)
    order = sorted(range(len(evaluation.predictions)), key=lambda i: "card" not in evaluation.predictions[i].meta)
    return [_card(evaluation, index, others, noted, publish) for index in order[:most]]


def page(
    file: Path, evaluation: Evaluation, report: Mapping[str, Any], tables: Sequence[Table], cards: Sequence[Card],
    pictures: Sequence[tuple[str, str]], baseline: str = "",
) -> None:  # fmt: skip
    """Write the page.

    Args:
        file: of the page.
        evaluation: what it is about.
        report: what ``metrics.json`` holds.
        tables: above the cards.
        cards: see ``cards_of``.
        pictures: (title, file beside the page).
        baseline: name of the evaluation that the cards compare with.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("omnihuman.evaluation") / "cards.html.j2").read_text(encoding="utf-8"))
    html = template.render(
        report=report,
        tables=tables,
        cards=cards,
        pictures=pictures,
        baseline=baseline,
        total=len(evaluation.predictions),
        labels=[label for label in evaluation.benchmark.labels if any(card.label == label for card in cards)],
        groups=list(dict.fromkeys(card.group for card in cards if card.group)),
        states=[state for state in ("wrong", "invalid", "not asked", "right") if any(c.state == state for c in cards)],
    )
    file.write_text(html, encoding="utf-8")


def _card(
    evaluation: Evaluation, index: int, others: Mapping[str, tuple[Prediction, Any]],
    noted: Mapping[str, Mapping[str, str]], publish: bool,
) -> Card:  # fmt: skip
    asked, truth = evaluation.predictions[index], evaluation.truths[index]
    parsed, rule = evaluation.parsed[index]
    right = evaluation.right[index]
    state = "not asked" if asked.answer is None else "invalid" if parsed is None else "text"
    if state == "text" and right is not None:
        state = "right" if right else "wrong"
    other = others.get(asked.id)
    kept = {} if publish else asked.meta.get("card", {})
    shown = {kind: found for kind, name in kept.items() if (found := _beside(evaluation.folder, name))}
    media = asked.media
    end = media.get("end")
    times = f", {media.get('start') or 0:g} to {end:g} s" if end is not None else ""
    return Card(
        asked.id,
        asked.group,
        str(truth) if evaluation.benchmark.labels else "",
        asked.prompt,
        asked.before,
        _words(truth),
        asked.answer or "",
        _words(parsed) if parsed is not None and _words(parsed) != (asked.answer or "").strip() else "",
        rule,
        state,
        "" if publish else asked.error or "",
        asked.lacking,
        None if other is None else other[0].answer or "(not asked)",
        other is not None and other[1] != parsed,
        _bars(asked),
        noted.get(asked.id, {}),
        {kind: shown[kind] for kind in ("frames", "faces") if kind in shown},
        shown.get("sound", ""),
        "" if publish or not media.get("file") else f"{media['file']}{times}",
    )


def _beside(folder: Path, name: Any) -> str:
    """A kept file as the page may link it; nothing where it is not there or lies elsewhere."""
    file = (folder / str(name)).resolve()
    inside = file.is_relative_to(folder.resolve()) and file.is_file()
    return quote(file.relative_to(folder.resolve()).as_posix()) if inside else ""


def _words(value: Any) -> str:
    """A truth or a parsed answer, as a person reads it."""
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, sorted(value) if isinstance(value, set | frozenset) else value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _bars(asked: Prediction) -> dict[str, Bars]:
    """Weights of fusions, and what the options' log-probabilities make of them."""
    bars: dict[str, Bars] = {}
    for fusion, streams in asked.weights.items():
        most = max(1.0, *map(abs, streams.values())) if streams else 1.0
        bars[fusion] = [(stream, abs(weight) / most, f"{weight:.2f}") for stream, weight in streams.items()]
    if asked.log_probs and len(asked.log_probs) == len(asked.options):
        highest = max(asked.log_probs)
        odds = [math.exp(value - highest) for value in asked.log_probs]
        bars["options"] = [
            (option, one / sum(odds), f"{100 * one / sum(odds):.0f} % ({value:.2f})")
            for option, one, value in zip(asked.options, odds, asked.log_probs, strict=True)
        ]
    return bars


def _notes(evaluation: Evaluation, scores: Sequence[Score]) -> dict[str, dict[str, str]]:
    """Id -> score -> what this answer alone got, where answers are free text; and what the benchmark remarks."""
    notes: dict[str, dict[str, str]] = {prediction.id: {} for prediction in evaluation.predictions}
    for score in scores:
        if score.numerators.shape[1] == 1 and None in evaluation.right:
            for name, above, below in zip(score.ids, score.numerators[:, 0], score.denominators[:, 0], strict=True):
                if below > 0 and name in notes:
                    notes[name][score.name] = f"{score.scale * above / below:.3g}"
    remarks = getattr(evaluation.benchmark, "remarks", None)
    if remarks is not None:
        for prediction in evaluation.predictions:
            notes[prediction.id] |= {str(key): str(value) for key, value in remarks(prediction).items()}
    return notes
