"""An evaluation on disk: what was asked how, and the answers; nothing here needs a model or the benchmark's data."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.benchmark.base import Benchmark, Prediction, read_json
from omnihuman.build import build

log = logging.getLogger(__name__)

PREDICTIONS = "predictions.jsonl"
NOT_ASKED = "not asked"
"""The rule by which an answer that is not there was read."""


@dataclass(frozen=True)
class Evaluation:
    """One run, one benchmark, one modality.

    Attributes:
        folder: where it lies.
        config: of the evaluation, as it was asked.
        benchmark: as it was asked.
        predictions: in the order of the file.
        manifest: of the questions; empty where asking was not finished.
    """

    folder: Path
    config: Mapping[str, Any]
    benchmark: Benchmark
    predictions: tuple[Prediction, ...]
    manifest: Mapping[str, Any]

    @cached_property
    def parsed(self) -> list[tuple[Any, str]]:
        """What every answer means and by which rule; ``(None, "not asked")`` where there is none."""
        return [(None, NOT_ASKED) if p.answer is None else self.benchmark.parse(p) for p in self.predictions]

    @cached_property
    def truths(self) -> list[Any]:
        """Every truth in the words of the parser.

        Raises:
            ValueError: a truth is none of the benchmark's labels.
        """
        truths, labels = [self.benchmark.truth_of(p) for p in self.predictions], self.benchmark.labels
        for asked, truth in zip(self.predictions, truths, strict=True):
            if labels and truth not in labels:
                where = f"{self.folder / PREDICTIONS}: {asked.id}"
                raise ValueError(f"{where}: the truth {asked.truth!r} is none of {self.benchmark.name}'s {labels}.")
        return truths

    @cached_property
    def right(self) -> list[bool | None]:
        """Whether each answer is the truth; ``None`` where answers are free text."""
        closed = [bool(self.benchmark.labels or p.options) for p in self.predictions]
        return [
            parsed == truth if one else None
            for one, (parsed, _), truth in zip(closed, self.parsed, self.truths, strict=True)
        ]

    @property
    def run(self) -> str:
        """The run's name, with its variant and the evaluation's tag."""
        return "/".join(str(self.config[key]) for key in ("run", "variant", "tag") if self.config.get(key))

    @property
    def modality(self) -> str:
        """``VA``, or ``VA, shuffled audio``."""
        control = str(self.config.get("control") or "").replace("_", " ")
        return ", ".join(filter(None, (str(self.config["modality"]), control)))

    @property
    def groups(self) -> dict[str, list[int]]:
        """Group -> places of its predictions, in the order in which groups are asked."""
        found: dict[str, list[int]] = {}
        for index, prediction in enumerate(self.predictions):
            found.setdefault(prediction.group, []).append(index)
        return found

    @property
    def unfinished(self) -> str:
        """Why the answers are not those to all questions, in words; empty where they are."""
        if not self.manifest:
            return f"unfinished: {len(self.predictions)} asked"
        ids = "\n".join(prediction.id for prediction in self.predictions)
        if hashlib.sha256(ids.encode()).hexdigest() == self.manifest.get("ids_sha256"):
            return ""
        return f"not the questions asked: {len(self.predictions)} of {self.manifest.get('questions')}"


def benchmark_of(folder: Path, judge: Any = None) -> Benchmark:
    """The benchmark of an evaluation's folder, as it was asked; its data need not be there.

    Raises:
        ValueError: ``config.yaml`` is missing or does not hold, or the benchmark has no use for a judge.
    """
    config = _config(folder)
    target = str(OmegaConf.select(config, "benchmark._target_"))
    if not target.startswith("omnihuman.benchmark."):
        raise ValueError(
            f"{folder / 'config.yaml'}: benchmark._target_ is {target}; it must be in omnihuman.benchmark."
        )
    benchmark: Benchmark = build(config.benchmark)
    if judge is not None:
        if not hasattr(benchmark, "judge"):
            raise ValueError(f"{benchmark.name} is scored without a judge; leave judge= out.")
        benchmark.judge = judge
    return benchmark


def open_evaluation(folder: Path, judge: Any = None) -> Evaluation:
    """An evaluation from its folder, wherever that lies now.

    Args:
        folder: with ``predictions.jsonl`` and ``config.yaml``.
        judge: of free text, for the benchmarks that want one.

    Raises:
        ValueError: a file is missing or does not hold, or the benchmark has no use for a judge.
    """
    benchmark, plain = benchmark_of(folder, judge), OmegaConf.to_container(_config(folder), resolve=True)
    assert isinstance(plain, dict)
    predictions = read_predictions(folder / PREDICTIONS, benchmark.name)
    if not predictions:
        raise ValueError(f"{folder / PREDICTIONS} is empty; the same evaluate command goes on.")
    file = folder / "dataset_manifest.json"
    manifest = read_json(file) if file.is_file() else {}
    return Evaluation(folder, {str(k): v for k, v in plain.items()}, benchmark, tuple(predictions), manifest)


def find(run: Path, benchmark: str | None = None) -> list[Path]:
    """The folders of a run's evaluations, by benchmark and modality; without those that moved aside or hold no answer.

    Raises:
        ValueError: there is none.
    """
    files = sorted(run.glob(f"evaluation/*/*/{PREDICTIONS}"))
    every = [path.parent for path in files if path.stat().st_size and not _moved_aside(path.parent)]
    found = [folder for folder in every if benchmark in (None, folder.parent.name)]
    if not found:
        there = ", ".join(sorted({folder.parent.name for folder in every})) or "nothing"
        ask = f"python -m omnihuman.evaluate run={run.name} benchmark={benchmark or '...'}"
        raise ValueError(
            f"{run / 'evaluation'} holds no predictions of {benchmark or 'any benchmark'}, but {there}: {ask}"
        )
    return found


def read_predictions(path: Path, benchmark: str | None = None) -> list[Prediction]:
    """The predictions of a file; a last line that a kill cut short is left out, so that it is asked again.

    Args:
        path: of ``predictions.jsonl``.
        benchmark: whose predictions they must be; ``None`` for that of the first line.

    Raises:
        ValueError: a line does not hold, belongs to another benchmark, or has the id of another line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    *lines, last = path.read_bytes().split(b"\n")
    if last.strip():
        if _whole(last):
            lines.append(last)
        else:
            log.warning("%s:%d: the last line is cut short; its question is asked again.", path, len(lines) + 1)
    found: dict[str, tuple[int, Prediction]] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{where}: this is not JSON ({error}); take the line out, and it is asked again."
            ) from error
        one = Prediction.of(raw, where)
        benchmark = benchmark or one.benchmark
        if one.benchmark != benchmark:
            raise ValueError(f"{where}: a prediction of {one.benchmark} among those of {benchmark}; keep them apart.")
        if one.id in found:
            raise ValueError(f"{where}: the id {one.id!r} is already in line {found[one.id][0]}; take one of them out.")
        found[one.id] = number, one
    return [one for _, one in found.values()]


def mend(path: Path) -> None:
    """Make a file of predictions ready to be continued: cut off a last line that a kill cut short, end a whole one."""
    if not path.is_file():
        return
    content = path.read_bytes()
    last = content.rpartition(b"\n")[2]
    with path.open("r+b") as file:
        if last.strip() and _whole(last):
            file.seek(0, 2)
            file.write(b"\n")
        else:
            file.truncate(len(content) - len(last))


def _config(folder: Path) -> DictConfig:
    file = folder / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{folder} holds no evaluation: config.yaml and {PREDICTIONS} belong there.")
    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    if lacking := [key for key in ("benchmark", "run", "modality") if config.get(key) is None]:
        raise ValueError(f"{file}: the keys {lacking} are missing; this is no config of an evaluation.")
    return config


def _moved_aside(folder: Path) -> bool:
    """Whether ``overwrite=true`` left the folder: ``VA.1`` beside ``VA``, but not the tag ``VA-lr0.1``."""
    name, _, number = folder.name.rpartition(".")
    if not number.isdigit() or not folder.with_name(name).is_dir():
        return False
    file = folder / "config.yaml"
    tag = OmegaConf.select(OmegaConf.load(file), "tag") if file.is_file() else None
    return tag is None or not folder.name.endswith(f"-{tag}")


def _whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
