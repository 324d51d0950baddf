"""Records of questions: on the command line, in a file of questions, or in Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from omnihuman.data.record import Record, parse_span
from omnihuman.modality import KINDS, View, prompt_head


def build_question(
    question: Mapping[str, Any] | DictConfig, name: str = "question", location: str = "generate", root: Path = Path()
) -> Record:
    """Return the record of a question on the command line, or in a file of questions.

    Args:
        question: ``instruction``, at most one of ``video``, ``image`` and ``audio``, and ``start``, ``end``, ``view``.
        name: its id.
        location: its place, for messages.
        root: folder for relative paths.

    Raises:
        ValueError: the instruction is missing, there is not exactly one file (or ``view=text``), it does not exist, or
            start and end are no span.
    """
    _check_types(question, location)
    if not question.get("instruction"):
        raise ValueError(f"{location}: the question is missing; give instruction=...")
    files = {kind: question[kind] for kind in KINDS if question.get(kind)}
    is_text_only = not files and question.get("view") == "text"
    if len(files) != 1 and not is_text_only:
        keys = " and ".join(f"{kind}=" for kind in KINDS)
        raise ValueError(f"{location}: expected exactly one of {keys} (or view=text), got {files or 'none'}.")
    kind, file = "text", Path()
    for key, path in files.items():
        kind, file = key, root / Path(str(path)).expanduser()
        if not file.exists():
            raise ValueError(f"{location}: {kind}={file}: there is no such file.")
    text = prompt_head(kind) + str(question["instruction"])
    start, end = parse_span({"start": question.get("start"), "end": question.get("end")}, location)
    return Record(
        id=name,
        file=file,
        kind=kind,
        messages=(("user", text), ("assistant", "")),
        slots=View.of_kind(kind).slots,
        start=start,
        end=end,
        location=location,
    )


def _check_types(question: Mapping[str, Any] | DictConfig, location: str) -> None:
    for key in ("instruction", *KINDS, "view"):
        if not isinstance(question.get(key), str | None):
            raise ValueError(f"{location}: {key} must be text in quotes, got {question[key]!r}.")
    for key in ("start", "end"):
        value = question.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{location}: {key} must be seconds, got {value!r}.")
