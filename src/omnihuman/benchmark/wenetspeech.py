"""WenetSpeech: spontaneous Mandarin from the net and from meetings, mixed and character error rates."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, unique
from omnihuman.benchmark.text import Media, to_record
from omnihuman.benchmark.transcription import PROMPT, chosen, figures, transcript
from omnihuman.metric.score import Score
from omnihuman.metric.speech import cer, mer

SUBSETS = ("TEST_NET", "TEST_MEETING", "DEV")


def _peer(method: str, net: float, meeting: float) -> Peer:
    values = {"mer/TEST_NET": net, "mer/TEST_MEETING": meeting}
    return Peer(method, values, "A", "MER or CER not stated; normaliser not stated", "HumanOmni, table 5")


class WenetSpeech(Benchmark):
    """The segments of ``WenetSpeech.json`` -> MER and CER of each subset, in percent.

    Reference: WenetSpeech, MER over Chinese characters and English words; its recordings last hours, so a segment is
    cut by its ``begin_time`` and ``end_time`` while it is read.
    Differs from the official tokenizer: an English word is one token though a character follows without a space, unless
    ``official_glue`` says otherwise. Labels are those of the file at hand: TEST_NET has a few known to be wrong
    (WenetSpeech issue 63).

    Args:
        root: the folder that holds ``WenetSpeech.json`` and ``audio/``.
        subsets: that are asked, by their official names; the first is the headline.
        prompt: what is asked about each segment.
        numbers: spell them out on both sides: ``23`` and ``二十三`` are one.
        official_glue: count an English word and the character right after it as one token, as the official script does.
        missing_media: ``raise``, or ``skip`` segments whose recording is not there and count them.
        max_new_tokens: length limit of an answer.
    """

    name = "wenetspeech"
    modality = "A"
    peers = (
        _peer("Qwen2-Audio", 7.8, 8.4),
        _peer("SenseVoice-L", 6.0, 6.7),
        _peer("Baichuan-Omni", 6.9, 8.4),
        _peer("VITA", 12.2, 16.5),
        _peer("HumanOmni", 10.4, 8.4),
    )

    def __init__(
        self,
        root: str,
        *,
        subsets: str | Sequence[str] = ("TEST_NET", "TEST_MEETING"),
        prompt: str = PROMPT,
        numbers: bool = True,
        official_glue: bool = False,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 256,
    ) -> None:
        self.root, self.subsets = Path(root), chosen("subsets", subsets, SUBSETS)
        self.prompt, self.official_glue = prompt, official_glue
        self.numbers = numbers
        self.media = Media(self.root, missing_media)
        self.max_new_tokens = max_new_tokens

    def questions(self) -> list[Question]:
        self.media.start()
        path = self.root / "WenetSpeech.json"
        found = [each for place, recording in _recordings(path) for each in self._recording(place, recording)]
        for subset in self.subsets:
            if not self.media.lost and not any(each.group == subset for each in found):
                raise ValueError(f"{path}: no segment is of the subset {subset}; leave it out of subsets.")
        order = {subset: number for number, subset in enumerate(self.subsets)}
        return unique(sorted(found, key=lambda each: order[each.group]), str(path))

    def _recording(self, place: str, recording: Any) -> Iterator[Question]:
        """The questions of one recording; a test segment is of one subset."""
        for number, segment in enumerate(_key(recording, "segments", place, list)):
            where = f"{place}.segments[{number}]"
            named = _key(segment, "subsets", where, list)
            if not (group := next((subset for subset in self.subsets if subset in named), None)):
                continue
            name, words = _key(segment, "sid", where, str), _key(segment, "text", where, str)
            begin, end = (float(_key(segment, key, where, (int, float))) for key in ("begin_time", "end_time"))
            if not 0 <= begin < end:
                raise ValueError(f"{where}: end_time {end:g} does not come after begin_time {begin:g}.")
            if file := self.media.find(_key(recording, "path", place, str), f"{place}.path"):
                record = to_record(file, self.prompt, name, where, sound_only=True, start=begin, end=end)
                meta = {"recording": str(recording.get("aid", file.stem))}
                yield Question(record, words, group, meta=meta)

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return transcript(asked)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        recordings = {each.id: str(each.meta.get("recording", each.id)) for each in predictions}

        def mixed(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> Score:
            speakers = [recordings[each] for each in ids]
            return mer(ids, references, answers, self.numbers, self.official_glue, speakers)

        def characters(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> Score:
            return cer(ids, references, answers, self.numbers, [recordings[each] for each in ids])

        scores = figures("mer", predictions, self.subsets, mixed)
        return [*scores, *figures("cer", predictions, self.subsets, characters)]

    def protocol(self) -> dict[str, str]:
        glued = "as the official tokenizer glues them" if self.official_glue else "words and characters apart"
        return {
            "prompt": self.prompt,
            "MER": f"Chinese characters and English words, {glued}",
            "CER": "Chinese characters and single letters",
            "normaliser": f"simplified characters, numbers {'spelled out' if self.numbers else 'as they stand'}",
            "resampling": "by recording",
            **self.media.protocol(),
        }


def _recordings(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of ``audios`` one by one: the file of the whole corpus is larger than memory should hold."""
    import ijson

    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; root is the folder of WenetSpeech.json and audio/.")
    number = -1
    with path.open("rb") as raw:
        try:
            for number, recording in enumerate(ijson.items(raw, "audios.item", use_float=True)):
                yield f"{path}: audios[{number}]", recording
        except ijson.JSONError as error:
            raise ValueError(f"{path}: this is not JSON after audios[{number}] ({error}); unpack it again.") from error
    if number < 0:
        raise ValueError(f"{path}: there is no list `audios`, or it is empty; this is not WenetSpeech.json.")


def _key(entry: Any, key: str, where: str, kind: type | tuple[type, ...]) -> Any:
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{where}: {key} is {value!r:.80}, it must be a {wanted}.")
    return value
