from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.librispeech import LibriSpeech
from omnihuman.build import build, compose_part
from omnihuman.data.media import probe


def write_flac(path: Path, seconds: float) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, round(16000 * seconds)), np.int16), layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits in the official layout; one utterance is decodable."""
    lines = {
        "test-clean/1089/134686": ["1089-134686-0000 HE HOPED THERE WOULD BE STEW", "1089-134686-0001 STUFF IT"],
        "test-clean/121/121726": ["121-121726-0000 ALSO A POPULAR CONTRIVANCE"],
        "test-other/367/130732": ["367-130732-0000 LOBSTERS AND LOBSTERS"],
    }
    for folder, transcripts in lines.items():
        chapter = tmp_path / "LibriSpeech" / folder
        chapter.mkdir(parents=True)
        speaker = "-".join(chapter.parts[-2:])
        (chapter / f"{speaker}.trans.txt").write_text("\n".join(transcripts) + "\n")
        for line in transcripts:
            (chapter / f"{line.split()[0]}.flac").touch()
    write_flac(tmp_path / "LibriSpeech/test-clean/121/121726/121-121726-0000.flac", 1.0)
    return tmp_path / "LibriSpeech"


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("librispeech", question.id, question.group, "", question.reference, text, meta=question.meta)


def test_questions(root: Path) -> None:
    questions = LibriSpeech(str(root), splits=["test-clean", "test-other"]).questions()
    assert [question.id for question in questions] == [
        "test-clean/1089-134686-0000",
        "test-clean/1089-134686-0001",
        "test-clean/121-121726-0000",
        "test-other/367-130732-0000",
    ]
    first = questions[0]
    assert (first.reference, first.group, first.meta) == (
        "HE HOPED THERE WOULD BE STEW",
        "test-clean",
        {"speaker": "1089"},
    )
    assert first.record.slots == ("audio",)
    assert first.record.messages[0][1] == "<audio>\nRecognize the speech and give me the transcription."
    assert first.record.location.endswith("1089-134686.trans.txt:1")
    assert probe(questions[2].record.file).num_samples() == 16000


def test_other_encodings_and_splits(root: Path) -> None:
    benchmark = LibriSpeech(str(root), splits="test-clean")
    expected = [(question.id, question.reference) for question in benchmark.questions()]
    file = root / "test-clean/1089/134686/1089-134686.trans.txt"
    content = file.read_text()
    file.write_bytes(b"\xef\xbb\xbf" + content.replace(" HE", "\tHE").replace("\n", " \r\n\r\n").encode())
    assert [(question.id, question.reference) for question in benchmark.questions()] == expected
    file.write_bytes(content.encode("utf-16"))
    with pytest.raises(ValueError, match=r"1089-134686\.trans\.txt: .*UTF-8"):
        benchmark.questions()
    for splits in ([], ["test-clean", "test-clean"], "train"):
        with pytest.raises(ValueError, match=r"splits=.*\btest-clean\b"):
            LibriSpeech(str(root), splits=splits)


def test_scores_per_split(root: Path) -> None:
    benchmark = LibriSpeech(str(root), splits=["test-other", "test-clean"])
    answers = ["lobsters and lobsters", "He hoped there would be two stews.", None, "also a popular contrivance"]
    predictions = [answer(question, text) for question, text in zip(benchmark.questions(), answers, strict=True)]
    other, clean = benchmark.scores(predictions)
    assert (other.name, other.value) == ("wer/test-other", 0.0)
    # one insertion, one substitution, two deletions: 4 of 6 + 2 + 4
    assert clean.name == "wer/test-clean" and clean.value == pytest.approx(100 * 4 / 12)
    assert clean.clusters == ("1089", "1089", "121") and not clean.higher_is_better


def test_scores_need_no_files(root: Path) -> None:
    benchmark = LibriSpeech(str(root), splits=["test-other"])
    predictions = [answer(question, "lobsters") for question in benchmark.questions()]
    [score] = LibriSpeech("nowhere").scores(
        [Prediction.from_json(asdict(prediction), "p:1") for prediction in predictions]
    )
    assert score.value == pytest.approx(100 * 2 / 3)


def test_a_missing_utterance_raises(root: Path) -> None:
    missing = root / "test-clean/1089/134686/1089-134686-0001.flac"
    missing.unlink()
    with pytest.raises(ValueError, match=r"1089-134686\.trans\.txt:2: .*no file .*1089-134686-0001\.flac"):
        LibriSpeech(str(root), splits=["test-clean"]).questions()
    benchmark = LibriSpeech(str(root), splits=["test-clean"], missing_media="skip")
    assert len(benchmark.questions()) == 2
    assert benchmark.protocol()["missing media"].startswith("1 of 3 skipped, first")


def test_invalid_layouts_raise(root: Path) -> None:
    with pytest.raises(ValueError, match=r"dev-clean: .*trans\.txt.*root.*LibriSpeech"):
        LibriSpeech(str(root), splits=["dev-clean"]).questions()
    with pytest.raises(ValueError, match=r"splits=\['train'\]"):
        LibriSpeech(str(root), splits=["train"])
    with pytest.raises(ValueError, match=r"normalizer=english: .*\bwhisper_english\b"):
        LibriSpeech(str(root), normalizer="english")
    (root / "test-other/367/130732/367-130732.trans.txt").write_text("367-130732-0000\n")
    with pytest.raises(ValueError, match=r"trans\.txt:1: '367-130732-0000' has no transcript"):
        LibriSpeech(str(root), splits=["test-other"]).questions()


def test_a_duplicate_utterance_raises(root: Path) -> None:
    (root / "test-other/367/130732/367-130732.trans.txt").write_text("367-130732-0000 A\n367-130732-0000 B\n")
    with pytest.raises(ValueError, match=r"'test-other/367-130732-0000' is duplicated .*:1 and .*:2"):
        LibriSpeech(str(root), splits=["test-other"]).questions()


def test_yaml_has_the_default_options(root: Path) -> None:
    config = compose_part("benchmark", "librispeech", [f"benchmark.root={root}"])
    built, plain = build(config), LibriSpeech(str(root))
    assert built.protocol() == plain.protocol() and built.splits == plain.splits
    assert built.max_new_tokens == plain.max_new_tokens == 256
