"""Layout, prompts, parsers, folds and scores of DFEW."""

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
from omnihuman.data.media import merge_headers, probe
from omnihuman.metric.emotion import official_union_recall
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


def build_benchmark(root: Path, **options: Any) -> DFEW:
    return DFEW(str(root), **{"folds": [1, 2], **options})


def test_questions_equal_the_official_ones(root: Path) -> None:
    questions = build_benchmark(root).questions()
    assert [(q.id, q.reference, q.group) for q in questions] == [
        ("00001", "sad", "fold_1"),
        ("00002", "happy", "fold_1"),
        ("00003", "fear", "fold_1"),
        ("11698", "neutral", "fold_2"),
        ("00005", "disgust", "fold_2"),
    ]
    assert questions[0].record.messages == (("user", f"<video>\n<audio>\n{PROMPT}"), ("assistant", ""))
    assert questions[0].record.file == root / "videos" / "1.mp4"
    assert questions[0].options == ("happy", "surprise", "neutral", "angry", "disgust", "sad", "fear")


def test_yaml_builds_the_class(root: Path) -> None:
    built = build(compose_part("benchmark", "dfew"), root=str(root), folds=[1])
    assert isinstance(built, DFEW) and built.question == QUESTION and len(built.questions()) == 3
    assert built.describe == build_benchmark(root).describe and built.infer == build_benchmark(root).infer
    assert built.max_new_tokens == 16 and build_benchmark(root, two_step=True).max_new_tokens == 256


@pytest.mark.parametrize(
    "name",
    [
        "EmoLabel_DataSplit/test(single-labeled)/single_testset_1.csv",
        "EmoLabel_DataSplit/single_test_set_1.csv",
        "label/single_testset_1.csv",
        "single_testset_1.csv",
    ],
)
def test_other_names_of_fold_files(name: str, root: Path) -> None:
    (root / "label").mkdir()
    (root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv").rename(root / name)
    assert len(build_benchmark(root, folds=[1]).questions()) == 3


def test_padded_names_frame_folders_and_audio_files(root: Path, pictures: Callable[..., Path], tone: Path) -> None:
    (root / "videos" / "1.mp4").rename(root / "videos" / "00001.mp4")
    assert build_benchmark(root).questions()[0].record.file.name == "00001.mp4"
    for name in (1, 2, 3):
        pictures(root / "Clip" / "clip_224x224" / f"{name:05d}", [f"{n:05d}.jpg" for n in range(1, 4)])
    (root / "wav").mkdir()
    shutil.copy(tone, root / "wav" / "00002.wav")
    silent = build_benchmark(root, folds=[1], media="Clip/clip_224x224")
    assert all(probe(q.record.file).num_frames == 3 for q in silent.questions())
    assert silent.protocol()["audio files"] == "3 of 3 clips have none and are answered without"
    benchmark = build_benchmark(root, folds=[1], media="Clip/clip_224x224", audio="wav")
    records = [question.record for question in benchmark.questions()]
    has_audio = []
    for record in records:
        headers = {file: probe(file) for file in record.files}
        has_audio.append(merge_headers(record, headers).has_audio)
    assert has_audio == [False, True, False]
    assert benchmark.protocol()["audio files"] == "2 of 3 clips have none and are answered without"


BAD = {
    "a missing clip": ("3,7", "4,7", r"set_1\.csv:4: clip '00004': .*no file .*4\.mp4.*media=skip"),
    "a label outside the set": ("1,2", "1,8", r"set_1\.csv:2: unknown .*'8'.*1 \(happy\), 2"),
    "a label of zero": ("1,2", "1,0", r"set_1\.csv:2: unknown .*'0'"),
    "a name that is not a number": ("1,2", "one,2", r"set_1\.csv:2: video_name .*number.*'one'"),
    "no label": ("1,2", "1,", r"set_1\.csv:2: label .*empty"),
    "only a header": ("\n1,2\n2,1\n3,7", "", r"set_1\.csv: .*no clips.*fold 1"),
    "a missing column": ("label", "emotion", r"set_1\.csv:1: .*\['label'\].*missing"),
    "a duplicate clip": ("2,1", "00001,1", r"'00001'.*duplicated \(.*set_1\.csv:2 and .*set_1\.csv:3\)"),
    "a clip of another fold": ("2,1", "5,6", r"'00005'.*duplicated \(.*set_1\.csv:3 and .*set_2\.csv:3\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_fold_file_raises(name: str, root: Path) -> None:
    old, new, message = BAD[name]
    path = root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        build_benchmark(root).questions()


def test_missing_clips_can_be_skipped_and_are_counted(root: Path) -> None:
    (root / "videos" / "3.mp4").unlink()
    benchmark = build_benchmark(root, missing_media="skip")
    assert [question.id for question in benchmark.questions()] == ["00001", "00002", "11698", "00005"]
    protocol = benchmark.protocol()
    assert protocol["missing media"].startswith("1 of 5 skipped, first")
    assert "set_1.csv:4" in protocol["missing media"]
    assert protocol["fold sizes"] == "not official: 3 for 2341 of fold 1, 2 for 2341 of fold 2"


def test_a_missing_fold_file_raises(root: Path) -> None:
    with pytest.raises(ValueError, match=r"set_3\.csv: .*no such file.*fold 3"):
        build_benchmark(root, folds=[3]).questions()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("folds", [6], r"folds=\[6\]: .*1 to 5"),
        ("folds", [1, 1], "each once"),
        ("parser", "lenient", "strict, official"),
        ("uar", "all", "present, official_union"),
        ("infer", "Which?", "lacks the placeholder {description}"),
    ],
)
def test_an_invalid_option_raises(option: str, value: Any, words: str, root: Path) -> None:
    with pytest.raises(ValueError, match=words):
        build_benchmark(root, **({option: value} | ({"two_step": True} if option == "infer" else {})))


def test_shuffled_options_depend_on_the_seed(root: Path) -> None:
    orders = []
    for seed in (0, 0, 1):
        questions = build_benchmark(root, options="shuffled", seed=seed).questions()
        orders.append([question.options for question in questions])
    assert orders[0] == orders[1] != orders[2] and len(set(orders[0])) > 1
    question = build_benchmark(root, options="shuffled").questions()[0]
    assert sorted(question.options) == sorted(build_benchmark(root).labels)
    assert question.record.messages[0][1].endswith("\n" + " ,".join(question.options))


def test_two_turn_prompts(root: Path) -> None:
    benchmark = build_benchmark(root, two_step=True, describe="Describe the face.")
    question = benchmark.questions()[0]
    assert question.record.messages[0][1] == "<video>\n<audio>\nDescribe the face."
    prompt = benchmark.follow_up(question, "He {frowns}\nand cries. ")
    assert prompt == f"The video was described like this: He {{frowns}} and cries.\n{PROMPT}"
    assert build_benchmark(root).follow_up(question, "sad") is None
    assert "describe, then infer" in benchmark.protocol()["prompting"]


ANSWERS = ["sad", "Happy.", "terror", None, "disgust"]  # of sad, happy, fear | neutral, disgust


def test_scores_by_hand(root: Path, answered: Callable[..., Any]) -> None:
    benchmark = build_benchmark(root)
    predictions = answered(benchmark.questions(), ANSWERS)
    assert [benchmark.parse(prediction) for prediction in predictions] == [
        ("sad", "label"),
        ("happy", "label"),
        (None, "invalid"),
        (None, "invalid"),
        ("disgust", "label"),
    ]
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    assert scores["war/fold_1"] == pytest.approx(200 / 3) and scores["war/fold_2"] == pytest.approx(50)
    assert scores["war"] == pytest.approx((200 / 3 + 50) / 2) and scores["war_pooled"] == pytest.approx(60)
    assert scores["uar"] == pytest.approx((200 / 3 + 50) / 2) and scores["uar_pooled"] == pytest.approx(60)
    exact = {score.name: score.value for score in build_benchmark(root, parser="official").scores(predictions)}
    assert exact["war_pooled"] == pytest.approx(40), "Happy. is wrong for the official parser"
    one = {score.name: score.value for score in benchmark.scores(predictions[:3])}
    assert set(one) == {"war", "uar"}, "no mean over folds for a single fold"


def union_recall(predictions: list[Prediction]) -> float:
    references = [prediction.reference for prediction in predictions]
    return official_union_recall(references, [prediction.answer for prediction in predictions])


def test_official_union_equals_the_metric(root: Path, answered: Callable[..., Any]) -> None:
    benchmark = build_benchmark(root, uar="official_union", parser="official")
    predictions = answered(benchmark.questions(), ANSWERS)
    scores = {score.name: score for score in benchmark.scores(predictions)}
    unions = [union_recall(predictions[:3]), union_recall(predictions[3:])]
    assert unions == pytest.approx([20, 100 / 3])  # sad 1, happy, fear, Happy., terror 0 | disgust 1, neutral and "" 0
    assert [scores[f"uar/fold_{k}"].value for k in (1, 2)] == pytest.approx(unions)
    assert scores["uar"].value == pytest.approx(sum(unions) / 2)
    pooled = union_recall(predictions)
    assert scores["uar_pooled"].value == pytest.approx(pooled)
    low, high = interval(scores["uar_pooled"], resamples=200)
    assert low <= pooled <= high
    single = replace(predictions[0], answer="neutral")  # a label that is not a reference
    assert build_benchmark(root, uar="official_union").scores([single, predictions[1]])[1].value == pytest.approx(
        official_union_recall(["sad", "happy"], ["neutral", "Happy."])
    )


def test_published_results() -> None:
    rows = {(result.method, result.source): result for result in DFEW.published}
    humanomni = rows["HumanOmni", "HumanOmni, table 2"]
    assert humanomni.values == {"uar": 74.86, "war": 82.46} and "one fold" in humanomni.protocol
    assert rows["HumanOmni", "HumanOmni, table 6"].protocol == humanomni.protocol
    assert rows["FaVChat", "FaVChat, table 3"].values == {"uar": 68.17, "war": 77.88}
    assert len(DFEW.published) == 26


def test_official_union_of_many_distinct_answers(root: Path) -> None:
    benchmark = build_benchmark(root, uar="official_union")
    predictions = []
    for k in range(4000):
        texts = ("happy", "happy") if k % 2 else ("sad", f"He looks down, as in clip {k}.")
        predictions.append(Prediction("dfew", str(k), f"fold_{1 + k // 2000}", "", *texts))
    scores = {score.name: score for score in benchmark.scores(predictions)}
    uar = scores["uar"]
    assert uar.value == pytest.approx(100 / 1002) and uar.numerators.shape == (4000, 4), "one column per class"
    assert scores["uar_pooled"].value == pytest.approx(100 / 2002)
    ends = pytest.approx((uar.value, uar.value))
    assert interval(uar, resamples=200) == ends, "the number of distinct answers must not depend on the resample"
    sad = [replace(prediction, answer="sad") for prediction in predictions]
    other = {score.name: score for score in benchmark.scores(sad)}["uar"]
    assert difference(other, uar, resamples=200).delta == pytest.approx(50 - 100 / 1002)
    assert [math.isnan(score.value) for score in benchmark.scores([])] == [True, True]
