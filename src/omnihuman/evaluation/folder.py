"""An evaluation on disk: its config and its predictions; nothing here needs a model or the benchmark's data."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman import gate
from omnihuman.benchmark.base import Benchmark, Prediction
from omnihuman.build import build
from omnihuman.data.text_files import read_json

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
PREDICTIONS = "predictions.jsonl"
MANIFEST = "dataset_manifest.json"
UNANSWERED = "unanswered"
"""The parser's rule where there is no answer."""


@dataclass(frozen=True)
class Evaluation:
    """One run, one benchmark, one view.

    Attributes:
        folder: of the evaluation.
        config: of the evaluation.
        benchmark: built from the config.
        predictions: in the order of the file.
        manifest: of the questions; empty where the evaluation was interrupted.
    """

    folder: Path
    config: Mapping[str, Any]
    benchmark: Benchmark
    predictions: tuple[Prediction, ...]
    manifest: Mapping[str, Any]

    @cached_property
    def parsed(self) -> list[tuple[Any, str]]:
        """Parsed value and parser's rule of every answer; ``(None, "unanswered")`` where there is no answer."""
        parsed: list[tuple[Any, str]] = []
        for prediction in self.predictions:
            if prediction.answer is None:
                parsed.append((None, UNANSWERED))
            else:
                parsed.append(self.benchmark.parse(prediction))
        return parsed

    @cached_property
    def references(self) -> list[Any]:
        """The reference of every question, as the parser writes it.

        Raises:
            ValueError: a reference is none of the benchmark's labels.
        """
        labels, references = self.benchmark.labels, []
        for prediction in self.predictions:
            reference = self.benchmark.parse_reference(prediction)
            if labels and reference not in labels:
                raise ValueError(
                    f"{self.folder / PREDICTIONS}: {prediction.id}: unknown reference {prediction.reference!r}; "
                    f"expected one of {self.benchmark.name}'s labels {labels}."
                )
            references.append(reference)
        return references

    @cached_property
    def correct(self) -> list[bool | None]:
        """Per answer, whether it equals the reference; ``None`` for free text, which no equality can score."""
        correct: list[bool | None] = []
        for prediction, (value, _), reference in zip(self.predictions, self.parsed, self.references, strict=True):
            if self.benchmark.labels or prediction.options:
                correct.append(value == reference)
            else:
                correct.append(None)
        return correct

    @property
    def run(self) -> str:
        """The run's name, with its variant and the evaluation's tag."""
        return "/".join(str(self.config[key]) for key in ("run", "tag") if self.config.get(key))

    @property
    def view(self) -> str:
        """``VA``, or ``VA, shuffled audio``."""
        if not self.config.get("control"):
            return str(self.config["view"])
        kind, _, branch = self.config["control"].partition(":")
        return f"{self.config['view']}, {kind.replace('_', ' ')} {branch}".rstrip()

    @property
    def groups(self) -> dict[str, list[int]]:
        """Group -> indices of its predictions, in the order of the groups' first questions."""
        groups: dict[str, list[int]] = {}
        for index, prediction in enumerate(self.predictions):
            groups.setdefault(prediction.group, []).append(index)
        return groups

    @property
    def incomplete_reason(self) -> str:
        """The reason why the predictions do not cover all questions; empty where they do."""
        if not self.manifest:
            return f"unfinished: {len(self.predictions)} predictions"
        ids = "\n".join(prediction.id for prediction in self.predictions)
        if hashlib.sha256(ids.encode()).hexdigest() == self.manifest.get("ids_sha256"):
            return ""
        return f"incomplete: {len(self.predictions)} of {self.manifest.get('questions')} predictions"


def load_benchmark(folder: Path, judge: Any = None) -> Benchmark:
    """Return the benchmark of an evaluation's folder, as configured; its data may be missing.

    Raises:
        ValueError: ``config.yaml`` is missing or invalid, or the benchmark takes no judge.
    """
    config = _read_config(folder)
    benchmark: Benchmark = build(config.benchmark)
    if judge is not None:
        if not hasattr(benchmark, "judge"):
            raise ValueError(f"{benchmark.name} is scored without a judge; leave judge= out.")
        benchmark.judge = judge
    return benchmark


def load_evaluation(folder: Path, judge: Any = None) -> Evaluation:
    """Return the evaluation in a folder, wherever the folder was copied to.

    Args:
        folder: with ``predictions.jsonl`` and ``config.yaml``.
        judge: of free text, for benchmarks that take one.

    Raises:
        ValueError: a file is missing or invalid, or the benchmark takes no judge.
    """
    benchmark = load_benchmark(folder, judge)
    config: Any = OmegaConf.to_container(_read_config(folder), resolve=True)
    predictions = read_predictions(folder / PREDICTIONS, benchmark.name)
    if not predictions:
        raise ValueError(f"{folder / PREDICTIONS} is empty; run the same evaluate command again to resume.")
    manifest: dict[str, Any] = {}
    if (folder / MANIFEST).is_file():
        manifest = read_json(folder / MANIFEST)
    return Evaluation(folder, config, benchmark, tuple(predictions), manifest)


def find_evaluations(run: Path, benchmark: str | None = None) -> list[Path]:
    """Return the folders of a run's evaluations, by benchmark and view; backups and empty ones are left out.

    Raises:
        ValueError: there is none.
    """
    folders, benchmarks = [], set()
    for path in sorted(run.glob(f"evaluation/*/*/{PREDICTIONS}")):
        folder = path.parent
        if path.stat().st_size == 0 or _is_backup(folder):
            continue
        benchmarks.add(folder.parent.name)
        if benchmark in (None, folder.parent.name):
            folders.append(folder)
    if not folders:
        raise ValueError(
            f"{run / 'evaluation'}: no predictions of {benchmark or 'any benchmark'}; "
            f"found {', '.join(sorted(benchmarks)) or 'none'}. Run "
            f"omnihuman evaluate run={run} benchmark={benchmark or '...'}"
        )
    return folders


def read_predictions(path: Path, benchmark: str | None = None) -> list[Prediction]:
    """Return the predictions of a file; an incomplete last line is skipped, so that its question is answered again.

    Args:
        path: of ``predictions.jsonl``.
        benchmark: that all predictions must belong to; ``None`` for that of the first line.

    Raises:
        ValueError: a line is invalid, belongs to another benchmark, or repeats the id of another line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    predictions: dict[str, Prediction] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), 1):
        location = f"{path}:{number}"
        if not line.strip():
            continue
        prediction = _parse_prediction(line, location)
        benchmark = benchmark or prediction.benchmark
        if prediction.benchmark != benchmark:
            raise ValueError(
                f"{location}: a prediction of benchmark {prediction.benchmark}; expected {benchmark}. "
                "Use a file per benchmark."
            )
        if prediction.id in predictions:
            raise ValueError(
                f"{location}: the id {prediction.id!r} is already in line {numbers[prediction.id]}; remove one of them."
            )
        predictions[prediction.id], numbers[prediction.id] = prediction, number
    return list(predictions.values())


def repair_last_line(path: Path) -> None:
    """Make a file of predictions ready for appending: drop an incomplete last line, terminate a complete one."""
    if not path.is_file():
        return
    content = path.read_bytes()
    last = content.rpartition(b"\n")[2]
    with path.open("r+b") as file:
        if last.strip() and _is_json_object(last):
            file.seek(0, 2)
            file.write(b"\n")
        else:
            file.truncate(len(content) - len(last))


def _read_lines(path: Path) -> list[bytes]:
    """Return the lines of a file without a last line that a killed process left incomplete."""
    *lines, last = path.read_bytes().split(b"\n")
    if not last.strip():
        return lines
    if _is_json_object(last):
        return [*lines, last]
    log.warning("%s:%d: the last line is incomplete; its question is answered again.", path, len(lines) + 1)
    return lines


def _parse_prediction(line: bytes, location: str) -> Prediction:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{location}: invalid JSON ({error}); remove the line, and its question is answered again."
        ) from error
    return Prediction.from_json(raw, location)


def _read_config(folder: Path) -> DictConfig:
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} is no folder of an evaluation; expected {CONFIG} and {PREDICTIONS} in it.")
    config = gate.read_config(file)
    missing = [key for key in ("benchmark", "run", "view") if config.get(key) is None]
    if missing:
        raise ValueError(f"{file}: missing keys {missing}; expected the config of an evaluation.")
    return config


def _is_backup(folder: Path) -> bool:
    """Return whether ``overwrite=true`` renamed the folder: ``VA.1`` beside ``VA``, but not the tag ``VA-lr0.1``."""
    name, _, number = folder.name.rpartition(".")
    if not number.isdigit() or not folder.with_name(name).is_dir():
        return False
    if not (folder / CONFIG).is_file():
        return True
    tag = gate.read_config(folder / CONFIG).get("tag")
    return tag is None or not folder.name.endswith(f"-{tag}")


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
