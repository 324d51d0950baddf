import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.wenetspeech import WenetSpeech
from omnihuman.build import build, compose_part
from omnihuman.data.media import probe, read


def segment(sid: str, begin: float, end: float, text: str, *subsets: str) -> dict[str, Any]:
    return {"sid": sid, "begin_time": begin, "end_time": end, "text": text, "subsets": list(subsets), "confidence": 1}


def build_corpus() -> dict[str, Any]:
    """Return a corpus in the official format, with training recordings."""
    net = [segment("TEST_NET_S1", 3.0, 4.5, "打开WIFI", "TEST_NET"), segment("TEST_NET_S2", 7, 8, "好", "TEST_NET")]
    train = [segment("Y0_S0", 0, 1, "不用", "L", "M", "S"), segment("Y0_S1", 1, 2, "开发", "DEV")]
    audios = [
        {"aid": "Y0", "duration": 9.0, "path": "audio/train/youtube/B0/Y0.opus", "segments": train},
        {
            "aid": "M0",
            "duration": 9.0,
            "path": "audio/test_meeting/B0/M0.opus",
            "segments": [segment("TEST_MEETING_S0", 0.5, 2, "二十三个人", "TEST_MEETING")],
        },
        {"aid": "N0", "duration": 9.0, "path": "audio/test_net/B0/N0.opus", "segments": net},
    ]
    return {"dataset": "WenetSpeech", "language": "CN", "audios": audios}


def write(root: Path, content: dict[str, Any]) -> Path:
    root.mkdir(exist_ok=True)
    (root / "WenetSpeech.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    for recording in content["audios"]:
        if "train" not in recording.get("path", "train"):
            (root / recording["path"]).parent.mkdir(parents=True, exist_ok=True)
            (root / recording["path"]).touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "wenet", build_corpus())


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("wenetspeech", question.id, question.group, "", question.reference, text, meta=question.meta)


def test_questions(root: Path) -> None:
    questions = WenetSpeech(str(root)).questions()
    assert [question.id for question in questions] == ["TEST_NET_S1", "TEST_NET_S2", "TEST_MEETING_S0"]
    record = questions[0].record
    assert (record.start, record.end, record.file.name, record.slots) == (3.0, 4.5, "N0.opus", ("audio",))
    assert (questions[0].reference, questions[0].group) == ("打开WIFI", "TEST_NET")
    assert record.location.endswith("WenetSpeech.json: audios[2].segments[0]")


def test_a_segment_is_decoded_from_its_recording(root: Path) -> None:
    """Each second of the recording has a different loudness."""
    file = root / "audio/test_net/B0/N0.opus"
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libopus", rate=48000, layout="mono")
        t = np.arange(9 * 48000) / 48000
        wave = (0.1 * np.floor(t) * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=48000, frame_size=960)
        frame = av.AudioFrame.from_ndarray(wave[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    record = WenetSpeech(str(root)).questions()[1].record
    count = probe(record.file).num_samples(record.start, record.end)
    _, _, waveform = read(record.file, num_samples=count, start=record.start, end=record.end)
    assert waveform is not None and count == len(waveform) == 16000
    assert float(waveform[800:-800].abs().max()) == pytest.approx(0.7, abs=0.1)


def test_error_rates(root: Path) -> None:
    benchmark = WenetSpeech(str(root), subsets=["TEST_MEETING", "TEST_NET"])
    answers = ["二十三个人", "打开 wifi。", None]
    predictions = [answer(question, text) for question, text in zip(benchmark.questions(), answers, strict=True)]
    scores = {score.name: score for score in benchmark.scores(predictions)}
    assert list(scores) == ["mer/TEST_MEETING", "mer/TEST_NET", "cer/TEST_MEETING", "cer/TEST_NET"]
    assert scores["mer/TEST_MEETING"].value == scores["cer/TEST_MEETING"].value == 0
    # 打 开 wifi 好: one of four tokens is missing; as characters one of seven
    assert scores["mer/TEST_NET"].value == pytest.approx(100 / 4)
    assert scores["cer/TEST_NET"].value == pytest.approx(100 / 7)
    assert not scores["mer/TEST_NET"].higher_is_better


def test_a_missing_recording_raises(root: Path) -> None:
    (root / "audio/test_meeting/B0/M0.opus").unlink()
    with pytest.raises(ValueError, match=r"WenetSpeech\.json: audios\[1\]\.path: .*no file .*/M0\.opus"):
        WenetSpeech(str(root)).questions()
    benchmark = WenetSpeech(str(root), missing_media="skip")
    assert [question.group for question in benchmark.questions()] == ["TEST_NET", "TEST_NET"]
    assert benchmark.protocol()["missing media"].startswith("1 of 3 skipped")


@pytest.mark.parametrize(
    ("entry", "key", "value", "message"),
    [
        (2, "sid", None, r"audios\[2\]\.segments\[0\]: sid is None.* str\b"),
        (2, "end_time", "4", r"segments\[0\]: end_time is '4'.* int or float\b"),
        (2, "end_time", 3.0, r"segments\[0\]: end_time 3 .*begin_time 3"),
        (2, "subsets", "TEST_NET", r"segments\[0\]: subsets is 'TEST_NET'.* list\b"),
        (2, "sid", "TEST_NET_S2", r"'TEST_NET_S2' is duplicated .*segments\[0\] and .*segments\[1\]"),
        (2, "subsets", ["L"], None),
    ],
)
def test_invalid_segments_raise(tmp_path: Path, entry: int, key: str, value: Any, message: str | None) -> None:
    content = build_corpus()
    content["audios"][entry]["segments"][0][key] = value
    benchmark = WenetSpeech(str(write(tmp_path / "w", content)))
    if message is None:
        assert len(benchmark.questions()) == 2
    else:
        with pytest.raises(ValueError, match=message):
            benchmark.questions()


def test_invalid_files_raise(tmp_path: Path) -> None:
    file = tmp_path / "WenetSpeech.json"
    with pytest.raises(ValueError, match=r"WenetSpeech\.json: .*no such file"):
        WenetSpeech(str(tmp_path)).questions()
    for text, message in (('{"audios": [{"aid"', r"not JSON after audios\[-1\]"), ("{}", "no list `audios`")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            WenetSpeech(str(tmp_path)).questions()
    content = build_corpus()
    content["audios"] = content["audios"][:2]
    with pytest.raises(ValueError, match=r"no segment .*TEST_NET"):
        WenetSpeech(str(write(tmp_path, content))).questions()
    with pytest.raises(ValueError, match=r"subsets=\['L'\]: "):
        WenetSpeech(str(tmp_path), subsets=["L"])


def test_yaml_has_the_default_options(root: Path) -> None:
    built, plain = build(compose_part("benchmark", "wenetspeech", [f"benchmark.root={root}"])), WenetSpeech(str(root))
    assert built.protocol() == plain.protocol() and built.subsets == plain.subsets
    assert built.max_new_tokens == plain.max_new_tokens
