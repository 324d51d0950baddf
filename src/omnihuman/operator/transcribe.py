"""Transcribe: the words that are spoken in a clip, with their times."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from omnihuman.operator.base import WORDS, Failed, Operator, Outcome, Row, columns
from omnihuman.operator.pretrained import GpuClock, check_weights, identify_weights, load_model
from omnihuman.operator.sound import read_sound
from omnihuman.operator.truth import Word, find_limits, read_words

EXAMPLE = "openai/whisper-large-v3"


class Transcribe(Operator):
    """Sound -> the words with their seconds in the file, and the speech as one text, empty where nobody speaks.

    ``speaking`` tells the speakers apart.

    Reference: Omni-Emotion §3.1 transcribes by Whisper-large-v3. Words get times by dynamic time warping of the
    decoder's attention to the sound, as transformers implements it.

    Args:
        words: ``truth``: those of the records, under ``words`` as ``[{"word", "start", "end", "box"}]``; ``whisper``:
            those of a model.
        weights: folder or hub id of a Whisper of transformers.
        language: such as ``en``; ``null``: the model recognizes it.
        timeout: seconds for each file.

    Raises:
        ValueError: there are no weights, or they do not say which heads of the decoder follow the sound.
    """

    opens_media = True
    incidental = ("timeout", "weights")  # equal weights in another folder are the same

    def __init__(
        self,
        words: Literal["truth", "whisper"] = "whisper",
        weights: str | None = None,
        language: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        if words == "whisper":
            check_weights(weights, "transcribe: words=whisper", EXAMPLE, "words=truth takes the words of the records")
        self.words, self.weights, self.language, self.timeout = words, weights, language, timeout
        self.reads = {"seconds": pa.float64(), "has_sound": pa.bool_()}
        if words == "truth":
            self.reads |= {"records": pa.list_(pa.string())}

    writes = columns(words=WORDS, speech=pa.string())

    def identity(self) -> Mapping[str, Any]:
        return identify_weights(self.weights) if self.words == "whisper" else {}

    def setup(self, folder: Path) -> None:
        self.clock = GpuClock()
        if self.words == "truth":
            return
        import transformers
        from transformers import (
            AutomaticSpeechRecognitionPipeline,
            AutoTokenizer,
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
        )

        transformers.utils.logging.set_verbosity_error()  # it warns of its own arguments
        assert self.weights is not None
        model = load_model(WhisperForConditionalGeneration, self.weights, self.clock)
        config = model.generation_config
        if not getattr(config, "alignment_heads", None):
            raise ValueError(
                f"transcribe: weights={self.weights}: generation_config.json has no alignment_heads, and words have no "
                f"times without; take those of {EXAMPLE}."
            )
        self.options: dict[str, Any] = {"num_beams": 1, "do_sample": False}
        if getattr(config, "is_multilingual", False):
            self.options |= {"language": self.language, "task": "transcribe"}
        self.recognize = AutomaticSpeechRecognitionPipeline(
            model,
            feature_extractor=WhisperFeatureExtractor.from_pretrained(self.weights),
            tokenizer=AutoTokenizer.from_pretrained(self.weights),
            device=self.clock.device,
        )

    def take_cost(self) -> Mapping[str, float]:
        return self.clock.take_cost()

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            if not row["has_sound"]:
                yield {"words": [], "speech": ""}
            elif self.words == "truth":
                yield _describe(read_words(row), row)
            else:
                yield self._recognize(row)

    def _recognize(self, row: Row) -> Outcome:
        waveform, first = read_sound(row, self.timeout)
        if waveform is None:
            return {"words": [], "speech": ""}
        with self.clock.measure():
            result = self.recognize(waveform.numpy(), return_timestamps="word", generate_kwargs=self.options)
        last = find_limits(row)[1]
        words = []
        for chunk in result["chunks"]:
            start, end = chunk["timestamp"]
            if text := chunk["text"].strip():
                # the window of 30 s is padded with silence, and the last word may have no end
                start = min(first + start, last)
                end = last if end is None else min(first + end, last)
                words.append({"word": text, "start": start, "end": max(start, end)})
        return {"words": words, "speech": result["text"].strip()}  # not all languages have spaces


def _describe(words: Sequence[Word] | None, row: Row) -> Outcome:
    if words is None:
        return Failed("no_words", f"{row['source']}: no record of the file has words.")
    listed = []
    for word in words:
        listed.append({key: word[key] for key in ("word", "start", "end")})
    return {"words": listed, "speech": " ".join(word["word"] for word in words)}
