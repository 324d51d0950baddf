"""AFEW-VA: clips of films, valence and arousal of each frame."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.data.text_files import read_json
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource


class AFEWVASource(DatasetSource):
    """The clips of a copy of AFEW-VA -> the means of valence and arousal over their frames, as text.

    Reference: ``001/001.json`` with ``actor`` and ``frames``, number -> ``valence`` and ``arousal``, beside the frames
    ``001/00000.png``.
    """

    def clips(self) -> Iterator[Annotation]:
        files = sorted(file for file in self.path.rglob("*.json") if file.stem == file.parent.name)
        if not files:
            raise ValueError(f"path={self.path}: expected 001/001.json in this folder, got no such file.")
        for file in files:
            entry = read_json(file)
            try:
                frames = entry["frames"].values()
                valence, arousal = (_average(frames, key) for key in ("valence", "arousal"))
                answer, actor = f"valence {valence:.1f}, arousal {arousal:.1f}", str(entry["actor"])
            except (KeyError, TypeError, AttributeError, ZeroDivisionError):
                message = "expected actor, and frames with valence and arousal."
                yield Annotation(str(file), error=BadSample("malformed_file", message))
                continue
            yield Annotation(str(file), answer, {"video": self.make_relative(file.parent)}, person=actor)


def _average(frames: Collection[Mapping[str, Any]], key: str) -> float:
    return float(sum(frame[key] for frame in frames) / len(frames))
