"""Clips of the built-in corpus to try a model on."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from omnihuman.data.media import probe, read
from omnihuman.encoder.whisper import LogMel
from omnihuman.modality import KINDS, strip_tags
from omnihuman.serving.rendering import draw_spectrogram

TASKS = {
    "talk": "emotion",
    "act": "body",
    "interact": "interaction",
    "speech": "transcription",
    "sound": "sound",
    "still": "face",
}
"""Kind of scene -> task of its example question."""


@dataclass(frozen=True)
class Example:
    """A clip of the built-in corpus with a question.

    Attributes:
        kind: ``video``, ``audio`` or ``image``.
        file: path of the clip.
        copy: path of a copy that the page may show.
        name: kind of the scene.
        question: about the clip.
        thumbnail: path of a small image: a frame, or the spectrogram of audio.
        faces: bounding boxes of the record.
    """

    kind: str
    file: Path
    copy: Path
    name: str
    question: str
    thumbnail: Path
    faces: Any = None


def find_examples(root: Path, kinds: set[str], folder: Path) -> list[Example]:
    """Return one clip for each kind of scene in the test split of the corpus, none if there is no corpus.

    Args:
        root: folder of the corpus.
        kinds: of media that the model reads.
        folder: for copies that the page may show.
    """
    records = root / "test.json"
    if not records.is_file():
        return []
    examples: dict[str, Example] = {}
    for raw in json.loads(records.read_text(encoding="utf-8")):
        scene = raw.get("meta", {}).get("kind")
        kind = next((kind for kind in KINDS if kind in raw), "")
        if scene not in examples and TASKS.get(scene) == raw.get("task") and kind in kinds:
            examples[scene] = _build_example(raw, kind, scene, root, folder)
    return [examples[scene] for scene in TASKS if scene in examples]


def _build_example(raw: dict[str, Any], kind: str, scene: str, root: Path, folder: Path) -> Example:
    file = root / raw[kind]
    question = strip_tags(raw["conversations"][0]["value"])
    copy = folder / file.name
    shutil.copyfile(file, copy)
    thumbnail = folder / f"{file.stem}.jpg"
    _draw_thumbnail(file, kind).resize((96, 96)).save(thumbnail)
    return Example(kind, file, copy, scene, question, thumbnail, raw.get("faces"))


def _draw_thumbnail(file: Path, kind: str) -> Image.Image:
    """Return the spectrogram of audio, or a frame of a video or image."""
    if kind == "audio":
        _, _, waveform = read(file, num_samples=probe(file).num_samples())
        assert waveform is not None
        return draw_spectrogram(LogMel(40)(waveform)).convert("RGB")
    frames, _, _ = read(file, num_frames=1)
    assert frames is not None
    return Image.fromarray(frames[0].permute(1, 2, 0).numpy())
