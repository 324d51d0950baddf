"""MVBench's layouts, prompts, cuts and parsers."""

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

SEQUENCE = {"video": "a.mp4", "question": "What did he do first?", "candidates": ["Sat.", "Ran.", "Ate."],
            "answer": "Ran.", "start": 0.2, "end": 0.6}  # fmt: skip
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


def some(root: Path, **switches: Any) -> MVBenchHuman:
    return MVBenchHuman(str(root), **{"tasks": ["action_sequence", "action_antonym"], **switches})


def test_questions_are_those_of_humanomni(root: Path) -> None:
    questions = some(root).questions()
    assert [(q.id, q.truth, q.group) for q in questions] == [
        ("action_sequence/0", "B", "action_sequence"), ("action_sequence/1", "B", "action_sequence"),
        ("action_antonym/0", "A", "action_antonym"), ("action_antonym/1", "A", "action_antonym"),
    ]  # fmt: skip
    first = questions[0]
    assert first.record.messages[0][1] == (
        "<video>\n<audio>\nQuestion: What did he do first?\nOptions:\n(A) Sat.\n(B) Ran.\n(C) Ate.\n"
        "Answer with the option's letter from the given choices directly and only give the best option."
    )
    assert first.record.meta == {"instruction": "What did he do first?"}, "BERT sees the question alone"
    assert first.options == ("A", "B", "C") and first.meta["candidates"] == ["Sat.", "Ran.", "Ate."]
    assert (first.record.start, first.record.end) == (0.2, 0.6)
    assert (questions[2].record.start, questions[2].record.end) == (0.0, None)


def test_a_bound_question_cuts_pictures_and_sound(root: Path) -> None:
    record = some(root).questions()[0].record
    header = probe(record.file)
    count = header.num_samples(record.start, record.end)
    _, times, sound = read(record.file, num_frames=8, num_samples=count, start=record.start, end=record.end)
    assert min(times) >= 0.2 and max(times) < 0.6 and len(sound) == 6400


def test_the_yaml_is_the_class(root: Path) -> None:
    built = build(compose_part("benchmark", "mvbench_human"), root=str(root), tasks=["action_antonym"])
    assert len(built.questions()) == 2 and built.max_new_tokens == 32


def test_the_other_prompts(root: Path) -> None:
    official = some(root, prompt="official").questions()[2].record
    assert official.messages[0][1] == (
        f"<video>\n<audio>\n{SYSTEM}Question: Which one?\nOptions:\n(A) up\n(B) down\nOnly give the best option."
    )
    assert official.meta == {"prime": "Best option:("}
    lmms = some(root, prompt="lmms_eval").questions()[2].record
    assert lmms.messages[0][1] == (
        "<video>\n<audio>\nQuestion:Which one?\nOption:\n(A) up\n(B) down\nOnly give the best option.\n"
    )


@pytest.mark.parametrize("name", ["Action Sequence", "action_sequence"])
def test_clips_cut_beforehand(name: str, root: Path, clip: Path) -> None:
    (root / "cut").mkdir()
    shutil.copy(clip, root / "cut" / "a.mp4")
    (root / "test.json").write_text(json.dumps({"root": {name: "cut"}, "meta": {name: [SEQUENCE]}}))
    benchmark = some(root, layout="video", tasks=["action_sequence"])
    question = benchmark.questions()[0]
    assert question.record.file == root / "cut" / "a.mp4"
    assert (question.record.start, question.record.end) == (0.0, None), "it is cut already"
    with pytest.raises(ValueError, match=r"test\.json: root\[action_antonym\] is missing"):
        some(root, layout="video", tasks=["action_antonym"]).questions()


BAD = {
    "an answer that is no option": ({"answer": "Flew."}, r"sequence\.json\[0\]: the answer 'Flew\.' is not exactly"),
    "an option twice": ({"candidates": ["Ran.", "Ran."]}, r"sequence\.json\[0\]: the answer 'Ran\.' is not exactly"),
    "27 options": ({"candidates": [*map(str, range(26)), "Ran."]}, r"sequence\.json\[0\]: .* of at most 26"),
    "no video": ({"video": None}, r"sequence\.json\[0\]: video missing"),
    "no end": ({"end": None}, r"sequence\.json\[0\]: start and end are seconds.*0\.2 and None"),
    "end before start": ({"end": 0.1}, r"sequence\.json\[0\]: start and end are seconds.*0\.2 and 0\.1"),
    "a file that is not there": ({"video": "z.mp4"}, r"sequence\.json\[0\]: video: there is no file .*z\.mp4.*skip"),
    "a path upwards": ({"video": "../../../../z.mp4"}, r"leaves the folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_question_is_named(name: str, root: Path) -> None:
    change, message = BAD[name]
    (root / "json" / "action_sequence.json").write_text(json.dumps([SEQUENCE | change]))
    with pytest.raises(ValueError, match=message):
        some(root).questions()


def test_what_is_missing_may_be_skipped(root: Path) -> None:
    (root / "video" / TASKS["action_antonym"].folder / "b.webm").unlink()
    benchmark = some(root, missing_media="skip")
    assert [q.group for q in benchmark.questions()] == ["action_sequence"] * 2
    assert benchmark.protocol()["missing media"].startswith("2 of 4 skipped")


@pytest.mark.parametrize(("switch", "value"), [("prompt", "mine"), ("layout", "mine")])
def test_a_switch_that_does_not_hold(switch: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{switch}={value}: choose from"):
        build(compose_part("benchmark", "mvbench_human", [f"benchmark.{switch}={value}", "benchmark.root=nowhere"]))


def test_an_unknown_task_or_parser(root: Path) -> None:
    with pytest.raises(ValueError, match="parser=mine: choose from strict, humanomni, official, lmms_eval, log_probs"):
        some(root, parser="mine")
    with pytest.raises(ValueError, match=r"tasks=\['fine_grained_pose'\]: choose from action_sequence"):
        some(root, tasks=["fine_grained_pose"])
    with pytest.raises(ValueError, match=r"each once"):
        some(root, tasks=["action_antonym"] * 2)


def test_one_task_is_given_by_its_name(root: Path) -> None:
    built = build(compose_part("benchmark", "mvbench_human", ["benchmark.tasks=action_antonym"]), root=str(root))
    assert built.tasks == ("action_antonym",)


def test_counts_may_be_numbers(root: Path) -> None:
    entry = ANTONYM | {"candidates": [3, 2], "answer": 2}
    (root / "json" / "action_antonym.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([entry]).encode())
    question = some(root, tasks=["action_antonym"]).questions()[0]
    assert question.truth == "B" and question.meta["candidates"] == ["3", "2"]


def test_figures_by_hand(root: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = some(root)
    asked = answered(benchmark.questions(), ["(B) Ran.", "Sat.", "A", None])
    assert [benchmark.parse(each) for each in asked] == [
        ("B", "letter"), ("A", "text"), ("A", "letter"), (None, "invalid")
    ]  # fmt: skip
    scores = {score.name: score.value for score in benchmark.scores(asked)}
    assert scores == {"avg": 50.0, "AS": 50.0, "AA": 50.0}
    assert benchmark.scores(asked)[0].clusters == ("star/Charades_v1_480/a.mp4",) * 2 + ("ssv2_video/b.webm",) * 2


def test_the_parsers_do_not_agree(root: Path, answered: Callable[..., list[Prediction]]) -> None:
    answers = ["Best option: (B) Ran.", "(", "", "up"]
    asked = answered(some(root).questions(), answers)
    habits = ("strict", "humanomni", "official")
    read = {name: [some(root, parser=name).parse(each)[0] for each in asked] for name in habits}
    assert read["strict"] == ["B", None, None, "A"]
    assert read["humanomni"][0] == "B" and read["official"][1] == "B", "a bare ( passes for the truth"
    dropped = {score.name: score.value for score in some(root, parser="lmms_eval").scores(asked[:3])}
    assert dropped["AS"] == 50.0 and dropped["avg"] == 50.0, "an empty answer is not counted"


def test_letters_by_their_probability(root: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = some(root, parser="log_probs")
    assert benchmark.log_probs and not some(root).log_probs
    asked = answered(benchmark.questions(), ["?"] * 4)
    asked = [replace(each, log_probs=(-2.0, -0.1, -3.0)[: len(each.options)]) for each in asked[:3]] + asked[3:]
    assert [benchmark.parse(each)[0] for each in asked] == ["B", "B", "B", None]


def test_the_peers_averages_are_the_means_of_their_tasks() -> None:
    for peer in MVBenchHuman.peers:
        tasks = [value for name, value in peer.values.items() if name != "avg"]
        if tasks:
            assert peer.values["avg"] == pytest.approx(sum(tasks) / 6, abs=0.07), peer.method
