"""Layouts, prompts, clips and parsers of MVBench."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.mvbench_human import SYSTEM, TASKS, MVBenchHuman
from omnihuman.build import build, compose_part
from omnihuman.data.media import probe, read

SEQUENCE = {
    "video": "a.mp4",
    "question": "What did he do first?",
    "candidates": ["Sat.", "Ran.", "Ate."],
    "answer": "Ran.",
    "start": 0.2,
    "end": 0.6,
}
ANTONYM = {"video": "b.webm", "question": "Which one?", "candidates": ["up", "down"], "answer": "up"}


@pytest.fixture
def root(tmp_path: Path, clip: Path) -> Path:
    (tmp_path / "json").mkdir()
    for task, entry in (("action_sequence", SEQUENCE), ("action_antonym", ANTONYM)):
        (tmp_path / "json" / f"{task}.json").write_text(json.dumps([entry, entry | {"question": "And then?"}]))
        folder = tmp_path / "video" / TASKS[task].folder
        folder.mkdir(parents=True)
        shutil.copy(clip, folder / entry["video"])
    return tmp_path


def build_benchmark(root: Path, **options: Any) -> MVBenchHuman:
    return MVBenchHuman(str(root), **{"tasks": ["action_sequence", "action_antonym"], **options})


def test_questions_equal_those_of_humanomni(root: Path) -> None:
    questions = build_benchmark(root).questions()
    assert [(q.id, q.reference, q.group) for q in questions] == [
        ("action_sequence/0", "B", "action_sequence"),
        ("action_sequence/1", "B", "action_sequence"),
        ("action_antonym/0", "A", "action_antonym"),
        ("action_antonym/1", "A", "action_antonym"),
    ]
    first = questions[0]
    assert first.record.messages[0][1] == (
        "<video>\n<audio>\nQuestion: What did he do first?\nOptions:\n(A) Sat.\n(B) Ran.\n(C) Ate.\n"
        "Answer with the option's letter from the given choices directly and only give the best option."
    )
    assert first.record.meta == {"instruction": "What did he do first?"}, (
        "the instruction encoder gets the question alone"
    )
    assert first.options == ("A", "B", "C") and first.meta["candidates"] == ["Sat.", "Ran.", "Ate."]
    assert (first.record.start, first.record.end) == (0.2, 0.6)
    assert (questions[2].record.start, questions[2].record.end) == (0.0, None)


def test_bounds_cut_frames_and_audio(root: Path) -> None:
    record = build_benchmark(root).questions()[0].record
    header = probe(record.file)
    count = header.num_samples(record.start, record.end)
    _, times, waveform = read(record.file, num_frames=8, num_samples=count, start=record.start, end=record.end)
    assert min(times) >= 0.2 and max(times) < 0.6 and len(waveform) == 6400


def test_yaml_builds_the_class(root: Path) -> None:
    built = build(compose_part("benchmark", "mvbench_human"), root=str(root), tasks=["action_antonym"])
    assert len(built.questions()) == 2 and built.max_new_tokens == 32


def test_other_prompts(root: Path) -> None:
    official = build_benchmark(root, prompt="official").questions()[2].record
    assert official.messages[0][1] == (
        f"<video>\n<audio>\n{SYSTEM}Question: Which one?\nOptions:\n(A) up\n(B) down\nOnly give the best option."
    )
    assert official.meta == {"prime": "Best option:("}
    lmms = build_benchmark(root, prompt="lmms_eval").questions()[2].record
    assert lmms.messages[0][1] == (
        "<video>\n<audio>\nQuestion:Which one?\nOption:\n(A) up\n(B) down\nOnly give the best option.\n"
    )


@pytest.mark.parametrize("name", ["Action Sequence", "action_sequence"])
def test_layout_with_cut_clips(name: str, root: Path, clip: Path) -> None:
    (root / "cut").mkdir()
    shutil.copy(clip, root / "cut" / "a.mp4")
    (root / "test.json").write_text(json.dumps({"root": {name: "cut"}, "meta": {name: [SEQUENCE]}}))
    benchmark = build_benchmark(root, layout="video", tasks=["action_sequence"])
    question = benchmark.questions()[0]
    assert question.record.file == root / "cut" / "a.mp4"
    assert (question.record.start, question.record.end) == (0.0, None), "the clip is already cut"
    with pytest.raises(ValueError, match=r"test\.json: root\[action_antonym\] .*missing"):
        build_benchmark(root, layout="video", tasks=["action_antonym"]).questions()


BAD = {
    "an answer that is no option": ({"answer": "Flew."}, r"sequence\.json\[0\]: .*'Flew\.'.* exactly"),
    "an option twice": ({"candidates": ["Ran.", "Ran."]}, r"sequence\.json\[0\]: .*'Ran\.'.* exactly"),
    "27 options": ({"candidates": [*map(str, range(26)), "Ran."]}, r"sequence\.json\[0\]: .* of at most 26"),
    "no video": ({"video": None}, r"sequence\.json\[0\]: video is None; .*\bstr\b"),
    "no end": ({"end": None}, r"sequence\.json\[0\]: start and end .*0\.2 and None"),
    "end before start": ({"end": 0.1}, r"sequence\.json\[0\]: start and end .*0\.2 and 0\.1"),
    "a file that is not there": ({"video": "z.mp4"}, r"sequence\.json\[0\]: video: .*no file .*z\.mp4.*skip"),
    "a path upwards": ({"video": "../../../../z.mp4"}, r"sequence\.json\[0\]: .*z\.mp4'.*outside"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_question_raises(name: str, root: Path) -> None:
    change, message = BAD[name]
    (root / "json" / "action_sequence.json").write_text(json.dumps([SEQUENCE | change]))
    with pytest.raises(ValueError, match=message):
        build_benchmark(root).questions()


def test_missing_videos_can_be_skipped(root: Path) -> None:
    (root / "video" / TASKS["action_antonym"].folder / "b.webm").unlink()
    benchmark = build_benchmark(root, missing_media="skip")
    assert [q.group for q in benchmark.questions()] == ["action_sequence"] * 2
    assert benchmark.protocol()["missing media"].startswith("2 of 4 skipped")


@pytest.mark.parametrize(("option", "value"), [("prompt", "mine"), ("layout", "mine")])
def test_an_invalid_option_raises(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option}={value}: "):
        build(compose_part("benchmark", "mvbench_human", [f"benchmark.{option}={value}", "benchmark.root=nowhere"]))


def test_an_unknown_task_or_parser_raises(root: Path) -> None:
    with pytest.raises(ValueError, match=r"parser=mine: .*\bstrict, humanomni, official, lmms_eval, .*log_probs"):
        build_benchmark(root, parser="mine")
    with pytest.raises(ValueError, match=r"tasks=\['fine_grained_pose'\]: .*\baction_sequence\b"):
        build_benchmark(root, tasks=["fine_grained_pose"])
    with pytest.raises(ValueError, match=r"each once"):
        build_benchmark(root, tasks=["action_antonym"] * 2)


def test_a_single_task_needs_no_list(root: Path) -> None:
    built = build(compose_part("benchmark", "mvbench_human", ["benchmark.tasks=action_antonym"]), root=str(root))
    assert built.tasks == ("action_antonym",)


def test_candidates_may_be_numbers(root: Path) -> None:
    entry = ANTONYM | {"candidates": [3, 2], "answer": 2}
    (root / "json" / "action_antonym.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([entry]).encode())
    question = build_benchmark(root, tasks=["action_antonym"]).questions()[0]
    assert question.reference == "B" and question.meta["candidates"] == ["3", "2"]


def test_scores_by_hand(root: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = build_benchmark(root)
    predictions = answered(benchmark.questions(), ["(B) Ran.", "Sat.", "A", None])
    assert [benchmark.parse(prediction) for prediction in predictions] == [
        ("B", "letter"),
        ("A", "text"),
        ("A", "letter"),
        (None, "invalid"),
    ]
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    assert scores == {"avg": 50.0, "AS": 50.0, "AA": 50.0}
    assert benchmark.scores(predictions)[0].clusters == ("star/Charades_v1_480/a.mp4",) * 2 + ("ssv2_video/b.webm",) * 2


def test_parsers_differ(root: Path, answered: Callable[..., list[Prediction]]) -> None:
    answers = ["Best option: (B) Ran.", "(", "", "up"]
    predictions = answered(build_benchmark(root).questions(), answers)
    parsed = {}
    for name in ("strict", "humanomni", "official"):
        benchmark = build_benchmark(root, parser=name)
        parsed[name] = [benchmark.parse(prediction)[0] for prediction in predictions]
    assert parsed["strict"] == ["B", None, None, "A"]
    assert parsed["humanomni"][0] == "B" and parsed["official"][1] == "B", "a bare ( matches the reference"
    dropped = {score.name: score.value for score in build_benchmark(root, parser="lmms_eval").scores(predictions[:3])}
    assert dropped["AS"] == 50.0 and dropped["avg"] == 50.0, "an empty answer is dropped"


def test_log_probs_select_the_letter(root: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = build_benchmark(root, parser="log_probs")
    assert benchmark.log_probs and not build_benchmark(root).log_probs
    predictions = answered(benchmark.questions(), ["?"] * 4)
    for index in range(3):
        log_probs = (-2.0, -0.1, -3.0)[: len(predictions[index].options)]
        predictions[index] = replace(predictions[index], log_probs=log_probs)
    assert [benchmark.parse(prediction)[0] for prediction in predictions] == ["B", "B", "B", None]


def test_published_averages_are_means_over_tasks() -> None:
    for result in MVBenchHuman.published:
        tasks = [value for name, value in result.values.items() if name != "avg"]
        if tasks:
            assert result.values["avg"] == pytest.approx(sum(tasks) / 6, abs=0.07), result.method
