"""WavCaps: sounds of four collections with captions."""

from collections.abc import Iterator

from omnihuman.data.text_files import read_json
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import AUDIO_SUFFIXES, DatasetSource

FILES = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
"""Collection -> its file."""


class WavCapsSource(DatasetSource):
    """The sounds of those collections of WavCaps that are there -> their captions.

    Reference: ``json_files/SoundBible/sb_final.json`` with a list ``data`` of ``id`` and ``caption``. ``{source}`` in
    ``media`` stands for a collection.
    """

    def clips(self) -> Iterator[Annotation]:
        names = {source: f"json_files/{source}/{file}" for source, file in FILES.items()}
        if not any((self.path / name).is_file() for name in names.values()):
            self.find(*names.values())
        for source, name in names.items():
            file = self.path / name
            if not file.is_file():
                self.notes.append(f"{file} is not there")
                continue
            folder = self.find(*(media.replace("{source}", source) for media in self.media))
            content = read_json(file)
            if not isinstance(content, dict) or not isinstance(content.get("data"), list):
                raise ValueError(f"{file}: expected an object with a list data.")
            for number, entry in enumerate(content["data"]):
                stem = str(entry.get("id")).removesuffix(".wav")
                audio = self.find_media(stem, suffixes=(".flac", *AUDIO_SUFFIXES), folder=folder)
                yield Annotation(f"{file}: data[{number}]", str(entry.get("caption") or ""), {"audio": audio})
