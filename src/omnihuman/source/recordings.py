"""Speech in long recordings, whose segments are in one JSON file: GigaSpeech and WenetSpeech."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource


class RecordingsSource(DatasetSource):
    """The segments of recordings -> their texts.

    Args:
        subset: of the training segments, by its official name.
        options: of ``DatasetSource``.

    Attributes:
        file: the JSON file, below the folder of the data set.
        text_key: of a segment's text.
        subsets: official names of the training subsets.
        splits: official name of an evaluation subset -> its split.

    Raises:
        ValueError: there is no such subset.
    """

    file: ClassVar[str]
    text_key: ClassVar[str]
    subsets: ClassVar[tuple[str, ...]]
    splits: ClassVar[Mapping[str, str]]

    def __init__(self, path: str | Path, root: str | Path, *, subset: str, **options: Any) -> None:
        if subset not in self.subsets:
            raise ValueError(f"source.subset={subset}: choose from {', '.join(self.subsets)}.")
        super().__init__(path, root, **options)
        self.split_of = {subset: "train", **self.splits}

    def clips(self) -> Iterator[Annotation]:
        num_silent = 0
        for location, recording in read_recordings(self.find(self.file)):
            file = self.make_relative(self.media_folder / read_value(recording, "path", location, str))
            for number, segment in enumerate(read_value(recording, "segments", location, list)):
                place = f"{location}.segments[{number}]"
                split = self._find_split(read_value(segment, "subsets", place, list))
                text = self.clean(read_value(segment, self.text_key, place, str))
                if split is None or not text:
                    num_silent += split is not None
                    continue
                seconds = [str(read_value(segment, key, place, int, float)) for key in ("begin_time", "end_time")]
                yield Annotation(place, text, {"audio": file}, start=seconds[0], end=seconds[1], split=split)
        if num_silent:
            self.notes.append(f"segments without speech: {num_silent}")

    @abstractmethod
    def clean(self, text: str) -> str:
        """Return the text of a segment without tags, empty for one without speech."""

    def _find_split(self, names: list[Any]) -> str | None:
        """Return the split of a segment in these subsets, which GigaSpeech writes in braces; ``None`` for no split."""
        splits = [self.split_of.get(str(name).strip("{}")) for name in names]
        return next(filter(None, splits), None)


def read_recordings(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the entries of ``audios`` one by one: the file of a full corpus does not fit into memory.

    Raises:
        ValueError: there is no such file, or it holds no recordings.
    """
    import ijson

    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; name the folder of {path.name} and audio/.")
    number = -1
    with path.open("rb") as raw:
        try:
            for number, recording in enumerate(ijson.items(raw, "audios.item", use_float=True)):
                yield f"{path}: audios[{number}]", recording
        except ijson.JSONError as error:
            raise ValueError(f"{path}: this is not JSON after audios[{number}] ({error}); unpack it again.") from error
    if number < 0:
        raise ValueError(f"{path}: there is no list `audios`, or it is empty; this is not {path.name}.")


def read_value(entry: Any, key: str, location: str, *types: type) -> Any:
    """Return a value of an entry.

    Raises:
        ValueError: it is missing, or of another type.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, types) or isinstance(value, bool):
        expected = " or ".join(value_type.__name__ for value_type in types)
        raise ValueError(f"{location}: {key} is {value!r:.80}, it must be a {expected}.")
    return value
