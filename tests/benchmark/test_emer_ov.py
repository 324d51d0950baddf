from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.emer_ov import PROMPT, EmerOV, parse_label_cell
from omnihuman.build import build, compose_part
from omnihuman.judge.base import Protocol, Verdict
from omnihuman.judge.rule import RuleJudge

TABLE = """name,openset
sample_00000007,"['excited', 'joyful', 'happy']"
sample_00000220,['surprised']
sample_00000039,"['angry', 'mad']"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "check-openset.csv").write_text(TABLE)
    (tmp_path / "video").mkdir()
    for name in ("00000007", "00000220", "00000039"):
        (tmp_path / f"video/sample_{name}.mp4").touch()
    return tmp_path


SYNONYMS = {"happy": "joyful", "glad": "joyful", "mad": "angry", "furious": "angry"}


def group_synonyms(labels: Any) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(SYNONYMS.get(label, label), []).append(label)
    return list(groups.values())


class FailingJudge(RuleJudge):
    """Fails on items with the label mad."""

    def query(self, protocol: Protocol, items: Any, repeat: int = 0) -> list[Verdict | None]:
        verdicts = super().query(protocol, items, repeat)
        return [None if "mad" in str(item) else verdict for item, verdict in zip(items, verdicts, strict=True)]


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("emer_ov", question.id, question.group, "", question.reference, text)


def test_questions(root: Path) -> None:
    questions = EmerOV(str(root)).questions()
    assert [question.id for question in questions] == ["sample_00000007", "sample_00000220", "sample_00000039"]
    assert questions[0].reference == ["excited", "joyful", "happy"] and questions[1].reference == ["surprised"]
    assert questions[0].record.messages[0][1] == f"<video>\n<audio>\n{PROMPT}"
    assert questions[2].record.location.endswith("check-openset.csv:4")


def test_labels_with_and_without_quotes() -> None:
    assert parse_label_cell("['looking forward to', \"Sad\", 'sad']", "x") == ["looking forward to", "sad"]
    assert parse_label_cell("[angry, very sad]", "x") == ["angry", "very sad"]
    for text in ("angry", "[]", "['']", "__import__('os')", "{'a': 1}", "[a,,b]"):
        with pytest.raises(ValueError, match=r"t\.csv:2: openset is .* list of labels"):
            parse_label_cell(text, "t.csv:2: openset")


def test_subtitles_precede_the_question(root: Path) -> None:
    lines = "name,chinese,english\nsample_00000007,好,Good!\nsample_00000220,,\nsample_00000039,走,Go\n"
    (root / "subtitle_chieng.csv").write_text(lines, encoding="utf-8")
    english = EmerOV(str(root), subtitles="subtitle_chieng.csv").questions()
    assert "Good!" in english[0].record.messages[0][1] and english[0].record.messages[0][1].endswith(PROMPT)
    assert english[1].record.messages[0][1] == f"<video>\n<audio>\n{PROMPT}"
    chinese = EmerOV(str(root), subtitles="subtitle_chieng.csv", language="chinese").questions()
    assert "走" in chinese[2].record.messages[0][1]
    (root / "subtitle_chieng.csv").write_text("\n".join(lines.splitlines()[:2]))
    with pytest.raises(ValueError, match=r"subtitle_chieng\.csv: .*sample_00000220.*subtitles=null"):
        EmerOV(str(root), subtitles="subtitle_chieng.csv").questions()
    with pytest.raises(ValueError, match=r"subtitle_chieng\.csv:2: .*name and german"):
        EmerOV(str(root), subtitles="subtitle_chieng.csv", language="german").questions()


@pytest.mark.parametrize(
    ("text", "labels", "rule"),
    [
        ("['willing to help others', 'Happy']", ["willing to help others", "happy"], "listed"),
        ("Angry, and a bit sad.", ["angry", "sad"], "listed"),
        ("The person feels angry and a bit sad.", ["angry", "sad"], "words on the wheels"),
        ("He stares out of the window for a long while. He is worried.", ["worried"], "words on the wheels"),
        ("He stares out of the window for a long while.", None, "invalid"),
        ("[]", None, "invalid"),
        ("{{}}", None, "invalid"),
        ("{[1]: 2}", None, "invalid"),
        ("-" * 20_000 + "1", None, "invalid"),
        ("['can't help', sad]", ["can't help", "sad"], "listed"),
        ("happy, sad\nReason: smiles", ["happy", "sad", "reason: smiles"], "listed"),
        ("**Happy**, **sad**", ["happy", "sad"], "listed"),
        ("紧张、难过。", ["紧张", "难过"], "listed"),
        ("她紧张地看着门口，过了很久才慢慢地走出去。", None, "invalid"),
        (None, None, "invalid"),
    ],
)
def test_parse(text: str | None, labels: list[str] | None, rule: str) -> None:
    assert EmerOV("nowhere").parse(Prediction("emer_ov", "a", "", "", ["sad"], text)) == (labels, rule)


def test_scores_with_a_judge(root: Path) -> None:
    benchmark = EmerOV(str(root), judge=RuleJudge(group_synonyms))
    answers = ["glad, nervous", None, "['furious']"]
    predictions = [answer(q, text) for q, text in zip(benchmark.questions(), answers, strict=True)]
    scores = {score.name: score for score in benchmark.scores(predictions)}
    assert list(scores)[:3] == ["ov_avg", "ov_accuracy", "ov_recall"]
    # glad is right, nervous is wrong, joyful is recalled but not excited; no answer is 0; furious covers angry and mad
    assert scores["ov_accuracy"].value == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)
    assert scores["ov_recall"].value == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)
    assert scores["ov_avg"].value == pytest.approx(scores["ov_recall"].value)
    assert "offline-rule" in scores["ov_avg"].note and len(scores) > 3


def test_labels_of_free_text_are_extracted_by_the_judge(root: Path) -> None:
    benchmark = EmerOV(str(root), judge=RuleJudge(group_synonyms))
    text = "She looks at the door with a faint smile, and in the end her voice tells that she is happy and excited."
    [prediction] = [answer(q, text) for q in benchmark.questions()[:1]]
    scores = {score.name: score.value for score in benchmark.scores([prediction])}
    assert scores["ov_accuracy"] == 100 and scores["ov_recall"] == pytest.approx(100)


def test_an_empty_list_needs_no_query(root: Path) -> None:
    judge = RuleJudge()
    scores = EmerOV(str(root), judge=judge).scores([answer(q, "[]") for q in EmerOV(str(root)).questions()])
    assert (scores[0].value, scores[0].coverage, judge.ledger.num_items) == (0, 1, 0)


def test_last_wins_as_in_mertools(root: Path) -> None:
    class OverlappingJudge(RuleJudge):
        def query(self, protocol: Protocol, items: Any, repeat: int = 0) -> list[Verdict | None]:
            reply = '{"groups": [["excited", "glad"], ["excited", "happy", "joyful"]]}'
            return [Verdict(protocol.parse_reply(reply, item)) for item in items]

    [prediction] = [answer(q, "glad") for q in EmerOV(str(root)).questions()[:1]]
    # first: {excited, glad} and {happy, joyful}; last: all are mapped to excited
    for last_wins, recall in ((False, 50), (True, 100)):
        scores = EmerOV(str(root), judge=OverlappingJudge(), last_wins=last_wins).scores([prediction])
        assert [score.value for score in scores[1:3]] == [100, recall]


def test_clips_in_the_training_data_are_counted(root: Path) -> None:
    (root / "train.jsonl").write_text(
        '\ufeff{"video": "MER24/video-labeled/sample_00000220.mp4"}\r\n', encoding="utf-8"
    )
    benchmark = EmerOV(str(root), train_records=[str(root / "train.jsonl")])
    assert [question.meta["in_training"] for question in benchmark.questions()] == [False, True, False]
    assert benchmark.protocol()["clips in training"] == "1 of 3"


def test_tables_with_byte_order_mark_and_empty_cells(root: Path) -> None:
    lines = TABLE.replace("\n", "\r\n").replace("sample_00000220,", "sample_00000220 , ")
    (root / "check-openset.csv").write_text(f"\ufeff{lines},\r\n\r\n", encoding="utf-8", newline="")
    assert [question.id for question in EmerOV(str(root)).questions()][1:] == ["sample_00000220", "sample_00000039"]


def test_scores_without_a_judge(root: Path) -> None:
    benchmark = EmerOV(str(root))
    predictions = [answer(q, text) for q, text in zip(benchmark.questions(), ("joyful", None, "furious"), strict=True)]
    scores = benchmark.scores(predictions)
    assert [score.name for score in scores] == ["ew_level1", "ew_level2"]
    assert 0 < scores[0].value < 100
    perfect = benchmark.scores([answer(q, ", ".join(q.reference)) for q in benchmark.questions()])
    assert perfect[0].value == pytest.approx(100)
    assert benchmark.protocol()["judge"] == "none: ov_avg, ov_accuracy and ov_recall absent"


def test_items_with_a_failed_judge_are_missing(root: Path) -> None:
    benchmark = EmerOV(str(root), judge=FailingJudge())
    predictions = [answer(question, "sad, calm") for question in benchmark.questions()]
    scores = {score.name: score for score in benchmark.scores(predictions)}
    assert scores["ov_avg"].ids == ("sample_00000007", "sample_00000220")
    assert scores["ov_avg"].coverage == scores["ov_recall"].coverage == pytest.approx(2 / 3)


def test_invalid_tables_raise(root: Path) -> None:
    (root / "video/sample_00000039.mp4").unlink()
    with pytest.raises(ValueError, match=r"check-openset\.csv:4: name: .*no file .*/sample_00000039\.mp4 \(nor"):
        EmerOV(str(root)).questions()
    benchmark = EmerOV(str(root), missing_media="skip")
    assert len(benchmark.questions()) == 2 and benchmark.protocol()["missing media"].startswith("1 of 3 skipped")
    table = root / "check-openset.csv"
    table.write_text("name,openset\nsample_00000220,surprised\n")
    with pytest.raises(ValueError, match=r"check-openset\.csv:2: openset is 'surprised'"):
        EmerOV(str(root)).questions()
    table.write_text("name,openset\nsample_00000220,['a']\nsample_00000220,['b']\n")
    with pytest.raises(ValueError, match=r"'sample_00000220' is duplicated .*:2 and .*:3"):
        EmerOV(str(root)).questions()


def test_published_results_and_yaml(root: Path) -> None:
    best = next(result for result in EmerOV.published if result.method == "Omni-Emotion v+a+f")
    assert best.values == {"ov_avg": 65.9, "ov_accuracy": 61.3, "ov_recall": 70.6}
    built, plain = build(compose_part("benchmark", "emer_ov", [f"benchmark.root={root}"])), EmerOV(str(root))
    assert built.protocol() == plain.protocol() and built.annotations == plain.annotations
    assert built.max_new_tokens == plain.max_new_tokens
