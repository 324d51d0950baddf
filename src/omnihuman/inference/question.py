"""Records of questions: on the command line, in a file of questions, or in Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from omnihuman.data.record import Record, parse_span
from omnihuman.modality import KINDS, View, prompt_head


def build_question(
    question: Mapping[str, Any] | DictConfig, name: str = "question", location: str = "generate", root: Path = Path()
) -> Record:
    """Return the record of a question on the command line, or in a file of questions.

    Args:
        question: ``instruction``, at most one of ``video``, ``image`` (a path, or a list of several) and ``audio``, and
            ``start``, ``end``, ``view``.
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
    kind, paths = "text", [Path()]
    for key, value in files.items():
        kind, paths = key, [root / Path(name).expanduser() for name in _list_names(value)]
        if missing := [path for path in paths if not path.exists()]:
            raise ValueError(f"{location}: {kind}={missing[0]}: there is no such file.")
    text = prompt_head(kind) * len(paths) + str(question["instruction"])
    start, end = parse_span({"start": question.get("start"), "end": question.get("end")}, location)
    return Record(
        id=name,
        file=paths[0],
        more_images=tuple(paths[1:]),
        kind=kind,
        messages=(("user", text), ("assistant", "")),
        slots=View.of_kind(kind).slots,
        start=start,
        end=end,
        location=location,
    )


def _list_names(value: str | Sequence[str]) -> list[str]:
    """Return the paths of a key: one, or a list, which a command line writes as ``[a.png,b.png]``."""
    if not isinstance(value, str):
        return list(value)
    if value.startswith("[") and value.endswith("]"):
        return [name.strip() for name in value[1:-1].split(",")]
    return [value]


def _check_types(question: Mapping[str, Any] | DictConfig, location: str) -> None:
    for key in ("instruction", *KINDS, "view"):
        value = question.get(key)
        if key == "image" and isinstance(value, list | ListConfig) and all(isinstance(name, str) for name in value):
            continue
        if not isinstance(value, str | None):
            raise ValueError(f"{location}: {key} must be text in quotes, got {question[key]!r}.")
    for key in ("start", "end"):
        value = question.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ValueError(f"{location}: {key} must be seconds, got {value!r}.")
