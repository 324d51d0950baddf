import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.dfec import DFEC, GENERIC_CAPTION, PROMPT, identify_clip
from omnihuman.build import build, compose_part
from omnihuman.judge.base import Item, Protocol, Verdict
from omnihuman.judge.rule import RuleJudge
from omnihuman.metric.caption import cider, rouge_l

CLIPS = [
    {
        "id": "0",
        "video": "DFEW/videos/2961.mp4",
        "caption": "The man opens his eyes and looks forward. Then he smiles broadly. His brow stays smooth.",
    },
    {
        "id": "1",
        "video": "MAFW/videos/09068.mp4",
        "caption": "The woman frowns and lowers her head. At the end she cries. Her mouth trembles.",
    },
    {
        "id": "2",
        "video": "CAER_mp4/train/Surprise/0932.mp4",
        "caption": "The boy raises his eyebrows. He drops his jaw and laughs with an open mouth.",
    },
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for clip in CLIPS:
        (tmp_path / clip["video"]).parent.mkdir(parents=True)
        (tmp_path / clip["video"]).touch()
    (tmp_path / "test.json").write_text(json.dumps(CLIPS))
    return tmp_path


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("dfec", question.id, question.group, PROMPT, question.reference, text, meta=question.meta)


class FailingJudge(RuleJudge):
    """Fails on one text."""

    id = "failing"

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.items: list[Item] = []

    def query(self, protocol: Protocol, items: Any, repeat: int = 0) -> list[Verdict | None]:
        self.items += items
        verdicts = super().query(protocol, items, repeat)
        for index, item in enumerate(items):
            if self.text in json.dumps(item):
                verdicts[index] = None
        return verdicts


def test_questions(root: Path) -> None:
    questions = DFEC(str(root)).questions()
    assert [question.id for question in questions] == ["0", "1", "2"]
    assert questions[1].record.messages[0][1] == f"<video>\n<audio>\n{PROMPT}"
    assert questions[1].reference == CLIPS[1]["caption"] and questions[1].record.location.endswith("test.json[1]")
    assert questions[2].meta == {"source": "CAER_mp4"}
    assert DFEC.max_new_tokens != 512 and DFEC(str(root)).max_new_tokens == 512


def test_scores_without_a_judge(root: Path) -> None:
    benchmark = DFEC(str(root))
    references = [clip["caption"] for clip in CLIPS]
    answers = [*references[:2], None]
    predictions = [answer(question, text) for question, text in zip(benchmark.questions(), answers, strict=True)]
    consensus, overlap = benchmark.scores(predictions)
    assert (consensus.name, overlap.name) == ("cider", "rouge_l")
    assert overlap.value == pytest.approx(2 / 3) and overlap.numerators[2] == 0  # a failed generation is wrong
    assert consensus.numerators[2] == 0
    assert consensus.value == pytest.approx(cider("012", references, [*references[:2], ""]).value)
    assert benchmark.protocol()["judge"] == "none: correctness, detail, context, temporal and autodq absent"
    stemmed = DFEC(str(root), rouge="rouge_score_stemmed").scores([answer(benchmark.questions()[0], "Then he smiled.")])
    assert stemmed[1].value == pytest.approx(
        rouge_l("0", references[:1], ["Then he smiled."], "rouge_score_stemmed").value
    )


def test_scores_with_a_judge(root: Path) -> None:
    benchmark = DFEC(str(root), judge=RuleJudge())
    answers = [CLIPS[0]["caption"], "The woman frowns and lowers her head. A dog barks.", None]
    predictions = [answer(question, text) for question, text in zip(benchmark.questions(), answers, strict=True)]
    scores = {score.name: score for score in benchmark.scores(predictions)}
    assert list(scores)[:7] == ["cider", "rouge_l", "correctness", "detail", "context", "temporal", "autodq"]
    assert scores["detail"].numerators[:, 0].tolist()[::2] == [5, 0] and 0 < scores["detail"].numerators[1, 0] < 5
    assert scores["detail"].coverage == 1
    # precision 1, 1/2 and 0, recall 1, 1/3 and 0: the F1 of their means
    precision, recall = (1 + 1 / 2 + 0) / 3, (1 + 1 / 3 + 0) / 3
    assert scores["autodq"].value == pytest.approx(2 * precision * recall / (precision + recall))
    assert "offline-rule" in scores["detail"].note and benchmark.protocol()["judge"] == "offline-rule"


def test_items_with_a_failed_judge_are_missing(root: Path) -> None:
    judge = FailingJudge("frowns")
    benchmark = DFEC(str(root), judge=judge)
    predictions = [answer(question, question.reference) for question in benchmark.questions()]
    scores = {score.name: score for score in benchmark.scores(predictions)}
    assert scores["context"].value == 5 and scores["context"].ids == ("0", "2")
    assert scores["context"].coverage == scores["autodq"].coverage == pytest.approx(2 / 3)
    assert scores["autodq"].value == 1 and scores["cider"].coverage == 1
    assert all(item["question"] == PROMPT for item in judge.items if "question" in item)


def test_floors_use_the_same_references(root: Path) -> None:
    benchmark = DFEC(str(root))
    references = [clip["caption"] for clip in CLIPS]
    floors = benchmark.floors([answer(question, "anything") for question in benchmark.questions()])
    answers = [[*references[1:], references[0]], [references[0]] * 3, [GENERIC_CAPTION] * 3]
    for floor, captions in zip(floors, answers, strict=True):
        assert floor.values["cider"] == cider("012", references, captions).value
        assert floor.values["rouge_l"] == rouge_l("012", references, captions).value
    assert all(floor.method.startswith("floor: ") for floor in floors)


def test_published_results() -> None:
    results = {result.method: result for result in DFEC.published}
    assert results["HumanOmni"].values == {
        "correctness": 4.58,
        "detail": 4.41,
        "context": 4.70,
        "temporal": 4.41,
        "cider": 0.412,
        "rouge_l": 0.468,
        "autodq": 0.523,
    }
    assert len(results) == len(DFEC.published) == 23 and all(
        "not stated" in result.protocol for result in DFEC.published
    )


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("DFEW/videos/2961.mp4", "x/DFEW/Clip/02961.avi", True),
        ("DFEW/videos/2961.mp4", "MAFW/videos/2961.mp4", False),
        ("CAER_mp4/train/Surprise/0932.mp4", "caer/train/surprise/0932.avi", True),
        ("CAER_mp4/train/Surprise/0932.mp4", "CAER_mp4/train/Happy/0932.mp4", False),
        ("FERV39k/videos/0_7_LabelClips_Conflict_Angry_0305.mp4", "FERV39k/Conflict/Angry/0305.mp4", True),
        ("MER24/video-labeled/sample_00001837.mp4", "mer2023/video/sample_00001837.avi", True),
        ("MER24/video-labeled/sample_00001837.mp4", "mer2023/video/samplenew_00001837.avi", False),
        ("RAVDESS/data/Actor_05/01-02-04-02-01-01-05.mp4", "RAVDESS/Actor_05/01-02-04-02-01-01-05.mp4", True),
    ],
)
def test_clip_names_do_not_depend_on_the_folder(first: str, second: str, is_same: bool) -> None:
    assert (identify_clip(first) == identify_clip(second)) is is_same


def test_clips_in_the_training_data_are_counted(root: Path) -> None:
    train = [{"id": "7", "video": "DFEW/Clip/02961.mp4"}, {"id": "8", "audio": "a.wav"}, {"video": "MAFW/00001.mp4"}]
    (root / "train.json").write_text(json.dumps(train))
    (root / "more.jsonl").write_text('{"video": "x/MAFW/clips/09068.mp4"}\n\n')
    benchmark = DFEC(str(root), train_records=[str(root / "train.json"), str(root / "more.jsonl")])
    assert benchmark.protocol()["clips in training"] == "train_records not read yet"
    assert [question.meta["in_training"] for question in benchmark.questions()] == [True, True, False]
    assert benchmark.protocol()["clips in training"] == "2 of 3 (DFEW 1, MAFW 1)"
    plain = DFEC(str(root))
    plain.questions()
    assert plain.protocol()["clips in training"].startswith("not checked")


def test_a_missing_clip_raises(root: Path) -> None:
    (root / CLIPS[1]["video"]).unlink()
    with pytest.raises(ValueError, match=r"test\.json\[1\]: video: .*no file .*/MAFW/videos/09068\.mp4"):
        DFEC(str(root)).questions()
    benchmark = DFEC(str(root), missing_media="skip")
    assert [question.id for question in benchmark.questions()] == ["0", "2"]
    assert benchmark.protocol()["missing media"].startswith("1 of 3 skipped, first")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"videos": []}, r"test\.json: .*list of clips"),
        ([{**CLIPS[0], "caption": " "}], r"test\.json\[0\]: caption is ' '"),
        ([CLIPS[0], {**CLIPS[1], "id": True}], r"test\.json\[1\]: id is True.*\bid, video\b.*caption"),
        ([CLIPS[0], {**CLIPS[1], "video": 1}], r"test\.json\[1\]: video is 1.*\bid, video\b.*caption"),
        ([CLIPS[0], {**CLIPS[1], "id": "0"}], r"'0' is duplicated .*test\.json\[0\] and .*test\.json\[1\]"),
        ([{**CLIPS[0], "video": "../x.mp4"}], r"test\.json\[0\]: video: '../x.mp4'.*outside"),
        (["a"], r"test\.json\[0\]: id is None"),
    ],
)
def test_invalid_lists_raise(root: Path, content: Any, message: str) -> None:
    (root / "test.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        DFEC(str(root)).questions()


def test_integer_ids_and_links_to_other_datasets(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("my sets") / "CAER_mp4"
    (root / "CAER_mp4").rename(elsewhere)
    (root / "CAER_mp4").symlink_to(elsewhere)
    clips = [{**CLIPS[0], "id": 0}, {**CLIPS[1], "video": f" {CLIPS[1]['video']}\n"}, CLIPS[2]]
    (root / "test.json").write_text(json.dumps(clips))
    assert [question.id for question in DFEC(str(root)).questions()] == ["0", "1", "2"]


def test_invalid_options_and_training_files_raise(root: Path) -> None:
    with pytest.raises(ValueError, match=r"rouge=l: .*\bcoco\b"):
        DFEC(str(root), rouge="l")
    (root / "train.json").write_text("{}")
    (root / "train.jsonl").write_text('{"video": "a"}\n{"video"\n')
    for name, message in (
        ("train.json", r"train\.json.*lists of records"),
        ("train.jsonl", r"train\.jsonl:2: .*JSON"),
        ("none.jsonl", r"none\.jsonl.*no such file"),
        ("none.json", r"none\.json\b.*no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            DFEC(str(root), train_records=[str(root / name)]).questions()


def test_yaml_has_the_default_options(root: Path) -> None:
    built, plain = build(compose_part("benchmark", "dfec", [f"benchmark.root={root}"])), DFEC(str(root))
    assert built.protocol() == plain.protocol() and built.annotations == plain.annotations
    assert built.max_new_tokens == plain.max_new_tokens
