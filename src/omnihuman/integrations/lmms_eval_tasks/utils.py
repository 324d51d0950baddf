"""Benchmarks as tasks of lmms-eval: their questions become documents, their parsers and scores the metrics."""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from omnihuman.benchmark.base import Benchmark, Prediction, Question
from omnihuman.data.record import TAGS, Record

FIGURES = {
    "dfew": ("war", "uar"),
    "mafw": ("war", "uar"),
    "dfec": ("cider", "rouge_l"),
    "emer_ov": ("ew_level1", "ew_level2"),
    "sample": ("war", "uar"),
}
"""Benchmark -> scores that its task shows: those that need no judge."""


@cache
def benchmark_of(name: str) -> Benchmark:
    """A benchmark as its yaml has it, with the options of ``OMNIHUMAN_<NAME>``: ``"root=/data/DFEW folds=[1]"``.

    Raises:
        ValueError: options are missing.
    """
    from omegaconf import OmegaConf

    from omnihuman.build import build, compose_config

    variable = f"OMNIHUMAN_{name.upper()}"
    options = [f"benchmark.{option}" for option in shlex.split(os.environ.get(variable, ""))]
    config = compose_config([f"benchmark={name}", *options], "evaluate").benchmark
    if missing := sorted(OmegaConf.missing_keys(config)):
        first = missing[0].rpartition(".")[2]
        raise ValueError(
            f"{name}: say where the data is: export {variable}='{first}=...' (options: benchmark/{name}.yaml)."
        )
    built: Benchmark = build(config)
    return built


def documents(stub: Any) -> Any:
    """The questions of the benchmark that a task's split is named after, in place of the one line in ``stub.json``.

    Raises:
        ValueError: the benchmark's data does not hold, or it asks in two turns.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    name = str(stub.split)
    benchmark = benchmark_of(name)
    questions = benchmark.questions()
    if any(benchmark.follow_up(question, "") is not None for question in questions[:1]):
        raise ValueError(f"{name}: a task has one turn; for two: python -m omnihuman.evaluate benchmark={name} ...")
    found = [document_of(name, question) for question in questions]
    # by hand, since `datasets` 5.2 cannot hash a table of pyarrow 26
    mark = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    return Dataset(InMemoryTable.from_pylist(found), fingerprint=mark)


def document_of(benchmark: str, question: Question) -> dict[str, Any]:
    """A question -> a document: what is asked about which file, and the prediction that is still without an answer."""
    record = question.record
    prompt = record.messages[0][1]
    for tag in TAGS:
        prompt = prompt.replace(f"{tag}\n", "").replace(tag, "")
    media = {"file": str(record.file), "start": record.start, "end": record.end}
    asked = Prediction(
        benchmark,
        question.id,
        question.group,
        prompt,
        question.truth,
        None,
        question.options,
        question.meta,
        media=media,
    )
    return {
        "id": question.id,
        "prompt": prompt,
        "truth": question.truth if isinstance(question.truth, str) else json.dumps(question.truth, ensure_ascii=False),
        "kind": record.kind,
        "file": str(record.file.absolute()),
        "sound": "" if record.sound is None else str(record.sound.absolute()),
        "record": json.dumps(_beside(record)),
        "prediction": asked.line(),
    }


def messages(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A document -> its prompt for chat models."""
    times = json.loads(doc["record"])
    medium = {"type": doc["kind"], "url": doc["file"]}
    if doc["kind"] == "video":
        medium |= {"start_time": times.get("start"), "end_time": times.get("end")}
    sound = [{"type": "audio", "url": doc["sound"]}] if doc["sound"] else []
    return [{"role": "user", "content": [medium, *sound, {"type": "text", "text": doc["prompt"]}]}]


def visuals(doc: Mapping[str, Any]) -> list[str]:
    """A document -> its file, for models that are asked in the old way."""
    return [doc["file"]]


def results(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A document and its answer -> what ``figure`` wants, for each; ``score`` is for the standard error of WAR."""
    asked = replace(Prediction.of(json.loads(doc["prediction"]), f"document {doc['id']}"), answer=answers[0])
    benchmark = benchmark_of(asked.benchmark)
    found: dict[str, dict[str, Any]] = {}
    for name in FIGURES[asked.benchmark]:
        found[name] = {"figure": name, "prediction": asked.line()}
        if name == "war":
            found[name]["score"] = 100.0 * (benchmark.parse(asked)[0] == benchmark.truth_of(asked))
    return found


def figure(items: Sequence[Mapping[str, Any]]) -> float:
    """What ``results`` made of all documents -> the benchmark's score of that name."""
    predictions = [Prediction.of(json.loads(item["prediction"]), "results") for item in items]
    scores = benchmark_of(predictions[0].benchmark).scores(predictions)
    return next(score.value for score in scores if score.name == items[0]["figure"])


def _beside(record: Record) -> dict[str, Any]:
    """What of a record has no place in messages, as a record file writes it."""
    said: dict[str, Any] = {"start": record.start, "rate": record.rate}
    if record.end is not None:
        said["end"] = record.end
    if record.kind == "video" and len(record.slots) == 1:
        said["slots"] = list(record.slots)
    if record.needs:
        said["needs"] = list(record.needs)
    if record.faces is not None:
        seen = record.faces
        said["faces"] = (
            [list(sighting.boxes[0]) if sighting.boxes else None for sighting in seen]
            if any(sighting.time is None for sighting in seen)
            else [
                {"time": s.time, "box": None if box is None else list(box)} for s in seen for box in s.boxes or (None,)
            ]
        )
    return said
