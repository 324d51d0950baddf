"""A few clips of the built-in corpus, to try a model on."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from omnihuman.data.media import probe, read
from omnihuman.data.record import MEDIA, TAGS
from omnihuman.encoder.whisper import LogMel
from omnihuman.serving.pictures import painted

TASKS = {
    "talk": "emotion",
    "act": "body",
    "interact": "interaction",
    "speech": "transcription",
    "sound": "sound",
    "still": "face",
}
"""Kind of scene -> what is asked about it."""


@dataclass(frozen=True)
class Example:
    """A clip of the built-in corpus.

    Attributes:
        kind: of the file: ``video``, ``audio``, ``image``.
        file: where it lies.
        shown: a copy that a page may show.
        name: of the scene's kind.
        question: that goes with it.
        picture: a small one of what is seen, or else heard.
        faces: where they are, as the record says.
    """

    kind: str
    file: Path
    shown: Path
    name: str
    question: str
    picture: Path
    faces: Any = None


def examples_of(root: Path, kinds: set[str], folder: Path) -> list[Example]:
    """One clip for each kind of scene in the corpus' test split; none where the corpus is not there.

    Args:
        root: of the corpus.
        kinds: of files that the model can be asked about.
        folder: where copies go that the page may show.
    """
    records = root / "test.json"
    if not records.is_file():
        return []
    found: dict[str, Example] = {}
    for raw in json.loads(records.read_text(encoding="utf-8")):
        scene = raw.get("meta", {}).get("kind")
        kind = next((kind for kind in MEDIA if kind in raw), "")
        if scene not in found and TASKS.get(scene) == raw.get("task") and kind in kinds:
            found[scene] = _example(raw, kind, scene, root, folder)
    return [found[scene] for scene in TASKS if scene in found]


def _example(raw: dict[str, Any], kind: str, scene: str, root: Path, folder: Path) -> Example:
    file, question = root / raw[kind], raw["conversations"][0]["value"]
    for tag in TAGS:
        question = question.replace(f"{tag}\n", "")
    shown = folder / file.name
    shutil.copyfile(file, shown)
    picture = folder / f"{file.stem}.jpg"
    if kind == "audio":
        _, _, waveform = read(file, num_samples=probe(file).num_samples())
        assert waveform is not None
        small = painted(LogMel(40)(waveform)).convert("RGB")
    else:
        frames, _, _ = read(file, num_frames=1)
        assert frames is not None
        small = Image.fromarray(frames[0].permute(1, 2, 0).numpy())
    small.resize((96, 96)).save(picture)
    return Example(kind, file, shown, scene, question, picture, raw.get("faces"))
