"""Data-Juicer's JSON lines: files by kind, and a text with a token for each of them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.source.jsonl import JsonlSource

KEYS = {"videos": "video", "images": "image", "audios": "audio"}
"""Key of the files of a line -> kind of a record."""

TAGS = {"video": "<video>\n", "image": "<image>\n", "audio": "<audio>\n"}
TOKENS = re.compile(r"<__dj__(video|image|audio)>|<\|__dj__eoc\|>")
"""Tokens that stand for a file, and at the end of a chunk of the text."""


class DataJuicerSource(JsonlSource):
    """Lines with one file each -> records whose answer is the text; a line without a text has no conversation.

    Reference: Data-Juicer 1.6 (docs/DatasetCfg, format of multimodal data), which names files absolutely or relative to
    the dataset.

    Args:
        path: the file.
        root: folder that all media paths are relative to and may not leave.
        follow_links: accept links in it to files outside.
        text_only: accept records without a file, which there are none of.
        add_audio: a video gets an ``<audio>`` in its text.
        question: that the text answers.
    """

    def __init__(
        self, path: str | Path, root: str | Path, *, question: str = "Describe the video.", **options: Any
    ) -> None:
        super().__init__(path, root, **options)
        self.question = question

    def entries(self) -> Iterator[tuple[str, Any]]:
        for place, line in super().entries():
            yield place, line if isinstance(line, BadSample) else self._convert(place, line)

    def _convert(self, place: str, line: Any) -> Any:
        if not isinstance(line, dict):
            return BadSample("malformed_record", f"{place}: expected a line of Data-Juicer, got {type(line).__name__}.")
        files = list[tuple[str, str]]()
        for key, kind in KEYS.items():
            files += [(kind, file) for file in line.get(key) or ()]
        if len(files) != 1:
            message = f"{place}: {len(files)} files; expected one in {', '.join(KEYS)}."
            return BadSample("several_files" if files else "no_media", message)
        kind, file = files[0]
        record: dict[str, Any] = {kind: relate(file, self.path.parent, self.root), "task": "caption"}
        if "__dj__stats__" in line:
            record["meta"] = {"stats": line["__dj__stats__"]}
        text = TOKENS.sub("", str(line.get("text") or "")).strip()
        return record | build_chat(TAGS[kind] + self.question, text)


def relate(file: str, folder: Path, root: Path) -> str:
    """Return the path of a file relative to the root; without being absolute, it is relative to a folder."""
    return os.path.relpath((folder / file).absolute(), root.absolute())


def build_chat(question: str, answer: str) -> dict[str, Any]:
    """Return the conversation of a record, nothing without an answer."""
    if not answer:
        return {}
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
