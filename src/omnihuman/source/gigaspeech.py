"""GigaSpeech: English audiobooks, podcasts and YouTube, official subsets."""

import re

from omnihuman.source.recordings import RecordingsSource

MARKS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}
"""Tag in a text -> punctuation mark. All other tags are of segments without speech."""

SPLITS = {"DEV": "val", "TEST": "test"}


class GigaSpeechSource(RecordingsSource):
    """The segments of a copy of GigaSpeech -> their texts, with punctuation marks for their tags.

    Reference: its repository, "Metadata walkthrough" and "Text Pre-Processing".
    """

    file = "GigaSpeech.json"
    text_key = "text_tn"
    subsets = ("XS", "S", "M", "L", "XL")
    splits = SPLITS

    def clean(self, text: str) -> str:
        for tag, mark in MARKS.items():
            text = text.replace(f" {tag}", mark).replace(tag, mark)
        return "" if re.search(r"<[A-Z]+>", text) else text.strip()
