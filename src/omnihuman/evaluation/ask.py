"""Asking a benchmark: batched by length, shared among processes, and never the same question twice."""

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

from omnihuman.benchmark.base import MODALITIES, Benchmark, Prediction, Question
from omnihuman.data.dataset import Planned, Samples
from omnihuman.data.plan import Row
from omnihuman.data.record import TAGS, Record
from omnihuman.evaluation.answerer import Answer, Answerer
from omnihuman.evaluation.control import donors_of, seen_as_asked
from omnihuman.evaluation.folder import mend, read_predictions
from omnihuman.training.summary import peak_memory

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds to wait for a process that ends because the one that started it was killed."""

LEADER = "OMNIHUMAN_LEADER"
"""In the environment of processes that share the work: the one that started them; they end when it does."""

LIBRARIES = ("omnihuman", "torch", "transformers", "av", "numpy")


@dataclass(frozen=True)
class Manner:
    """How a benchmark is asked.

    Attributes:
        modality: ``V``, ``A``, ``F``, ``VA``, ``VF``, ``AF`` or ``VAF``.
        control: ``""``, or ``shuffled_audio`` / ``shuffled_video``: every question gets the sound (the pictures) of
            another one, so what a modality adds can be told from what its mere presence does.
        batch_size: questions in a batch, at most.
        max_tokens: of a batch, prompts padded to the longest.
        max_new_tokens: of an answer.
        log_probs: also of the options.
        cards: questions whose frames and sound are kept for the page.
        num_workers: processes that decode.
        seed: of the control.
    """

    modality: str
    control: str = ""
    batch_size: int = 16
    max_tokens: int = 65536
    max_new_tokens: int = 64
    log_probs: bool = False
    cards: int = 48
    num_workers: int = 1
    seed: int = 0


def ask(
    answerer: Answerer,
    benchmark: Benchmark,
    questions: Sequence[Question],
    folder: Path,
    manner: Manner,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Ask what has not been asked yet and append the answers to ``predictions.jsonl``, batch by batch.

    Args:
        answerer: the model.
        benchmark: whose questions they are.
        questions: all of them; other processes take the rest.
        folder: of the evaluation.
        manner: how.
        share: which process this is, of how many; several write a file of their own each, see ``gather``.

    Raises:
        ValueError: another process is at the same questions.
    """
    rank, world = share
    file = folder / ("predictions.jsonl" if world == 1 else f"predictions.{rank}.jsonl")
    try:
        with FileLock(file.with_suffix(".lock"), timeout=PATIENCE):
            _ask(answerer, benchmark, questions, file, manner, share)
    except Timeout as error:
        raise ValueError(f"{file}: another process is asking these questions; wait for it, or end it.") from error


def _ask(
    answerer: Answerer, benchmark: Benchmark, questions: Sequence[Question], file: Path, manner: Manner,
    share: tuple[int, int],
) -> None:  # fmt: skip
    folder, (rank, world) = file.parent, share
    known = {prediction.id for prediction in everything_in(folder, benchmark.name)}
    mine = [question for question in questions[rank::world] if question.id not in known]
    shown = {question.id: number for number, question in enumerate(questions[: manner.cards])}
    log.info("%s %s: %d questions, %d of them to ask", benchmark.name, manner.modality, len(questions), len(mine))
    if not mine:
        return
    if file.is_file():
        mend(file)  # a kill may have left half a line
    donors = donors_of(questions, manner.control, manner.seed)
    seen = {q.id: seen_as_asked(q.record, manner.modality, manner.control, donors.get(q.id)) for q in mine}
    asked = {question.id: question for question in mine}
    with file.open("a", encoding="utf-8") as lines:

        def write(predictions: Sequence[Prediction]) -> None:
            named = (replace(prediction, benchmark=benchmark.name) for prediction in predictions)
            lines.write("".join(f"{prediction.line()}\n" for prediction in named))
            lines.flush()

        lost = [question for question in mine if seen[question.id] is None]
        write([_failed(q, manner, f"it has nothing that {manner.modality} could use") for q in lost])
        samples = answerer.plan([form for form in seen.values() if form is not None])
        write([_failed(asked[skip["id"]], manner, skip["message"]) for skip in samples.skipped])
        done, started = 0, time.perf_counter()
        for part in _answered(answerer, benchmark, samples, asked, manner):
            if os.environ.get(LEADER, str(os.getppid())) != str(os.getppid()):
                raise RuntimeError("the process that shares the work out has ended; the same command goes on.")
            write([_with_card(one, samples, shown, folder) for one in part])
            done += len(part)
            rate = done / (time.perf_counter() - started)
            log.info("%d of %d answered, %.1f a second", done, len(samples), rate)


def _answered(
    answerer: Answerer, benchmark: Benchmark, samples: Samples, asked: dict[str, Question], manner: Manner
) -> Iterator[list[Prediction]]:
    """Predictions, batch by batch, the longest prompts first (what does not fit in memory fails at once)."""
    rows = list(batches(samples.lengths, manner.batch_size, manner.max_tokens))
    loader = DataLoader(samples, sampler=rows, batch_size=None, num_workers=manner.num_workers)  # type: ignore[arg-type]
    mark = time.perf_counter()
    for row, batch in zip(rows, loader, strict=True):
        failed = {skip["id"]: skip["message"] for skip in batch.skipped}
        planned = {samples.planned[index].record.id: samples.planned[index] for index in row.samples}
        part = [_failed(asked[name], manner, why) for name, why in failed.items()]
        there = {name: one for name, one in planned.items() if name not in failed}
        if there:
            options = [asked[name].options if manner.log_probs else () for name in there]
            answers = dict(
                zip(there, answerer.answer(batch, options, max_new_tokens=manner.max_new_tokens), strict=True)
            )
            before: dict[str, tuple[str, str]] = {}
            follow = {n: text for n in there if (text := benchmark.follow_up(asked[n], answers[n].text)) is not None}
            if follow:
                before = {name: (_words(there[name].record), answers[name].text) for name in follow}
                answers |= _second_turn(answerer, there, follow, manner)
            now = time.perf_counter()
            seconds, mark = (now - mark) / len(there), now
            part += [
                _prediction(asked[name], one, answers[name], manner, seconds, before.get(name), follow.get(name))
                for name, one in there.items()
            ]
        yield part


def _second_turn(
    answerer: Answerer, planned: dict[str, Planned], follow: dict[str, str], manner: Manner
) -> dict[str, Answer]:
    """The same media asked again in other words."""
    records = []
    for name, text in follow.items():
        record = planned[name].record
        tags = [tag for tag in TAGS if tag in record.messages[0][1]]
        question = "".join(f"{tag}\n" for tag in tags) + text
        records.append(replace(record, messages=(("user", question), ("assistant", ""))))
    samples = answerer.plan(records)
    if samples.skipped:
        raise ValueError(f"the second turn cannot be asked: {samples.skipped[0]['message']}")
    batch = samples[Row(tuple(range(len(samples))), 0)]
    given = answerer.answer(batch, max_new_tokens=manner.max_new_tokens)
    return dict(zip(follow, given, strict=True))


def batches(lengths: Sequence[int], size: int, max_tokens: int) -> Iterator[Row]:
    """Rows of samples of like length, the longest first: at most ``size``, and ``max_tokens`` with their padding.

    >>> [row.samples for row in batches([5, 9, 5, 2], size=2, max_tokens=12)]
    [(1,), (0, 2), (3,)]
    """
    row: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if row and (len(row) == size or (len(row) + 1) * lengths[row[0]] > max_tokens):
            yield Row(tuple(row), 0)
            row = []
        row.append(index)
    if row:
        yield Row(tuple(row), 0)


def everything_in(folder: Path, benchmark: str) -> list[Prediction]:
    """All predictions of a folder, also those that several processes wrote and nobody has gathered yet."""
    found = [*folder.glob("predictions.jsonl"), *sorted(folder.glob("predictions.*.jsonl"))]
    return [prediction for file in found for prediction in read_predictions(file, benchmark)]


def gather(folder: Path, questions: Sequence[Question], benchmark: str) -> list[Prediction]:
    """Put what the processes wrote into one ``predictions.jsonl`` in the questions' order.

    Raises:
        ValueError: a question has no prediction.
    """
    given = {prediction.id: prediction for prediction in everything_in(folder, benchmark)}
    if missing := [question.id for question in questions if question.id not in given]:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(questions)} questions have no prediction, the first {missing[:3]}; "
            "the same command goes on."
        )
    ordered = [given[question.id] for question in questions]
    new = folder / "predictions.new"
    new.write_text("".join(f"{prediction.line()}\n" for prediction in ordered), encoding="utf-8")
    new.replace(folder / "predictions.jsonl")
    for part in [*folder.glob("predictions.*.jsonl"), *folder.glob("predictions*.lock")]:
        part.unlink()
    return ordered


def in_processes(count: int, arguments: Sequence[str]) -> None:
    """Run this verb once for every share, on a GPU each where there are several.

    Raises:
        RuntimeError: one of them failed; what the others answered is kept.
    """
    commands = [
        [sys.executable, "-m", "omnihuman.evaluate", *arguments, f"share={rank}/{count}"] for rank in range(count)
    ]
    running = [subprocess.Popen(command, env={**os.environ, LEADER: str(os.getpid())}) for command in commands]
    if failed := [rank for rank, process in enumerate(running) if process.wait()]:
        raise RuntimeError(f"processes {failed} of {count} failed; the same command goes on where they stopped.")


def write_manifest(
    folder: Path, benchmark: Benchmark, questions: Sequence[Question], predictions: Sequence[Prediction]
) -> None:
    """What was asked (``dataset_manifest.json``) and with what (``environment.json``)."""
    ids = "\n".join(question.id for question in questions)
    manifest = {
        "questions": len(questions),
        "groups": {g: sum(q.group == g for q in questions) for g in sorted({q.group for q in questions})},
        "protocol": benchmark.protocol(),
        "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "missing": [{"id": one.id, "why": one.error} for one in predictions if one.error is not None],
        "lacking": {slot: sum(slot in one.lacking for one in predictions) for slot in ("video", "audio")},
    }
    environment = {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "peak_memory_gb": round(peak_memory() / 2**30, 3),
    }
    for name, what in (("dataset_manifest", manifest), ("environment", environment)):
        (folder / f"{name}.json").write_text(json.dumps(what, indent=2) + "\n")


def _words(record: Record) -> str:
    text = record.messages[0][1]
    for tag in TAGS:
        text = text.replace(f"{tag}\n", "").replace(tag, "")
    return text


def _failed(question: Question, manner: Manner, why: str) -> Prediction:
    return _prediction_base(question, question.record, manner, answer=None, error=why)


def _prediction(
    question: Question, planned: Planned, answer: Answer, manner: Manner, seconds: float,
    before: tuple[str, str] | None, follow: str | None,
) -> Prediction:  # fmt: skip
    record = planned.record
    wanted = question.record.seen_as(MODALITIES[manner.modality]) or question.record
    found = _prediction_base(question, record, manner, answer=answer.text, error=None)
    return replace(
        found,
        prompt=follow or found.prompt,
        before=() if before is None else (before,),
        log_probs=answer.log_probs,
        lacking=tuple(slot for slot in wanted.slots if slot not in record.slots),
        weights=answer.weights,
        seconds=round(seconds, 4),
        tokens=(planned.length, answer.tokens),
    )


def _prediction_base(question: Question, record: Record, manner: Manner, **said: Any) -> Prediction:
    return Prediction(
        benchmark="",  # the writer knows
        id=question.id,
        group=question.group,
        prompt=_words(question.record),
        truth=question.truth,
        options=question.options,
        meta=question.meta,
        modality=manner.modality,
        control=manner.control,
        media={"file": str(record.file), "start": record.start, "end": record.end},
        **said,
    )


def _with_card(prediction: Prediction, samples: Samples, shown: dict[str, int], folder: Path) -> Prediction:
    """The prediction with the frames and the sound that the model had, where the page is to show them."""
    number = shown.get(prediction.id)
    if number is None or prediction.error is not None:
        return prediction
    planned = next(one for one in samples.planned if one.record.id == prediction.id)
    from omnihuman.evaluation.keepsake import keep

    kept = keep(samples.sample(planned), folder / "media", str(number))
    return replace(prediction, meta={**prediction.meta, "card": kept})


def said(manner: Manner) -> dict[str, Any]:
    """The manner as plain data, without what changes only the speed."""
    plain = asdict(manner)
    return {key: plain[key] for key in ("modality", "control", "max_new_tokens", "log_probs", "seed")}
