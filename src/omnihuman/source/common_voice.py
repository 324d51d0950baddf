"""Common Voice: read sentences of volunteers in many languages, official splits."""

from collections.abc import Iterator

from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.table import Row


class CommonVoiceSource(DatasetSource):
    """The clips of a language of Common Voice -> their sentences; nobody is in two of its splits.

    Reference: ``train.tsv``, ``dev.tsv`` and ``test.tsv`` with the columns ``client_id``, ``path``, ``sentence``
    and, in most releases, ``gender``; ``clips/<path>``.
    """

    def clips(self) -> Iterator[Annotation]:
        columns = ("client_id", "path", "sentence")
        for split in ("train", "dev", "test"):
            file = self.find(f"{split}.tsv")
            yield from self.read_rows(file, self._build, columns, split, delimiter="\t", has_quotes=False)

    def _build(self, place: str, row: Row) -> Annotation:
        audio = self.find_media(row["path"], suffixes=("", ".mp3"))
        meta = {"gender": row["gender"]} if row.get("gender") else {}
        return Annotation(place, row["sentence"], {"audio": audio}, person=row["client_id"], meta=meta)
