"""CelebV-HQ: faces of celebrities, their attributes, actions and emotions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.data.text_files import read_json
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.recordings import read_value

ATTRIBUTES = ("appearance", "action", "emotion")


class CelebVHQSource(DatasetSource):
    """The clips of a copy of CelebV-HQ -> names of their attributes, separated by commas, or the emotion of a span.

    Reference: its repository, "JSON File Structure": ``celebvhq_info.json`` with 40 attributes of appearance and 35 of
    action as zeros and ones, and one emotion, or several with seconds. It names videos and no people: clips of one
    video are kept in one split.

    Args:
        attributes: ``appearance``, ``action`` or ``emotion``.
        options: of ``DatasetSource``.
    """

    def __init__(self, path: str | Path, root: str | Path, *, attributes: str = "appearance", **options: Any) -> None:
        if attributes not in ATTRIBUTES:
            raise ValueError(f"source.attributes={attributes}: choose from {', '.join(ATTRIBUTES)}.")
        super().__init__(path, root, **options)
        self.attributes = attributes
        if attributes == "emotion" and options.get("options") is None:
            self.options = None  # those that occur

    def clips(self) -> Iterator[Annotation]:
        file = self.find("celebvhq_info.json")
        content = read_json(file)
        meta, clips = (read_value(content, key, str(file), dict) for key in ("meta_info", "clips"))
        names = list[str]()
        if self.attributes != "emotion":
            names = read_value(meta, f"{self.attributes}_mapping", f"{file}: meta_info", list)
        num_empty = 0
        for name, clip in clips.items():
            place = f"{file}: {name}"
            try:
                annotations = list(self._read_clip(place, name, clip, names))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                message = f"expected ytb_id and attributes.{self.attributes}, {type(error).__name__}: {error}."
                yield Annotation(place, error=BadSample("malformed_record", message))
                continue
            num_empty += not annotations
            yield from annotations
        if num_empty:
            self.notes.append(f"clips without such an attribute: {num_empty}")

    def _read_clip(self, place: str, name: str, clip: Mapping[str, Any], names: list[str]) -> Iterator[Annotation]:
        files, person = {"video": self.find_media(name)}, str(clip["ytb_id"])
        value = clip["attributes"][self.attributes]
        if self.attributes != "emotion":
            words = [word.replace("_", " ").lower() for word, flag in zip(names, value, strict=True) if flag]
            if words:
                yield Annotation(place, ", ".join(words), files, person=person)
        elif not value["sep_flag"]:
            yield Annotation(place, value["labels"], files, person=person)
        else:
            for span in value["labels"]:
                start, end = str(span["start_sec"]), str(span["end_sec"])
                yield Annotation(place, span["emotion"], files, person=person, start=start, end=end)
