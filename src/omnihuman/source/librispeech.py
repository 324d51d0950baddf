"""LibriSpeech: read English speech, official splits."""

from collections.abc import Iterator

from omnihuman.data.record import BadSample
from omnihuman.data.text_files import read_lines
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import AUDIO_SUFFIXES, DatasetSource

SPLITS = {
    "train-clean-100": "train",
    "train-clean-360": "train",
    "train-other-500": "train",
    "dev-clean": "val",
    "dev-other": "val",
    "test-clean": "test",
    "test-other": "test",
}
"""Folder -> split."""


class LibriSpeechSource(DatasetSource):
    """The utterances of those folders of LibriSpeech that are there -> their transcripts, in capitals as published.

    Reference: openslr 12: ``<folder>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac``, and beside it
    ``<speaker>-<chapter>.trans.txt`` with a line per utterance. The gender is that of ``SPEAKERS.TXT``, if it is there.
    """

    def clips(self) -> Iterator[Annotation]:
        folders = [name for name in SPLITS if (self.media_folder / name).is_dir()]
        if not folders:
            self.find(*SPLITS)
        genders = self._read_genders()
        for name in folders:
            for path in sorted((self.media_folder / name).glob("*/*/*.trans.txt")):
                for place, line in read_lines(path):
                    utterance, _, text = line.strip().partition(" ")
                    if not text:
                        yield Annotation(place, error=BadSample("empty_answer", f"{line!r:.80} has no transcript."))
                        continue
                    audio = self.find_media(utterance, suffixes=(".flac", *AUDIO_SUFFIXES), folder=path.parent)
                    speaker = path.parts[-3]
                    meta = {"gender": genders[speaker]} if speaker in genders else {}
                    yield Annotation(place, text, {"audio": audio}, split=SPLITS[name], person=speaker, meta=meta)

    def _read_genders(self) -> dict[str, str]:
        """Return speaker -> ``M`` or ``F``, from lines ``14 | F | train-clean-360 | 25.03 | <name>``."""
        genders: dict[str, str] = {}
        file = self.media_folder / "SPEAKERS.TXT"
        for _, line in read_lines(file) if file.is_file() else ():
            cells = [cell.strip() for cell in line.split("|")]
            if not line.startswith(";") and len(cells) > 1:
                genders[cells[0]] = cells[1]
        return genders
