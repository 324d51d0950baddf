"""Layout, labels, class orders and silent clips of MAFW."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.mafw import MAFW
from omnihuman.build import build, compose_part
from omnihuman.metric.emotion import FORMS
from omnihuman.source.mafw import LABELS

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


def test_questions_equal_the_official_ones(root: Path) -> None:
    questions = MAFW(str(root), folds=[1]).questions()
    assert [(q.id, q.reference) for q in questions] == [("00025", "angry"), ("00026", "happy"), ("09999", "helpless")]
    prompt = questions[0].record.messages[0][1]
    assert prompt.endswith(
        "clearly expressed?\nhappy ,surprise ,neutral ,angry ,disgust ,sad ,fear ,contemptuous, disappointed, "
        "helpless, anxious"
    )
    assert prompt.startswith("<video>\n<audio>\nAs an emotional recognition expert, in the video,")
    assert questions[0].options[-4:] == ("contemptuous", "disappointed", "helpless", "anxious")


def test_yaml_builds_the_class(root: Path) -> None:
    built = build(compose_part("benchmark", "mafw"), root=str(root), folds=[1], captions="with_caption")
    assert [question.id for question in built.questions()] == ["00025"]


@pytest.mark.parametrize("name", ["split/single/no_caption", "split/no_caption"])
def test_other_folders_of_fold_files(name: str, root: Path) -> None:
    (root / name).parent.mkdir(parents=True)
    (root / "Train & Test Set" / "single" / "no_caption").rename(root / name)
    assert len(MAFW(str(root), folds=[1]).questions()) == 3


def test_nouns_are_forms_of_the_labels() -> None:
    for noun, word in LABELS.items():
        assert noun == word or noun in FORMS[word]


def test_class_order_does_not_change_scores(root: Path, answered: Callable[..., Any]) -> None:
    official, other = (MAFW(str(root), folds=[1], order=order) for order in ("official", "dfer_clip"))
    assert official.labels[:4] == ("angry", "disgust", "fear", "happy")
    assert other.labels == (
        "happy",
        "sad",
        "neutral",
        "angry",
        "surprise",
        "disgust",
        "fear",
        "contemptuous",
        "anxious",
        "helpless",
        "disappointed",
    )
    predictions = answered(official.questions(), ["Anger", "happy", "anxious or helpless"])
    assert [official.parse(prediction)[0] for prediction in predictions] == ["angry", "happy", None]
    assert [s.value for s in official.scores(predictions)] == [s.value for s in other.scores(predictions)]


def test_silent_clips_can_be_dropped(root: Path) -> None:
    default, dropped = (MAFW(str(root), folds=[1], drop_silent=drop) for drop in (False, True))
    assert len(default.questions()) == 3 and default.protocol()["silent clips"] == "answered without audio"
    assert [question.id for question in dropped.questions()] == ["00025", "09999"]
    assert dropped.protocol()["silent clips"] == "1 dropped, as in HiCMAE"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00025.mp4 rage", r"test\.txt:1: .*'rage'.*anger \(angry\), disgust, fear"),
        ("00025.mp4 angry", r"test\.txt:1: unknown .*'angry'"),
        ("00025.mp4", r"test\.txt:1: .*<clip> <emotion>, .*'00025\.mp4'"),
        ("00077.mp4 anger", r"test\.txt:1: clip '00077': .*no file .*00077\.mp4"),
        ("00026.mp4 anger", r"'00026'.*duplicated \(.*test\.txt:1 and .*test\.txt:2\)"),
    ],
)
def test_an_invalid_line_raises(line: str, message: str, root: Path) -> None:
    path = root / "Train & Test Set" / "single" / "no_caption" / "set_1" / "test.txt"
    path.write_text(LINES.replace("00025.mp4 anger", line))
    with pytest.raises(ValueError, match=message):
        MAFW(str(root), folds=[1]).questions()


@pytest.mark.parametrize(("option", "value"), [("order", "mine"), ("captions", "some")])
def test_an_invalid_option_raises(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option}={value}: "):
        build(compose_part("benchmark", "mafw", [f"benchmark.{option}={value}", "benchmark.root=nowhere"]))


def test_published_results() -> None:
    rows = {(result.method, result.source): result.values for result in MAFW.published}
    assert rows["HumanOmni", "HumanOmni, table 2"] == {"uar": 52.94, "war": 68.40}
    assert rows["Omni-Emotion", "Omni-Emotion, table 5"] == {"uar": 53.81, "war": 64.23}
    assert not any(method == "Emotion-LLaMA" for method, _ in rows), "it has no results on MAFW"


def test_a_fold_file_with_byte_order_mark_and_crlf(root: Path) -> None:
    path = root / "Train & Test Set" / "single" / "no_caption" / "set_1" / "test.txt"
    path.write_bytes(b"\xef\xbb\xbf" + LINES.replace("\n", " \r\n\r\n").encode())
    assert [question.id for question in MAFW(str(root), folds=[1]).questions()] == ["00025", "00026", "09999"]
    path.write_bytes(LINES.encode() + b"\xe9 anger")
    with pytest.raises(ValueError, match=r"test\.txt: .*UTF-8"):
        MAFW(str(root), folds=[1]).questions()


def test_official_fold_sizes_are_without_captions(root: Path) -> None:
    sizes = []
    for captions in ("no_caption", "with_caption"):
        benchmark = MAFW(str(root), folds=[1], captions=captions)
        benchmark.questions()
        sizes.append(benchmark.protocol()["fold sizes"])
    assert sizes == ["not official: 3 for 1839 of fold 1", "no official sizes"]
