from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.benchmark.emer_ov import PROMPT, EmerOV, labels_of
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


def synonyms(labels: Any) -> list[list[str]]:
    """Grouping by hand."""
    alike = [{"excited"}, {"joyful", "happy", "glad"}, {"angry", "mad", "furious"}]
    groups = [[label for label in labels if label in some] for some in alike]
    return [group for group in groups if group] + [[x] for x in labels if not any(x in some for some in alike)]


class Failing(RuleJudge):
    """Fails on labels that hold a word."""

    def ask(self, protocol: Protocol, items: Any, repeat: int = 0) -> list[Verdict | None]:
        given = super().ask(protocol, items, repeat)
        return [None if "mad" in str(item) else one for item, one in zip(items, given, strict=True)]


def answer(question: Question, text: str | None) -> Prediction:
    return Prediction("emer_ov", question.id, question.group, "", question.truth, text)


def test_the_table_becomes_questions(root: Path) -> None:
    questions = EmerOV(str(root)).questions()
    assert [each.id for each in questions] == ["sample_00000007", "sample_00000220", "sample_00000039"]
    assert questions[0].truth == ["excited", "joyful", "happy"] and questions[1].truth == ["surprised"]
    assert questions[0].record.messages[0][1] == f"<video>\n<audio>\n{PROMPT}"
    assert questions[2].record.source.endswith("check-openset.csv:4")


def test_labels_with_and_without_quotes() -> None:
    assert labels_of("['looking forward to', \"Sad\", 'sad']", "x") == ["looking forward to", "sad"]
    assert labels_of("[angry, very sad]", "x") == ["angry", "very sad"]
    for text in ("angry", "[]", "['']", "__import__('os')", "{'a': 1}", "[a,,b]"):
        with pytest.raises(ValueError, match=r"t\.csv:2: openset is .* list of labels"):
            labels_of(text, "t.csv:2: openset")


def test_subtitles_stand_before_the_question(root: Path) -> None:
    lines = "name,chinese,english\nsample_00000007,好,Good!\nsample_00000220,,\nsample_00000039,走,Go\n"
    (root / "subtitle_chieng.csv").write_text(lines, encoding="utf-8")
    english = EmerOV(str(root), subtitles="subtitle_chieng.csv").questions()
    assert "Good!" in english[0].record.messages[0][1] and english[0].record.messages[0][1].endswith(PROMPT)
    assert english[1].record.messages[0][1] == f"<video>\n<audio>\n{PROMPT}"
    chinese = EmerOV(str(root), subtitles="subtitle_chieng.csv", language="chinese").questions()
    assert "走" in chinese[2].record.messages[0][1]
    (root / "subtitle_chieng.csv").write_text("\n".join(lines.splitlines()[:2]))
    with pytest.raises(ValueError, match="there is no line for sample_00000220; add one"):
        EmerOV(str(root), subtitles="subtitle_chieng.csv").questions()
    with pytest.raises(ValueError, match=r"subtitle_chieng\.csv:2: subtitles have the columns name and german"):
        EmerOV(str(root), subtitles="subtitle_chieng.csv", language="german").questions()


@pytest.mark.parametrize(
    ("said", "labels", "rule"),
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
        (None, None, "invalid"),
    ],
)
def test_labels_of_an_answer(said: str | None, labels: list[str] | None, rule: str) -> None:
    assert EmerOV("nowhere").parse(Prediction("emer_ov", "a", "", "", ["sad"], said)) == (labels, rule)


def test_sets_that_a_judge_groups(root: Path) -> None:
    benchmark = EmerOV(str(root), judge=RuleJudge(synonyms))
    said = ["glad, nervous", None, "['furious']"]
    asked = [answer(q, text) for q, text in zip(benchmark.questions(), said, strict=True)]
    scores = {score.name: score for score in benchmark.scores(asked)}
    assert list(scores)[:3] == ["ov_avg", "ov_accuracy", "ov_recall"]
    # glad is right, nervous is not, of excited and joyful one is named; nothing is 0; furious is angry and mad
    assert scores["ov_accuracy"].value == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)
    assert scores["ov_recall"].value == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)
    assert scores["ov_avg"].value == pytest.approx(scores["ov_recall"].value)
    assert "offline-rule" in scores["ov_avg"].note and len(scores) > 3


def test_labels_of_free_answers_come_from_the_judge(root: Path) -> None:
    benchmark = EmerOV(str(root), judge=RuleJudge(synonyms))
    text = "She looks at the door with a faint smile, and in the end her voice tells that she is happy and excited."
    [asked] = [answer(q, text) for q in benchmark.questions()[:1]]
    scores = {score.name: score.value for score in benchmark.scores([asked])}
    assert scores["ov_accuracy"] == 100 and scores["ov_recall"] == pytest.approx(100)


def test_an_empty_list_is_nothing_to_ask_about(root: Path) -> None:
    judge = RuleJudge()
    scores = EmerOV(str(root), judge=judge).scores([answer(q, "[]") for q in EmerOV(str(root)).questions()])
    assert (scores[0].value, scores[0].coverage, judge.ledger.asked) == (0, 1, 0)


def test_the_last_of_several_groups_as_mertools_counts_it(root: Path) -> None:
    class Twice(RuleJudge):
        def ask(self, protocol: Protocol, items: Any, repeat: int = 0) -> list[Verdict | None]:
            said = '{"groups": [["excited", "glad"], ["excited", "happy", "joyful"]]}'
            return [Verdict(protocol.read(said, item)) for item in items]

    [asked] = [answer(q, "glad") for q in EmerOV(str(root)).questions()[:1]]
    # first: excited and glad are one, happy and joyful another; last: glad still counts for excited, and so do they all
    for last_wins, recall in ((False, 50), (True, 100)):
        scores = EmerOV(str(root), judge=Twice(), last_wins=last_wins).scores([asked])
        assert [score.value for score in scores[1:3]] == [100, recall]


def test_clips_of_the_training_are_counted(root: Path) -> None:
    (root / "train.jsonl").write_text(
        '\ufeff{"video": "MER24/video-labeled/sample_00000220.mp4"}\r\n', encoding="utf-8"
    )
    benchmark = EmerOV(str(root), train_records=[str(root / "train.jsonl")])
    assert [each.meta["in_training"] for each in benchmark.questions()] == [False, True, False]
    assert benchmark.protocol()["clips in training"] == "1 of 3"


def test_tables_as_spreadsheets_leave_them(root: Path) -> None:
    lines = TABLE.replace("\n", "\r\n").replace("sample_00000220,", "sample_00000220 , ")
    (root / "check-openset.csv").write_text(f"\ufeff{lines},\r\n\r\n", encoding="utf-8", newline="")
    assert [each.id for each in EmerOV(str(root)).questions()][1:] == ["sample_00000220", "sample_00000039"]


def test_without_a_judge_only_the_wheels_score(root: Path) -> None:
    benchmark = EmerOV(str(root))
    asked = [answer(q, text) for q, text in zip(benchmark.questions(), ("joyful", None, "furious"), strict=True)]
    scores = benchmark.scores(asked)
    assert [score.name for score in scores] == ["ew_level1", "ew_level2"]
    assert 0 < scores[0].value < 100
    perfect = benchmark.scores([answer(q, ", ".join(q.truth)) for q in benchmark.questions()])
    assert perfect[0].value == pytest.approx(100)
    assert benchmark.protocol()["judge"] == "none: ov_avg, ov_accuracy and ov_recall absent"


def test_what_the_judge_failed_on_is_missing(root: Path) -> None:
    benchmark = EmerOV(str(root), judge=Failing())
    scores = {s.name: s for s in benchmark.scores([answer(q, "sad, calm") for q in benchmark.questions()])}
    assert scores["ov_avg"].ids == ("sample_00000007", "sample_00000220")
    assert scores["ov_avg"].coverage == scores["ov_recall"].coverage == pytest.approx(2 / 3)


def test_bad_tables(root: Path) -> None:
    (root / "video/sample_00000039.mp4").unlink()
    with pytest.raises(ValueError, match=r"check-openset\.csv:4: name: there is no file .*/sample_00000039\.mp4 \(nor"):
        EmerOV(str(root)).questions()
    benchmark = EmerOV(str(root), missing_media="skip")
    assert len(benchmark.questions()) == 2 and benchmark.protocol()["missing media"].startswith("1 of 3 skipped")
    table = root / "check-openset.csv"
    table.write_text("name,openset\nsample_00000220,surprised\n")
    with pytest.raises(ValueError, match=r"check-openset\.csv:2: openset is 'surprised'"):
        EmerOV(str(root)).questions()
    table.write_text("name,openset\nsample_00000220,['a']\nsample_00000220,['b']\n")
    with pytest.raises(ValueError, match=r"'sample_00000220' is there twice .*:2 and .*:3"):
        EmerOV(str(root)).questions()


def test_peers_and_the_yaml(root: Path) -> None:
    best = next(peer for peer in EmerOV.peers if peer.method == "Omni-Emotion v+a+f")
    assert best.values == {"ov_avg": 65.9, "ov_accuracy": 61.3, "ov_recall": 70.6}
    built, plain = build(compose_part("benchmark", "emer_ov", [f"benchmark.root={root}"])), EmerOV(str(root))
    assert built.protocol() == plain.protocol() and built.annotations == plain.annotations
    assert built.max_new_tokens == plain.max_new_tokens
