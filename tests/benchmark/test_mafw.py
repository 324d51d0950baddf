"""MAFW's layout, words, orders and silent clips."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.mafw import LABELS, MAFW
from omnihuman.build import build, compose_part
from omnihuman.metric.emotion import FORMS

LINES = "00025.mp4 anger\n00026.mp4 happiness\n09999.mp4 helplessness\n"


@pytest.fixture
def root(tmp_path: Path, clip: Path, mute: Path) -> Path:
    for captions, lines in (("no_caption", LINES), ("with_caption", LINES.splitlines()[0])):
        folder = tmp_path / "Train & Test Set" / "single" / captions / "set_1"
        folder.mkdir(parents=True)
        (folder / "test.txt").write_text(lines)
    (tmp_path / "data" / "clips").mkdir(parents=True)
    for name, file in (("00025", clip), ("00026", mute), ("09999", clip)):
        shutil.copy(file, tmp_path / "data" / "clips" / f"{name}.mp4")
    return tmp_path


def test_questions_are_the_official_ones(root: Path) -> None:
    questions = MAFW(str(root), folds=[1]).questions()
    assert [(q.id, q.truth) for q in questions] == [("00025", "angry"), ("00026", "happy"), ("09999", "helpless")]
    prompt = questions[0].record.messages[0][1]
    assert prompt.endswith(
        "clearly expressed?\nhappy ,surprise ,neutral ,angry ,disgust ,sad ,fear ,contemptuous, disappointed, "
        "helpless, anxious"
    )
    assert prompt.startswith("<video>\n<audio>\nAs an emotional recognition expert, in the video,")
    assert questions[0].options[-4:] == ("contemptuous", "disappointed", "helpless", "anxious")


def test_the_yaml_is_the_class(root: Path) -> None:
    built = build(compose_part("benchmark", "mafw"), root=str(root), folds=[1], captions="with_caption")
    assert [question.id for question in built.questions()] == ["00025"]


@pytest.mark.parametrize("name", ["split/single/no_caption", "split/no_caption"])
def test_a_folder_called_split(name: str, root: Path) -> None:
    (root / name).parent.mkdir(parents=True)
    (root / "Train & Test Set" / "single" / "no_caption").rename(root / name)
    assert len(MAFW(str(root), folds=[1]).questions()) == 3


def test_words_are_adjectives_of_the_nouns() -> None:
    for noun, word in LABELS.items():
        assert noun == word or noun in FORMS[word]


def test_both_orders_hold_the_same_words(root: Path, answered: Callable[..., Any]) -> None:
    official, other = (MAFW(str(root), folds=[1], order=order) for order in ("official", "dfer_clip"))
    assert official.labels[:4] == ("angry", "disgust", "fear", "happy")
    assert other.labels == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear", "contemptuous",
                            "anxious", "helpless", "disappointed")  # fmt: skip
    asked = answered(official.questions(), ["Anger", "happy", "anxious or helpless"])
    assert [official.parse(each)[0] for each in asked] == ["angry", "happy", None]
    assert [s.value for s in official.scores(asked)] == [s.value for s in other.scores(asked)]


def test_silent_clips_are_asked_or_left_out(root: Path) -> None:
    kept, dropped = (MAFW(str(root), folds=[1], drop_silent=drop) for drop in (False, True))
    assert len(kept.questions()) == 3 and kept.protocol()["silent clips"] == "asked without sound"
    assert [question.id for question in dropped.questions()] == ["00025", "09999"]
    assert dropped.protocol()["silent clips"] == "1 left out, as HiCMAE does"


@pytest.mark.parametrize(("line", "message"), [
    ("00025.mp4 rage", r"test\.txt:1: the label 'rage' is none of anger \(angry\), disgust, fear"),
    ("00025.mp4 angry", r"test\.txt:1: the label 'angry' is none of"),
    ("00025.mp4", r"test\.txt:1: a line is <clip> <emotion>, found '00025\.mp4'"),
    ("00077.mp4 anger", r"test\.txt:1: clip '00077': there is no file .*00077\.mp4"),
    ("00026.mp4 anger", r"the id '00026' is there twice \(.*test\.txt:1 and .*test\.txt:2\)"),
])  # fmt: skip
def test_a_bad_line_is_named(line: str, message: str, root: Path) -> None:
    path = root / "Train & Test Set" / "single" / "no_caption" / "set_1" / "test.txt"
    path.write_text(LINES.replace("00025.mp4 anger", line))
    with pytest.raises(ValueError, match=message):
        MAFW(str(root), folds=[1]).questions()


@pytest.mark.parametrize(("switch", "value"), [("order", "mine"), ("captions", "some")])
def test_a_switch_that_does_not_hold(switch: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{switch}={value}: choose from"):
        build(compose_part("benchmark", "mafw", [f"benchmark.{switch}={value}", "benchmark.root=nowhere"]))


def test_the_peers_are_the_papers() -> None:
    rows = {(peer.method, peer.source): peer.values for peer in MAFW.peers}
    assert rows["HumanOmni", "HumanOmni, table 2"] == {"uar": 52.94, "war": 68.40}
    assert rows["Omni-Emotion", "Omni-Emotion, table 5"] == {"uar": 53.81, "war": 64.23}
    assert not any(method == "Emotion-LLaMA" for method, _ in rows), "it prints no figure for MAFW"


def test_a_fold_file_as_windows_saves_it(root: Path) -> None:
    path = root / "Train & Test Set" / "single" / "no_caption" / "set_1" / "test.txt"
    path.write_bytes(b"\xef\xbb\xbf" + LINES.replace("\n", " \r\n\r\n").encode())
    assert [question.id for question in MAFW(str(root), folds=[1]).questions()] == ["00025", "00026", "09999"]
    path.write_bytes(LINES.encode() + b"\xe9 anger")
    with pytest.raises(ValueError, match=r"test\.txt: save the file as UTF-8"):
        MAFW(str(root), folds=[1]).questions()


def test_fold_sizes_are_those_of_the_clips_without_captions(root: Path) -> None:
    said = []
    for captions in ("no_caption", "with_caption"):
        benchmark = MAFW(str(root), folds=[1], captions=captions)
        benchmark.questions()
        said.append(benchmark.protocol()["fold sizes"])
    assert said == ["not official: 3 for 1839 of fold 1", "counted by nobody"]
