"""Label Studio's files: rows as its tasks with the form that people fill in, and its annotations as verdicts."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from omnihuman.operator.verdicts import VERDICTS, Verdict, make_patch, write_text
from omnihuman.reviewing.queue import Item, Queue, check_value

CHOICE = "verdict"
"""Name of the choice in the form; that of a text is its column."""

MEDIA = {"Image": (".jpg", ".jpeg", ".png", ".webp"), "Audio": (".wav", ".mp3", ".m4a", ".flac")}
"""Tag of the form -> suffixes of its files; others are videos."""


def build_tasks(queue: Queue, prefix: str) -> list[dict[str, Any]]:
    """Return a task for each row that is not judged by enough people.

    Args:
        queue: of the rows.
        prefix: what the server's address of a file begins with; the path below the root of the media follows.
    """
    review, root = queue.waiting.review, queue.waiting.state.root
    tasks = []
    for key, item in queue.items.items():
        if len(queue.people.get(key, {})) >= queue.needs(key):
            continue
        data = {"key": key, "id": item.row["id"], "media": f"{prefix}{_name_file(item, root, queue.waiting.state.out)}"}
        data |= {"start": item.row["start"], "end": item.row["end"]}
        for title, column in review.show.items():
            data[f"show_{title}"] = _format(item.row[column])
        for column in review.edit:
            data[column] = write_text(item.row[column])
        tasks.append({"data": data})
    return tasks


def _name_file(item: Item, root: Path, out: Path) -> str:
    file: Path = item.row["file"]
    for folder in (root, out.absolute()):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return file.as_posix()


def _format(value: Any) -> str:
    return "" if value is None else write_text(value)


def build_form(queue: Queue) -> str:
    """Return the labelling interface of the tasks as XML; columns that are hidden from people are not in it."""
    review = queue.waiting.review
    tags = Counter(_choose_tag(item.row["file"]) for item in queue.items.values())
    lines = ["<View>", f'  <{tags.most_common(1)[0][0]} name="media" value="$media"/>']
    for title in review.show:
        text = f"  <Text name={quoteattr(title)} value={quoteattr(f'$show_{title}')}/>"
        lines += [f"  <Header value={quoteattr(title)}/>", text]
    for column in review.edit:
        lines += [
            f"  <Header value={quoteattr(column)}/>",
            f'  <TextArea name={quoteattr(column)} toName="media" value={quoteattr(f"${column}")} maxSubmissions="1" '
            'editable="true" rows="4"/>',
        ]
    lines.append(f'  <Choices name="{CHOICE}" toName="media" choice="single" required="true">')
    lines += [f'    <Choice value="{verdict}" hotkey="{verdict[0]}"/>' for verdict in VERDICTS]
    lines += ["  </Choices>", "</View>"]
    return "\n".join(lines) + "\n"


def _choose_tag(file: Path) -> str:
    return next((tag for tag, suffixes in MEDIA.items() if file.suffix.lower() in suffixes), "Video")


def read_annotations(queue: Queue, file: Path) -> tuple[list[Verdict], Counter[str]]:
    """Return the verdicts of an export (JSON) that are not there yet, and the reasons why others were passed over.

    Raises:
        ValueError: the file is no export.
    """
    try:
        tasks = json.loads(file.read_bytes())
        entries: list[tuple[Any, Any]] = []
        for task in tasks:
            entries += [(task["data"], annotation) for annotation in task["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"file={file}: expected an export of Label Studio as JSON, not as JSON-MIN.") from error
    known = {(verdict.key, verdict.reviewer, verdict.time) for verdict in queue.verdicts}
    verdicts: list[Verdict] = []
    passed = Counter[str]()
    for data, annotation in entries:
        item = queue.items.get(str(data.get("key")))
        if item is None:
            passed["of a row that is not here, or has another content now"] += 1
        elif annotation.get("was_cancelled") or not annotation.get("result"):
            passed["skipped by the person"] += 1
        else:
            verdict = _read_verdict(queue, item, annotation)
            if (verdict.key, verdict.reviewer, verdict.time) in known:
                passed["imported before"] += 1
            else:
                verdicts.append(verdict)
    return sorted(verdicts, key=lambda verdict: verdict.time), passed


def _read_verdict(queue: Queue, item: Item, annotation: Mapping[str, Any]) -> Verdict:
    """Return the verdict of an annotation; a changed text makes an acceptance an edit.

    Raises:
        ValueError: it has no verdict, or a text has another form.
    """
    place = f"annotation {annotation.get('id')} of {item.row['source']}"
    values = {entry["from_name"]: entry["value"] for entry in annotation["result"]}
    choice = (values.get(CHOICE, {}).get("choices") or [None])[0]
    if choice not in VERDICTS:
        raise ValueError(f"{place}: {CHOICE} is {choice!r}; expected one of {', '.join(VERDICTS)}.")
    edits = {}
    for column, kind in queue.waiting.review.edit.items():
        text = _join(values.get(column, {}).get("text"))
        old = write_text(item.row[column])
        if choice in ("accept", "edit") and text is not None and text != old:
            try:
                check_value(kind, column, text if kind == "text" else json.loads(text))
            except ValueError as error:
                raise ValueError(f"{place}: {column}: {error}") from error
            edits[column] = make_patch(old, text)
    if choice in ("accept", "edit"):
        choice = "edit" if edits else "accept"
    time = str(annotation.get("created_at", "")).partition(".")[0].removesuffix("Z") + "Z"
    seconds = annotation.get("lead_time")
    return Verdict(item.key, item.row["id"], _name_person(annotation), choice, edits, time, seconds)


def _join(text: str | Sequence[str] | None) -> str | None:
    return text if text is None or isinstance(text, str) else "\n".join(text)


def _name_person(annotation: Mapping[str, Any]) -> str:
    person = annotation.get("completed_by")
    if isinstance(person, Mapping):
        person = person.get("email") or person.get("id")
    return f"label-studio {person}"
