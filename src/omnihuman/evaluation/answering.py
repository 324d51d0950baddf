"""Answers to the questions of a benchmark: in batches of similar length, by several processes, each question once."""

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader

from omnihuman.benchmark.base import Benchmark, Prediction, Question
from omnihuman.data.dataset import Samples
from omnihuman.data.packing import MicroBatch
from omnihuman.data.plan.planned import Planned
from omnihuman.data.record import Record
from omnihuman.evaluation.control import apply_view, select_donors
from omnihuman.evaluation.folder import read_predictions, repair_last_line
from omnihuman.inference.answer import Answer
from omnihuman.inference.answerer import Answerer
from omnihuman.modality import SLOTS, TAGS, View, strip_tags
from omnihuman.training.summary import peak_memory

log = logging.getLogger(__name__)

LOCK_TIMEOUT = 30.0
"""Seconds to wait for a process that is about to end, as the process that started it was killed."""

LEADER = "OMNIHUMAN_LEADER"
"""Environment variable of processes that share the questions: id of the process that started them."""

LIBRARIES = ("omnihuman", "torch", "transformers", "av", "numpy")


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation.

    Attributes:
        view: the part of the media that the model gets.
        control: ``""``, or ``shuffled_audio`` / ``shuffled_video``: every question gets the audio (the frames) of
            another one, which separates what a modality adds from what its mere presence does; or ``drop_branch:face``,
            see ``change_branch``.
        batch_size: maximum number of questions in a batch.
        max_tokens: of a batch, prompts padded to the longest.
        max_new_tokens: of an answer.
        log_probs: compute log-probabilities of the options, too.
        cards: number of questions whose frames and audio are saved for the page.
        num_workers: processes that decode.
        seed: of the control.
    """

    view: View
    control: str = ""
    batch_size: int = 16
    max_tokens: int = 65536
    max_new_tokens: int = 64
    log_probs: bool = False
    cards: int = 48
    num_workers: int = 1
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the options that decide the answers, as plain data."""
        return {
            "view": str(self.view),
            "control": self.control,
            "max_new_tokens": self.max_new_tokens,
            "log_probs": self.log_probs,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class FirstTurn:
    """The first of two turns: prompt and answer, and the prompt of the second turn."""

    prompt: str
    answer: str
    follow_up: str


def answer_questions(
    answerer: Answerer,
    benchmark: Benchmark,
    questions: Sequence[Question],
    folder: Path,
    options: EvalOptions,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Answer the questions that have no prediction yet, and append to ``predictions.jsonl`` after each batch.

    Args:
        answerer: the model.
        benchmark: of the questions.
        questions: all of them; other processes answer the rest.
        folder: of the evaluation.
        options: of the evaluation.
        share: rank of this process and number of processes; several write one file each, see ``merge_predictions``.

    Raises:
        ValueError: another process answers the same questions.
    """
    rank, world = share
    file = folder / ("predictions.jsonl" if world == 1 else f"predictions.{rank}.jsonl")
    try:
        with FileLock(file.with_suffix(".lock"), timeout=LOCK_TIMEOUT):
            known = {prediction.id for prediction in read_all_predictions(folder, benchmark.name)}
            new = [question for question in questions[rank::world] if question.id not in known]
            log.info("%s %s: %d questions, %d of them new", benchmark.name, options.view, len(questions), len(new))
            repair_last_line(file)  # a killed process may have left half a line
            num_done, started = 0, time.perf_counter()
            for predictions in _Session(answerer, benchmark, questions, options, folder / "media").answer(new):
                if os.environ.get(LEADER, str(os.getppid())) != str(os.getppid()):
                    raise RuntimeError("the process that started this one has ended; run the same command to continue.")
                append_predictions(file, predictions)
                num_done += len(predictions)
                rate = num_done / (time.perf_counter() - started)
                log.info("%d of %d answered, %.1f per second", num_done, len(new), rate)
    except Timeout as error:
        raise ValueError(f"{file}: another process answers these questions; wait for it, or end it.") from error


def ask_questions(
    answerer: Answerer,
    benchmark: Benchmark,
    questions: Sequence[Question],
    options: EvalOptions,
    share: tuple[int, int] = (0, 1),
) -> list[Prediction]:
    """Answer the questions of a share and return the predictions, without a file; arguments as ``answer_questions``."""
    rank, world = share
    predictions = []
    for batch in _Session(answerer, benchmark, questions, replace(options, cards=0)).answer(questions[rank::world]):
        predictions += batch
    return predictions


def append_predictions(file: Path, predictions: Sequence[Prediction]) -> None:
    """Append predictions to a file, a line each."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write("".join(f"{prediction.to_json()}\n" for prediction in predictions))


class _Session:
    """Answers questions of one process.

    Args:
        answerer: the model.
        benchmark: of the questions.
        questions: all questions of all processes.
        options: of the evaluation.
        media: folder of what the cards show.
    """

    def __init__(
        self,
        answerer: Answerer,
        benchmark: Benchmark,
        questions: Sequence[Question],
        options: EvalOptions,
        media: Path = Path(),
    ) -> None:
        self.answerer, self.benchmark, self.options, self.media = answerer, benchmark, options, media
        self.questions = questions
        self.by_id = {question.id: question for question in questions}
        self.cards = {question.id: number for number, question in enumerate(questions[: options.cards])}

    def answer(self, new: Sequence[Question]) -> Iterator[list[Prediction]]:
        """Yield predictions batch by batch, those that fail first."""
        records, failed = self._apply_view(new)
        if failed:
            yield failed
        if not records:
            return
        samples = self.answerer.plan_questions(records)
        if samples.skipped:
            yield [self._fail(skip["id"], skip["message"]) for skip in samples.skipped]
        for predictions in self._answer_batches(samples):
            yield [self._add_card(prediction, samples) for prediction in predictions]

    def _apply_view(self, new: Sequence[Question]) -> tuple[list[Record], list[Prediction]]:
        """Return the records in the view and under the control; questions without any of it fail."""
        options = self.options
        donors = select_donors(self.questions, options.control, options.seed)
        records, failed = [], []
        for question in new:
            record = apply_view(question.record, options.view, options.control, donors.get(question.id))
            if record is None:
                failed.append(self._fail(question.id, f"it has nothing that the view {options.view} could use"))
            else:
                records.append(record)
        return records, failed

    def _answer_batches(self, samples: Samples) -> Iterator[list[Prediction]]:
        """Yield predictions batch by batch, the longest prompts first: a batch that is too large fails at once."""
        plan = list(group_by_length(samples.lengths, self.options.batch_size, self.options.max_tokens))
        num_workers = self.options.num_workers
        loader = DataLoader(samples, sampler=plan, batch_size=None, num_workers=num_workers)  # type: ignore[arg-type]
        mark = time.perf_counter()
        for micro_batch, batch in zip(plan, loader, strict=True):
            messages = {skip["id"]: skip["message"] for skip in batch.skipped}
            planned = {}
            for index in micro_batch.indices:
                sample = samples.planned[index]
                if sample.record.id not in messages:
                    planned[sample.record.id] = sample
            predictions = [self._fail(name, message) for name, message in messages.items()]
            if planned:
                answers, first_turns = self._answer_batch(batch, planned)
                now = time.perf_counter()
                seconds, mark = (now - mark) / len(planned), now
                for name, sample in planned.items():
                    predictions.append(self._predict(sample, answers[name], seconds, first_turns.get(name)))
            yield predictions

    def _answer_batch(
        self, batch: Any, planned: Mapping[str, Planned]
    ) -> tuple[dict[str, Answer], dict[str, FirstTurn]]:
        """Return answers by question, and the first turns of those questions that have two."""
        options = [self.by_id[name].options if self.options.log_probs else () for name in planned]
        max_new_tokens = self.options.max_new_tokens
        in_order = self.answerer.answer_batch(batch, options, max_new_tokens=max_new_tokens)
        answers = dict(zip(planned, in_order, strict=True))
        first_turns = {}
        for name, answer in answers.items():
            follow_up = self.benchmark.follow_up(self.by_id[name], answer.text)
            if follow_up is not None:
                prompt = _prompt_text(planned[name].record)
                first_turns[name] = FirstTurn(prompt, answer.text, follow_up)
        if first_turns:
            answers |= self._answer_follow_ups(planned, first_turns)
        return answers, first_turns

    def _answer_follow_ups(
        self, planned: Mapping[str, Planned], first_turns: Mapping[str, FirstTurn]
    ) -> dict[str, Answer]:
        """Return the answers of the second turns, which are about the same media."""
        records = []
        for name, turn in first_turns.items():
            record = planned[name].record
            tags = [tag for tag in TAGS if tag in record.messages[0][1]]
            text = "".join(f"{tag}\n" for tag in tags) + turn.follow_up
            records.append(replace(record, messages=(("user", text), ("assistant", ""))))
        samples = self.answerer.plan_questions(records)
        if samples.skipped:
            raise ValueError(f"the second turn cannot be planned: {samples.skipped[0]['message']}")
        batch = samples[MicroBatch(tuple(range(len(samples))), 0)]
        answers = self.answerer.answer_batch(batch, max_new_tokens=self.options.max_new_tokens)
        return dict(zip(first_turns, answers, strict=True))

    def _predict(self, planned: Planned, answer: Answer, seconds: float, first_turn: FirstTurn | None) -> Prediction:
        question = self.by_id[planned.record.id]
        requested = question.record.restrict(self.options.view) or question.record
        prediction = replace(
            self._base(question, planned.record, answer=answer.text, error=None),
            log_probs=answer.log_probs,
            missing_slots=tuple(slot for slot in requested.slots if slot not in planned.record.slots),
            weights=answer.weights,
            seconds=round(seconds, 4),
            tokens=(planned.length, answer.tokens),
        )
        if first_turn is None:
            return prediction
        previous_turns = ((first_turn.prompt, first_turn.answer),)
        return replace(prediction, prompt=first_turn.follow_up, previous_turns=previous_turns)

    def _fail(self, name: str, message: str) -> Prediction:
        question = self.by_id[name]
        return self._base(question, question.record, answer=None, error=message)

    def _base(self, question: Question, record: Record, *, answer: str | None, error: str | None) -> Prediction:
        return Prediction(
            benchmark=self.benchmark.name,
            id=question.id,
            group=question.group,
            prompt=_prompt_text(self.answerer.phrase(question.record)),
            reference=question.reference,
            answer=answer,
            options=question.options,
            meta=question.meta,
            view=str(self.options.view),
            control=self.options.control,
            previous_turns=_list_previous_turns(question.record),
            error=error,
            media={"file": str(record.file), "start": record.start, "end": record.end},
        )

    def _add_card(self, prediction: Prediction, samples: Samples) -> Prediction:
        """Save the frames and the audio that the model got, if the page shows them."""
        number = self.cards.get(prediction.id)
        if number is None or prediction.error is not None:
            return prediction
        from omnihuman.evaluation.thumbnail import save_thumbnails

        planned = next(sample for sample in samples.planned if sample.record.id == prediction.id)
        files = save_thumbnails(samples.sample(planned), self.media, str(number))
        return replace(prediction, meta={**prediction.meta, "card": files})


def group_by_length(lengths: ArrayLike, batch_size: int, max_tokens: int) -> Iterator[MicroBatch]:
    """Yield batches of samples of similar length, the longest first, within ``max_tokens`` including padding.

    >>> [batch.indices for batch in group_by_length([5, 9, 5, 2], batch_size=2, max_tokens=12)]
    [(1,), (0, 2), (3,)]
    """
    tokens: list[int] = np.asarray(lengths).tolist()
    indices: list[int] = []
    for index in sorted(range(len(tokens)), key=lambda index: -tokens[index]):
        is_full = len(indices) == batch_size
        if indices and (is_full or (len(indices) + 1) * tokens[indices[0]] > max_tokens):
            yield MicroBatch(tuple(indices), 0)
            indices = []
        indices.append(index)
    if indices:
        yield MicroBatch(tuple(indices), 0)


def read_all_predictions(folder: Path, benchmark: str) -> list[Prediction]:
    """Return all predictions of a folder, including those of several processes that are not merged yet."""
    predictions = []
    for file in [*folder.glob("predictions.jsonl"), *sorted(folder.glob("predictions.*.jsonl"))]:
        predictions += read_predictions(file, benchmark)
    return predictions


def merge_predictions(folder: Path, questions: Sequence[Question], benchmark: str) -> list[Prediction]:
    """Merge the predictions of all processes into one ``predictions.jsonl``, in the order of the questions.

    Raises:
        ValueError: a question has no prediction.
    """
    by_id = {prediction.id: prediction for prediction in read_all_predictions(folder, benchmark)}
    missing = [question.id for question in questions if question.id not in by_id]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(questions)} questions have no prediction, the first {missing[:3]}; "
            "run the same command to continue."
        )
    ordered = [by_id[question.id] for question in questions]
    new = folder / "predictions.new"
    new.write_text("".join(f"{prediction.to_json()}\n" for prediction in ordered), encoding="utf-8")
    new.replace(folder / "predictions.jsonl")
    for part in [*folder.glob("predictions.*.jsonl"), *folder.glob("predictions*.lock")]:
        part.unlink()
    return ordered


def run_processes(count: int, arguments: Sequence[str]) -> None:
    """Run the verb ``evaluate`` once for every share of the questions, on a GPU each if there are several.

    Raises:
        RuntimeError: a process failed; the predictions of the others are written.
    """
    processes = []
    for rank in range(count):
        command = [sys.executable, "-m", "omnihuman.evaluate", *arguments, f"share={rank}/{count}"]
        processes.append(subprocess.Popen(command, env={**os.environ, LEADER: str(os.getpid())}))
    codes = [process.wait() for process in processes]
    failed = [rank for rank, code in enumerate(codes) if code]
    if failed:
        raise RuntimeError(f"processes {failed} of {count} failed; run the same command to continue.")


def write_manifest(
    folder: Path, benchmark: Benchmark, questions: Sequence[Question], predictions: Sequence[Prediction]
) -> None:
    """Write the questions (``dataset_manifest.json``) and the software (``environment.json``) of an evaluation."""
    ids = "\n".join(question.id for question in questions)
    groups: dict[str, int] = {}
    for group in sorted(question.group for question in questions):
        groups[group] = groups.get(group, 0) + 1
    num_missing = dict.fromkeys(SLOTS, 0)
    for entry in predictions:
        for slot in entry.missing_slots:
            num_missing[slot] += 1
    manifest = {
        "questions": len(questions),
        "groups": groups,
        "protocol": benchmark.protocol(),
        "ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "missing": [{"id": entry.id, "why": entry.error} for entry in predictions if entry.error is not None],
        "missing_slots": num_missing,
    }
    environment = {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "peak_memory_gb": round(peak_memory() / 2**30, 3),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False)  # ids and options in any script
    (folder / "dataset_manifest.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def _prompt_text(record: Record) -> str:
    """Return the text of the last question, whose answer is empty, without slots."""
    return strip_tags(record.messages[-2][1])


def _list_previous_turns(record: Record) -> tuple[tuple[str, str], ...]:
    """Return (prompt, answer) of the turns before the last question."""
    texts = [strip_tags(text) for _, text in record.messages[:-2]]
    return tuple(zip(texts[::2], texts[1::2], strict=True))
