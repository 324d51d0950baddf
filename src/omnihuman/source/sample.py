"""The built-in corpus, which is written on first use."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from omnihuman.corpus.write import is_complete, write_corpus
from omnihuman.data.record import Entry
from omnihuman.source.base import Source
from omnihuman.source.json import JsonSource
from omnihuman.source.sheet import Sheet

SPLITS = ("train", "val", "test")


class SampleSource(Source):
    """The records of a split of the built-in corpus; each person is in one split only.

    Args:
        split: ``train``, ``val`` or ``test``.
        root: folder of the corpus, which is written if it is missing or incomplete.
        seed: of the corpus.

    Raises:
        ValueError: there is no such split.
    """

    def __init__(self, split: str, root: str | Path, seed: int = 0) -> None:
        if split not in SPLITS:
            raise ValueError(f"the built-in corpus has no split {split!r}: choose from {', '.join(SPLITS)}.")
        self.split, self.root, self.seed = split, Path(root), seed

    @property
    def location(self) -> str:
        return str(self.root / f"{self.split}.json")

    def fingerprint(self) -> Mapping[str, Any]:
        return self.open().fingerprint()

    def records(self) -> Iterator[Entry]:
        return self.open().records()

    def open(self) -> JsonSource:
        """Return the records of the split, whose corpus is written if it is missing."""
        if not is_complete(self.root, self.seed):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.root}.lock"):  # cells of a sweep and ranks of a run may start at once
                write_corpus(self.root, seed=self.seed)
        return JsonSource(self.location, self.root)

    def draw_sheet(self, file: Path, num_records: int = 12, num_frames: int = 4) -> Sheet:
        """Draw records of the split and, beside them, the topics and the audio of the whole corpus."""
        from omnihuman.corpus.sheet import draw_contact_sheet, draw_mel_sheet

        sheet = super().draw_sheet(file, num_records, num_frames)
        topics = draw_contact_sheet(file.with_name("contact_sheet.png"), self.seed)
        audio = draw_mel_sheet(file.with_name("listening_sheet.png"), self.seed)
        return replace(sheet, files=[*sheet.files, topics, audio])
