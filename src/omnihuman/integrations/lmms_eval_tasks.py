"""A benchmark as a task of lmms-eval: ``python -m omnihuman.integrations.lmms_eval_tasks tasks benchmark=dfew ...``.

It writes a yaml and its documents: the questions of the benchmark, with its parser and its scores as metrics.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import Benchmark, Prediction, Question, score_unanswered
from omnihuman.data.record import TEXT_KEYS, Record
from omnihuman.modality import strip_tags
from omnihuman.verb import program

log = logging.getLogger(__name__)

KEYS = ("benchmark", "tag")
"""Keys that a task takes of those of ``omnihuman evaluate``; the model and its view are arguments of lmms-eval."""

TASK = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {task}.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_messages: !function {module}.build_messages
doc_to_visual: !function {module}.list_media
doc_to_text: prompt
doc_to_target: reference
process_results: !function {module}.score_answer
generation_kwargs: {{max_new_tokens: {max_new_tokens}, do_sample: false, until: []}}
metadata: {{version: 1.0}}
metric_list:
"""
METRIC = """\
  - metric: {name}
    aggregation: !function {module}.aggregate
    higher_is_better: {higher_is_better}
"""
MODULE = "omnihuman.integrations.lmms_eval_tasks"


@program("evaluate")
def main(arguments: Sequence[str]) -> int:
    """Write the task of a benchmark into a folder, for ``--include_path`` of lmms-eval."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    if not arguments or "=" in arguments[0]:
        raise ValueError("name the folder first: tasks benchmark=dfew benchmark.root=/data/DFEW")
    folder, *overrides = arguments
    task = write_task(Path(folder), overrides)
    log.info("written to %s; run lmms_eval with --include_path %s --tasks %s", folder, folder, task)
    return 0


def write_task(folder: Path, overrides: Sequence[str]) -> str:
    """Write ``omnihuman_<benchmark>[_<tag>].yaml`` and its documents; return the name of the task.

    Args:
        folder: of tasks.
        overrides: of the keys ``benchmark`` and ``tag``, as for ``omnihuman evaluate``.

    Raises:
        ValueError: the benchmark's data or an option is invalid, or its questions cannot be those of lmms-eval.
    """
    from omnihuman.build import compose_config
    from omnihuman.overrides import without_keys
    from omnihuman.values import check_types

    for unknown in without_keys(overrides, *KEYS):
        raise ValueError(f"{unknown}: a task of lmms-eval takes {' and '.join(KEYS)} alone.")
    check_types(overrides, "evaluate")
    tag = compose_config(overrides, "evaluate").tag
    benchmark = load_benchmark(tuple(overrides))
    questions = benchmark.questions()
    check_questions(benchmark, questions)
    # without log-probabilities, which chat models do not return
    scores = score_unanswered(benchmark, questions, log_probs=False)
    source = {"overrides": list(overrides), "scores": [score.name for score in scores]}
    task = "_".join(filter(None, ["omnihuman", benchmark.name, tag]))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{task}.jsonl").open("w", encoding="utf-8") as lines:
        for question in questions:
            document = build_document(benchmark.name, question) | {"source": json.dumps(source)}
            lines.write(f"{json.dumps(document, ensure_ascii=False)}\n")
    text = TASK.format(task=task, module=MODULE, max_new_tokens=benchmark.max_new_tokens)
    for score in scores:
        higher_is_better = str(score.higher_is_better).lower()
        text += METRIC.format(name=json.dumps(score.name), module=MODULE, higher_is_better=higher_is_better)
    (folder / f"{task}.yaml").write_text(text, encoding="utf-8")
    return task


@cache
def load_benchmark(overrides: tuple[str, ...]) -> Benchmark:
    """Build a benchmark from its yaml and options.

    Raises:
        ValueError: there is no benchmark, or an option is missing or invalid.
    """
    from omnihuman.build import build, compose_config

    config = compose_config(list(overrides), "evaluate").get("benchmark")
    if config is None:
        raise ValueError("benchmark= is missing: name one of conf/benchmark, such as benchmark=dfew.")
    benchmark: Benchmark = build(config)
    return benchmark


def check_questions(benchmark: Benchmark, questions: Sequence[Question]) -> None:
    """Check that the questions have the form of lmms-eval: one turn about at most one video, one audio and one image.

    Raises:
        ValueError: they have not.
    """
    cure = f"use omnihuman evaluate benchmark={benchmark.name}"
    if benchmark.log_probs and not benchmark.labels:
        raise ValueError(f"{benchmark.name}: it needs log-probabilities, which lmms-eval does not ask for; {cure}.")
    for question in questions:
        record = question.record
        if record.second_clip is not None or record.more_images:
            raise ValueError(f"{question.id}: the question is about several videos or images; {cure}.")
        if len(record.messages) > 2 or benchmark.follow_up(question, "") is not None:
            raise ValueError(f"{question.id}: the question has several turns, a task of lmms-eval has one; {cure}.")


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
    files = {"file": record.file if record.files else None, "audio_track": record.audio_track}
    paths = {key: str(file.absolute()) for key, file in files.items() if file is not None}
    return {
        "id": question.id,
        "prompt": prompt,
        "reference": reference,
        "kind": record.kind,
        "file": "",
        "audio_track": "",
        **paths,
        "record": json.dumps(_record_fields(record)),
        "prediction": prediction.to_json(),
    }


def build_messages(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Build the prompt of a document for chat models."""
    content: list[dict[str, Any]] = []
    times = json.loads(doc["record"])
    if doc["kind"] != "text":
        content.append({"type": doc["kind"], "url": doc["file"]})
    if doc["kind"] == "video":
        content[0] |= {"start_time": times.get("start"), "end_time": times.get("end")}
    if doc["audio_track"]:
        content.append({"type": "audio", "url": doc["audio_track"]})
    return [{"role": "user", "content": [*content, {"type": "text", "text": doc["prompt"]}]}]


def list_media(doc: Mapping[str, Any]) -> list[str]:
    """Return the media file of a document, for models without chat messages."""
    return [doc["file"]] if doc["file"] else []


def score_answer(doc: Mapping[str, Any], answers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Build the inputs of ``aggregate`` from a document and its answer; ``score`` gives the standard error of WAR."""
    source = json.loads(doc["source"])
    unanswered = Prediction.from_json(json.loads(doc["prediction"]), f"document {doc['id']}")
    prediction = replace(unanswered, answer=answers[0])
    benchmark = load_benchmark(tuple(source["overrides"]))
    items: dict[str, dict[str, Any]] = {}
    for name in source["scores"]:
        items[name] = {"name": name, "overrides": source["overrides"], "prediction": prediction.to_json()}
    if "war" in items:
        is_correct = benchmark.parse(prediction)[0] == benchmark.parse_reference(prediction)
        items["war"]["score"] = 100.0 * is_correct
    return items


def aggregate(items: Sequence[Mapping[str, Any]]) -> float:
    """Compute the benchmark's score from the results of all documents; NaN for a score that these do not have."""
    predictions = [Prediction.from_json(json.loads(item["prediction"]), "results") for item in items]
    for score in load_benchmark(tuple(items[0]["overrides"])).scores(predictions):
        if score.name == items[0]["name"]:
            return score.value
    return float("nan")  # of a group without a document, as with --limit


def _record_fields(record: Record) -> dict[str, Any]:
    """Return the fields of a record that messages lack, in the format of a record file."""
    fields: dict[str, Any] = {"start": record.start, "fps": record.fps}
    fields |= {key: record.meta[key] for key in TEXT_KEYS if key in record.meta}
    streams = {"video_stream": record.video_stream, "audio_stream": record.audio_stream}
    fields |= {key: number for key, number in streams.items() if number is not None}
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


if __name__ == "__main__":
    sys.exit(main())
