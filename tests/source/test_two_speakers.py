"""Two speakers: mixtures of the utterances of a speech data set."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.media import probe, read
from omnihuman.source.crema_d import CREMADSource
from omnihuman.source.librispeech import LibriSpeechSource
from omnihuman.source.table import TableSource
from omnihuman.source.two_speakers import TwoSpeakersSource

from .conftest import Dataset

SPEECH = {"train-clean-100": ("103", "105"), "dev-clean": ("84", "86"), "test-other": ("367", "368")}
GENDERS = {"103": "M", "105": "M", "84": "F", "367": "M", "368": "F"}
SPEAKERS = {"man": "A", "woman": "B", "first": "C", "second": "D", "louder": "E", "quieter": "F"}


@pytest.fixture
def speech(dataset: Dataset) -> Dataset:
    """Return two utterances of LibriSpeech for each speaker, of 2 s each."""
    lines = [f"{speaker} | {gender} | dev | 25.0 | Ann" for speaker, gender in GENDERS.items()]
    dataset.write("SPEAKERS.TXT", "; comment | M", *lines)
    for folder, speakers in SPEECH.items():
        for speaker in speakers:
            stem = f"{folder}/{speaker}/1/{speaker}-1"
            dataset.write(f"{stem}.trans.txt", f"{speaker}-1-0 WORD {speaker}", f"{speaker}-1-1 WORD {speaker}")
            dataset.add(f"{stem}-0.flac", f"{stem}-1.flac")
    return dataset


def build(path: str = "set", kind: Any = LibriSpeechSource, **options: Any) -> TwoSpeakersSource:
    """Return the source of mixtures of a data set, in the folder ``out``."""
    utterances = options.pop("speech", {"task": "transcription", "questions": "transcription"})
    defaults = {"task": "speaker_speech", "questions": "speaker_speech", "speakers": SPEAKERS, "out": "out"}
    return TwoSpeakersSource(path, "set", speech=partial(kind, **utterances), **(defaults | options))


def list_records(source: TwoSpeakersSource, split: str) -> list[dict[str, Any]]:
    """Return the valid records of a split."""
    _, items = source.annotate()
    return [item.raw for item in items if item.raw is not None and item.annotation.split == split]


def test_each_speaker_of_a_mixture_is_asked_for(speech: Dataset) -> None:
    records = speech.records("source=two_speakers", "source.overlap=[0.5,0.5]", "source.level=[4,4]")
    assert {split: len(items) for split, items in records.items()} == {"train": 4, "val": 4, "test": 4}
    for raw, other in zip(records["test"][::2], records["test"][1::2], strict=True):
        person = raw["meta"]["person"]
        assert raw["audio"] == other["audio"] and raw["task"] == "speaker_speech"
        assert raw["conversations"][1]["value"] == other["meta"]["other_transcript"] == f"WORD {person}"
        assert other["meta"]["other_person"] == person != other["meta"]["person"]
        assert raw["meta"]["level"] == 4.0 == -other["meta"]["level"] and raw["meta"]["overlap"] == 1.0
        assert raw["meta"]["files"] == other["meta"]["files"][::-1]
    assert probe(Path("out", records["test"][0]["audio"])).num_samples() == 48000
    report = speech.report()
    assert report["root"] == "." and report["people"] == {"train": 2, "val": 2, "test": 2}


def test_speakers_are_named_by_what_tells_them_apart(speech: Dataset) -> None:
    source = build(speakers=SPEAKERS | {"first": None, "louder": None})
    for raw in list_records(source, "test"):
        name = "AB"[raw["meta"]["person"] == "368"]
        assert raw["conversations"][0]["value"] == f"<audio>\nWhat did {name} say?" and raw["meta"]["cue"] == "gender"
    assert "train: pairs that nothing tells apart: 2" in source.notes, "two men"
    assert "val: pairs that nothing tells apart: 2" in source.notes, "one gender is not known"
    source = build(speakers=SPEAKERS | {"man": None}, level=[0, 0], overlap=[0, 0.5])
    first, second = list_records(source, "val")[:2]
    assert first["meta"]["cue"] == "order" and "What did C say?" in first["conversations"][0]["value"]
    assert "What did D say?" in second["conversations"][0]["value"]


def test_a_seed_gives_the_same_mixtures(speech: Dataset) -> None:
    first = list_records(build(max_mixtures=1), "train")
    audio = Path("out", first[0]["audio"]).read_bytes()
    source = build(max_mixtures=1)
    assert first == list_records(source, "train") and len(first) == 2 and not source.notes
    assert audio == Path("out", first[0]["audio"]).read_bytes()
    assert first != list_records(build(max_mixtures=1, seed=1), "train")


def test_long_pairs_and_surplus_files_are_noted(speech: Dataset) -> None:
    Path("out/mixtures").mkdir(parents=True)
    Path("out/mixtures/old.wav").touch()
    source = build(max_seconds=3, overlap=[0, 0])
    assert list_records(source, "train") == [] and Path("out/mixtures/old.wav").exists()
    assert "train: pairs longer than source.max_seconds=3: 2" in source.notes
    assert "out/mixtures has 1 files that are not of this command" in source.notes


def test_people_of_a_table_without_splits_are_kept_apart(dataset: Dataset) -> None:
    dataset.write("speech.csv", "file,text,speaker,sex", *(f"{n}.mp4,text {n % 3},{n % 5},M" for n in range(20)))
    dataset.add(*(f"{n}.mp4" for n in range(20)))
    columns = {"audio": "file", "answer": "text", "gender": "sex"}
    with pytest.raises(ValueError, match=r"source\.speech\.person"):
        build("set/speech.csv", TableSource, speech=columns).annotate()
    _, items = build("set/speech.csv", TableSource, speech=columns | {"person": "speaker"}).annotate()
    splits: dict[str, str] = {}
    for item in items:
        split, person = str(item.annotation.split), str(item.annotation.person)
        assert splits.setdefault(person, split) == split
        assert splits.setdefault(item.annotation.meta["other_person"], split) == split
    assert len(splits) > 1


def test_mixtures_hold_both_voices(speech: Dataset) -> None:
    raw = list_records(build(overlap=[0, 0], level=[0, 0], max_mixtures=1), "test")[0]
    file = Path("out", raw["audio"])
    _, _, waveform = read(file, num_samples=probe(file).num_samples())
    assert waveform is not None and len(waveform) == 64000
    halves = waveform.reshape(2, -1).square().mean(1).sqrt()
    assert abs(float(halves[0] / halves[1]) - 1) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"questions": None, "question": "Who?"}, "{speaker}"),
        ({"overlap": [0.5, 0.2]}, "source.overlap"),
        ({"level": 3}, "source.level"),
        ({"max_seconds": "long"}, "source.max_seconds"),
        ({"speakers": {"man": "A", "first": "B"}}, "source.speakers"),
        ({"speakers": SPEAKERS | {"tall": "G"}}, "source.speakers.tall"),
    ],
)
def test_invalid_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        build(**options)


def test_clips_that_cannot_be_mixed_are_refused(speech: Dataset) -> None:
    Path("set/test-other/367/1/367-1-0.flac").unlink()
    _, items = build().annotate()
    assert [item.error.reason for item in items if item.error] == ["missing_file"]
    speech.add("VideoFlash/1001_DFA_ANG_XX.flv")
    emotion = {"task": "emotion", "questions": "emotion", "media": "VideoFlash"}
    with pytest.raises(ValueError, match="classes, angry"):
        build(kind=CREMADSource, speech=emotion).annotate()
