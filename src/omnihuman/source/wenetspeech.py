"""WenetSpeech: spontaneous Mandarin from the internet and from meetings, official subsets."""

from omnihuman.source.recordings import RecordingsSource

SPLITS = {"DEV": "val", "TEST_NET": "test", "TEST_MEETING": "test"}


class WenetSpeechSource(RecordingsSource):
    """The segments of a copy of WenetSpeech -> their texts.

    Reference: its repository: ``WenetSpeech.json`` and ``audio/``.
    """

    file = "WenetSpeech.json"
    text_key = "text"
    subsets = ("S", "M", "L")
    splits = SPLITS

    def clean(self, text: str) -> str:
        return text.strip()
