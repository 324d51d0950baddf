"""DFEW's layout, prompt, parsers, folds and figures."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.dfew import DFEW
from omnihuman.benchmark.emotion import QUESTION
from omnihuman.build import build, compose_part
from omnihuman.data.media import header_of, probe
from omnihuman.metric.emotion import official_union
from omnihuman.metric.statistics import difference, interval

PROMPT = (
    "As an emotional recognition expert, in the video, when the characters display their emotions, which predominant "
    "feeling is most clearly expressed?\nhappy ,surprise ,neutral ,angry ,disgust ,sad ,fear"
)
FOLDS = {1: [(1, 2), (2, 1), (3, 7)], 2: [(11698, 3), (5, 6)]}


@pytest.fixture
def root(tmp_path: Path, clip: Path) -> Path:
    for fold, rows in FOLDS.items():
        split = tmp_path / "EmoLabel_DataSplit" / "test(single-labeled)"
        split.mkdir(parents=True, exist_ok=True)
        (split / f"set_{fold}.csv").write_text("\n".join(["video_name,label", *(f"{v},{k}" for v, k in rows)]))
        for name, _ in rows:
            (tmp_path / "videos").mkdir(exist_ok=True)
            shutil.copy(clip, tmp_path / "videos" / f"{name}.mp4")
    return tmp_path


def two(root: Path, **switches: Any) -> DFEW:
    return DFEW(str(root), **{"folds": [1, 2], **switches})


def test_questions_are_the_official_ones(root: Path) -> None:
    questions = two(root).questions()
    assert [(q.id, q.truth, q.group) for q in questions] == [
        ("00001", "sad", "fold_1"), ("00002", "happy", "fold_1"), ("00003", "fear", "fold_1"),
        ("11698", "neutral", "fold_2"), ("00005", "disgust", "fold_2"),
    ]  # fmt: skip
    assert questions[0].record.messages == (("user", f"<video>\n<audio>\n{PROMPT}"), ("assistant", ""))
    assert questions[0].record.file == root / "videos" / "1.mp4"
    assert questions[0].options == ("happy", "surprise", "neutral", "angry", "disgust", "sad", "fear")


def test_the_yaml_is_the_class(root: Path) -> None:
    built = build(compose_part("benchmark", "dfew"), root=str(root), folds=[1])
    assert isinstance(built, DFEW) and built.question == QUESTION and len(built.questions()) == 3
    assert built.describe == two(root).describe and built.infer == two(root).infer
    assert built.max_new_tokens == 16 and two(root, two_step=True).max_new_tokens == 256


@pytest.mark.parametrize("name", ["EmoLabel_DataSplit/test(single-labeled)/single_testset_1.csv",
                                  "EmoLabel_DataSplit/single_test_set_1.csv", "label/single_testset_1.csv",
                                  "single_testset_1.csv"])  # fmt: skip
def test_a_renamed_fold_file_is_found(name: str, root: Path) -> None:
    (root / "label").mkdir()
    (root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv").rename(root / name)
    assert len(two(root, folds=[1]).questions()) == 3


def test_padded_names_and_folders_of_pictures(root: Path, pictures: Callable[..., Path], tone: Path) -> None:
    (root / "videos" / "1.mp4").rename(root / "videos" / "00001.mp4")
    assert two(root).questions()[0].record.file.name == "00001.mp4"
    for name in (1, 2, 3):
        pictures(root / "Clip" / "clip_224x224" / f"{name:05d}", [f"{n:05d}.jpg" for n in range(1, 4)])
    (root / "wav").mkdir()
    shutil.copy(tone, root / "wav" / "00002.wav")
    silent = two(root, folds=[1], media="Clip/clip_224x224")
    assert all(probe(q.record.file).frames == 3 for q in silent.questions())
    assert silent.protocol()["sound files"] == "3 of 3 clips have none and are asked without"
    benchmark = two(root, folds=[1], media="Clip/clip_224x224", sound="wav")
    records = [question.record for question in benchmark.questions()]
    heard = [header_of(r, {file: probe(file) for file in r.files}).has_audio for r in records]
    assert heard == [False, True, False]
    assert benchmark.protocol()["sound files"] == "2 of 3 clips have none and are asked without"


BAD = {
    "a clip that is not there": ("3,7", "4,7", r"set_1\.csv:4: clip '00004': there is no file .*4\.mp4.*media=skip"),
    "a label outside the set": ("1,2", "1,8", r"set_1\.csv:2: the label '8' is none of 1 \(happy\), 2 \(sad\)"),
    "a label of zero": ("1,2", "1,0", r"set_1\.csv:2: the label '0'"),
    "a word": ("1,2", "one,2", r"set_1\.csv:2: video_name is a number, found 'one'"),
    "no label": ("1,2", "1,", r"set_1\.csv:2: label is empty"),
    "nothing but a head": ("\n1,2\n2,1\n3,7", "", r"set_1\.csv: it lists no clip; .*leave fold 1 out"),
    "no such column": ("label", "emotion", r"set_1\.csv:1: the columns \['label'\] are missing"),
    "the same clip twice": ("2,1", "00001,1", r"the id '00001' is there twice \(.*set_1\.csv:2 and .*set_1\.csv:3\)"),
    "a clip of another fold": ("2,1", "5,6", r"the id '00005' is there twice \(.*set_1\.csv:3 and .*set_2\.csv:3\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_fold_file_is_named(name: str, root: Path) -> None:
    before, after, message = BAD[name]
    path = root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError, match=message):
        two(root).questions()


def test_what_is_missing_may_be_skipped_and_is_counted(root: Path) -> None:
    (root / "videos" / "3.mp4").unlink()
    benchmark = two(root, missing_media="skip")
    assert [question.id for question in benchmark.questions()] == ["00001", "00002", "11698", "00005"]
    said = benchmark.protocol()
    assert said["missing media"].startswith("1 of 5 skipped, first") and "set_1.csv:4" in said["missing media"]
    assert said["fold sizes"] == "not official: 3 for 2341 of fold 1, 2 for 2341 of fold 2"


def test_a_fold_file_that_is_not_there(root: Path) -> None:
    with pytest.raises(ValueError, match=r"set_3\.csv: there is no such file.*leave fold 3 out"):
        two(root, folds=[3]).questions()


@pytest.mark.parametrize(("switch", "value", "words"), [
    ("folds", [6], r"some of 1 to 5"), ("folds", [1, 1], "each once"), ("parser", "lenient", "strict, official"),
    ("uar", "all", "present, official_union"), ("infer", "Which?", "where the {description} stands"),
])  # fmt: skip
def test_a_switch_that_does_not_hold(switch: str, value: Any, words: str, root: Path) -> None:
    with pytest.raises(ValueError, match=words):
        two(root, **({switch: value} | ({"two_step": True} if switch == "infer" else {})))


def test_shuffled_options_are_the_same_each_time(root: Path) -> None:
    orders = [[q.options for q in two(root, options="shuffled", seed=seed).questions()] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and len(set(orders[0])) > 1
    question = two(root, options="shuffled").questions()[0]
    assert sorted(question.options) == sorted(two(root).labels)
    assert question.record.messages[0][1].endswith("\n" + " ,".join(question.options))


def test_two_turns(root: Path) -> None:
    benchmark = two(root, two_step=True, describe="Describe the face.")
    question = benchmark.questions()[0]
    assert question.record.messages[0][1] == "<video>\n<audio>\nDescribe the face."
    said = benchmark.follow_up(question, "He {frowns}\nand cries. ")
    assert said == f"The video was described like this: He {{frowns}} and cries.\n{PROMPT}"
    assert two(root).follow_up(question, "sad") is None
    assert "describe, then infer" in benchmark.protocol()["prompting"]


ANSWERS = ["sad", "Happy.", "terror", None, "disgust"]  # of sad, happy, fear | neutral, disgust


def test_figures_by_hand(root: Path, answered: Callable[..., Any]) -> None:
    benchmark = two(root)
    asked = answered(benchmark.questions(), ANSWERS)
    assert [benchmark.parse(each) for each in asked] == [
        ("sad", "label"), ("happy", "label"), (None, "invalid"), (None, "invalid"), ("disgust", "label")
    ]  # fmt: skip
    scores = {score.name: score.value for score in benchmark.scores(asked)}
    assert scores["war/fold_1"] == pytest.approx(200 / 3) and scores["war/fold_2"] == pytest.approx(50)
    assert scores["war"] == pytest.approx((200 / 3 + 50) / 2) and scores["war_pooled"] == pytest.approx(60)
    assert scores["uar"] == pytest.approx((200 / 3 + 50) / 2) and scores["uar_pooled"] == pytest.approx(60)
    exact = {score.name: score.value for score in two(root, parser="official").scores(asked)}
    assert exact["war_pooled"] == pytest.approx(40), "Happy. is wrong for the official parser"
    one = {score.name: score.value for score in benchmark.scores(asked[:3])}
    assert set(one) == {"war", "uar"}, "one fold is no mean of folds"


def test_the_official_union_is_the_metric_s(root: Path, answered: Callable[..., Any]) -> None:
    benchmark = two(root, uar="official_union", parser="official")
    asked = answered(benchmark.questions(), ANSWERS)
    scores = {score.name: score for score in benchmark.scores(asked)}
    first, second = asked[:3], asked[3:]
    unions = [official_union([each.truth for each in some], [each.answer for each in some]) for some in (first, second)]
    assert unions == pytest.approx([20, 100 / 3])  # sad 1, happy, fear, Happy., terror 0 | disgust 1, neutral and "" 0
    assert [scores[f"uar/fold_{k}"].value for k in (1, 2)] == pytest.approx(unions)
    assert scores["uar"].value == pytest.approx(sum(unions) / 2)
    pooled = official_union([each.truth for each in asked], [each.answer for each in asked])
    assert scores["uar_pooled"].value == pytest.approx(pooled)
    low, high = interval(scores["uar_pooled"], resamples=200)
    assert low <= pooled <= high
    single = replace(asked[0], answer="neutral")  # an answer that is a label, but no true one
    assert two(root, uar="official_union").scores([single, asked[1]])[1].value == pytest.approx(
        official_union(["sad", "happy"], ["neutral", "Happy."])
    )


def test_the_peers_are_the_papers() -> None:
    rows = {(peer.method, peer.source): peer for peer in DFEW.peers}
    ours = rows["HumanOmni", "HumanOmni, table 2"]
    assert ours.values == {"uar": 74.86, "war": 82.46} and "one fold" in ours.protocol
    assert rows["HumanOmni", "HumanOmni, table 6"].protocol == ours.protocol
    assert rows["FaVChat", "FaVChat, table 3"].values == {"uar": 68.17, "war": 77.88}
    assert len(DFEW.peers) == 22


def test_free_answers_are_stray_classes_at_no_great_cost(root: Path) -> None:
    benchmark = two(root, uar="official_union")
    said = [("happy", "happy") if k % 2 else ("sad", f"He looks down, as in clip {k}.") for k in range(4000)]
    asked = [Prediction("dfew", str(k), f"fold_{1 + k // 2000}", "", *words) for k, words in enumerate(said)]
    scores = {score.name: score for score in benchmark.scores(asked)}
    uar = scores["uar"]
    assert uar.value == pytest.approx(100 / 1002) and uar.numerators.shape == (4000, 4), "one column for each class"
    assert scores["uar_pooled"].value == pytest.approx(100 / 2002)
    ends = pytest.approx((uar.value, uar.value))
    assert interval(uar, resamples=200) == ends, (
        "stray words that are not drawn again would lift every resample above the figure"
    )
    other = {score.name: score for score in benchmark.scores([replace(each, answer="sad") for each in asked])}["uar"]
    assert difference(other, uar, resamples=200).delta == pytest.approx(50 - 100 / 1002)
    assert [math.isnan(score.value) for score in benchmark.scores([])] == [True, True]
