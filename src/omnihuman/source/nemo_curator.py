"""Clips of NVIDIA's NeMo Curator: a JSON file for each in ``metas/``, and the clip itself in ``clips/``."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.source.data_juicer import build_chat, relate
from omnihuman.source.files import FileSource

FILTERED = "filtered_clips"
"""Folder of the clips that Curator has filtered out, which are no records."""

METAS = "metas/**/*.json"
DETAILS = ("source_video", "duration_span", "motion_score", "aesthetic_score")


class NemoCuratorSource(FileSource):
    """The clips of an output folder -> records whose answer is the caption of their windows, if they have one.

    An enhanced caption goes before the first one, and the captions of several windows are one text.

    Reference: NeMo Curator 1.4, ``ClipWriterStage``: ``metas/v0/<uuid>.json`` with ``span_uuid``, ``clip_location``,
    ``windows`` and scores. Differs from it: a clip is looked for below the folder first, which may have been moved.

    Args:
        path: the output folder.
        root: folder that all media paths are relative to and may not leave.
        follow_links: accept links in it to files outside.
        text_only: accept records without a file, which there are none of.
        add_audio: a video gets an ``<audio>`` in its text.
        question: that the caption answers.
    """

    def __init__(
        self, path: str | Path, root: str | Path, *, question: str = "Describe the video.", **options: Any
    ) -> None:
        super().__init__(path, root, **options)
        self.question = question

    def entries(self) -> Iterator[tuple[str, Any]]:
        self._check_path()
        for file in sorted(self.path.glob(METAS)):
            try:
                meta = json.loads(file.read_bytes())
                location = str(meta["clip_location"])
            except (ValueError, KeyError, TypeError) as error:
                yield str(file), BadSample("malformed_json", f"{file}: no metadata of a clip ({error!r}).")
                continue
            if FILTERED not in Path(location).parts:
                yield str(file), self._convert(meta, location)

    def _convert(self, meta: dict[str, Any], location: str) -> dict[str, Any]:
        local = self.path / "clips" / Path(location).name
        clip = str(local) if local.is_file() else location
        record = {"video": relate(clip, self.path, self.root), "task": "caption"}
        if "span_uuid" in meta:
            record["id"] = str(meta["span_uuid"])
        details = {key: meta[key] for key in DETAILS if key in meta}
        return record | {"meta": details} | build_chat(f"<video>\n{self.question}", read_caption(meta))

    def _check_path(self) -> None:
        self._check_root()
        if not (self.path / "metas").is_dir():
            raise ValueError(f"path={self.path}: expected an output folder of NeMo Curator, with metas/ and clips/.")

    def fingerprint(self) -> Mapping[str, Any]:
        digest = hashlib.sha256()
        for file in sorted(self.path.glob(METAS)):
            digest.update(file.read_bytes())
        return {"path": str(self.path), "sha256": digest.hexdigest(), "root": str(self.root.resolve()), **self.options}


def read_caption(meta: dict[str, Any]) -> str:
    """Return the captions of the windows of a clip, in order; an enhanced one goes before others."""
    texts = []
    for window in meta.get("windows") or ():
        names = sorted((name for name in window if name.endswith("_caption")), key=lambda name: "enhanced" not in name)
        captions = [str(window[name]).strip() for name in names if window[name]]
        texts += captions[:1]
    return " ".join(texts)
