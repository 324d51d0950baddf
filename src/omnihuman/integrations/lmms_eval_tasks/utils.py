"""Benchmarks as tasks of lmms-eval: questions as documents, parsers and scores as metrics."""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from omnihuman.benchmark.base import Benchmark, Prediction, Question
from omnihuman.data.record import Record
from omnihuman.modality import strip_tags

SCORES = {
    "dfew": ("war", "uar"),
    "mafw": ("war", "uar"),
    "dfec": ("cider", "rouge_l"),
    "emer_ov": ("ew_level1", "ew_level2"),
    "sample": ("war", "uar"),
}
"""Benchmark -> scores of its task: those without a judge."""


@cache
def load_benchmark(name: str) -> Benchmark:
    """Build a benchmark from its yaml and the options in ``OMNIHUMAN_<NAME>``: ``"root=/data/DFEW folds=[1]"``.

    Raises:
        ValueError: options are missing.
    """
    from omegaconf import OmegaConf

    from omnihuman.build import build, compose_config

    variable = f"OMNIHUMAN_{name.upper()}"
    options = [f"benchmark.{option}" for option in shlex.split(os.environ.get(variable, ""))]
    config = compose_config([f"benchmark={name}", *options], "evaluate").benchmark
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        first = missing[0].rpartition(".")[2]
        raise ValueError(
            f"{name}: the option {first} is missing: export {variable}='{first}=...' (options: benchmark/{name}.yaml)."
        )
    benchmark: Benchmark = build(config)
    return benchmark


def build_documents(stub: Any) -> Any:
    """Build the documents of the benchmark with the name of the split; they replace the one line of ``stub.json``.

    Raises:
        ValueError: the benchmark's data is invalid, or its prompting has two turns.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    name = str(stub.split)
    benchmark = load_benchmark(name)
    questions = benchmark.questions()
    if questions and benchmark.follow_up(questions[0], "") is not None:
        raise ValueError(f"{name}: lmms-eval tasks have one turn; for two: omnihuman evaluate benchmark={name} ...")
    documents = [build_document(name, question) for question in questions]
    # computed here, because `datasets` 5.2 cannot hash a table of pyarrow 26
    fingerprint = hashlib.sha256(json.dumps(documents).encode()).hexdigest()[:16]
    return Dataset(InMemoryTable.from_pylist(documents), fingerprint=fingerprint)


def build_document(benchmark: str, question: Question) -> dict[str, Any]:
    """Build the document of a question: prompt, media file, and the prediction without an answer."""
    record = question.record
    prompt = strip_tags(record.messages[0][1])
    prediction = Prediction(
        benchmark,
        question.id,
        question.group,
        prompt,
        question.reference,
        None,
        question.options,
        question.meta,
        media={"file": str(record.file), "start": record.start, "end": record.end},
    )
    reference = question.reference
    if not isinstance(reference, str):
        reference = json.dumps(reference, ensure_ascii=False)
    return {
        "id": question.id,
        "prompt": prompt,
        "reference": reference,
        "kind": record.kind,
        "file": str(record.file.absolute()),
        "audio_track": "" if record.audio_track is None else str(record.audio_track.absolute()),
        "record": json.dumps(_record_fields(record)),
        "prediction": prediction.to_json(),
    }


def build_messages(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the prompt of a document for chat models."""
    times = json.loads(doc["record"])
    medium = {"type": doc["kind"], "url": doc["file"]}
    if doc["kind"] == "video":
        medium |= {"start_time": times.get("start"), "end_time": times.get("end")}
    audio = [{"type": "audio", "url": doc["audio_track"]}] if doc["audio_track"] else []
    return [{"role": "user", "content": [medium, *audio, {"type": "text", "text": doc["prompt"]}]}]


def list_media(doc: Mapping[str, Any]) -> list[str]:
    """Return the media file of a document, for models without chat messages."""
    return [doc["file"]]


def score_answer(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Build the inputs of ``aggregate`` from a document and its answer; ``score`` gives the standard error of WAR."""
    unanswered = Prediction.from_json(json.loads(doc["prediction"]), f"document {doc['id']}")
    prediction = replace(unanswered, answer=answers[0])
    benchmark = load_benchmark(prediction.benchmark)
    items: dict[str, dict[str, Any]] = {}
    for name in SCORES[prediction.benchmark]:
        items[name] = {"name": name, "prediction": prediction.to_json()}
    if "war" in items:
        is_correct = benchmark.parse(prediction)[0] == benchmark.parse_reference(prediction)
        items["war"]["score"] = 100.0 * is_correct
    return items


def aggregate(items: Sequence[Mapping[str, Any]]) -> float:
    """Compute the benchmark's score from the results of all documents."""
    predictions = [Prediction.from_json(json.loads(item["prediction"]), "results") for item in items]
    for score in load_benchmark(predictions[0].benchmark).scores(predictions):
        if score.name == items[0]["name"]:
            return score.value
    raise ValueError(f"{predictions[0].benchmark} has no score {items[0]['name']}.")


def _record_fields(record: Record) -> dict[str, Any]:
    """Return the fields of a record that messages lack, in the format of a record file."""
    fields: dict[str, Any] = {"start": record.start, "fps": record.fps}
    if record.end is not None:
        fields["end"] = record.end
    if record.kind == "video" and len(record.slots) == 1:
        fields["slots"] = list(record.slots)
    if record.needs:
        fields["needs"] = list(record.needs)
    if record.faces is not None:
        fields["faces"] = _face_entries(record.faces)
    return fields


def _face_entries(faces: Sequence[Any]) -> list[Any]:
    """Return one box per frame, or one entry with time and box per face."""
    entries: list[Any] = []
    if any(face.time is None for face in faces):
        for face in faces:
            entries.append(list(face.boxes[0]) if face.boxes else None)
        return entries
    for face in faces:
        if not face.boxes:
            entries.append({"time": face.time, "box": None})
        for box in face.boxes:
            entries.append({"time": face.time, "box": list(box)})
    return entries
