"""CREMA-D: actors speak sentences, six emotions."""

from collections.abc import Iterator

from omnihuman.data.record import BadSample
from omnihuman.source.annotation import Annotation
from omnihuman.source.dataset import AUDIO_SUFFIXES, DatasetSource

LABELS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}


class CREMADSource(DatasetSource):
    """The clips of a copy of CREMA-D, whose names are actor, sentence, emotion and level: ``1001_DFA_ANG_XX.flv``."""

    labels = LABELS

    def clips(self) -> Iterator[Annotation]:
        for file in self.list_media(self.media_folder, "*"):
            parts = file.stem.split("_")
            if len(parts) != 4:
                message = f"expected a name <actor>_<sentence>_<emotion>_<level>, got {file.name}."
                yield Annotation(str(file), error=BadSample("malformed_name", message))
                continue
            kind = "audio" if file.suffix in AUDIO_SUFFIXES else "video"
            yield Annotation(str(file), parts[2], {kind: self.make_relative(file)}, person=parts[0])
