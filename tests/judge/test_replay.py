"""Fixed replies of a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.judge.protocols import STATES, VIDEO_CHATGPT
from omnihuman.judge.replay import ReplayJudge
from omnihuman.judge.scoring import judge_autodq, judge_video_chatgpt

Line = tuple[str, dict[str, Any], Any]


def write_replies(folder: Path, *lines: Line) -> Path:
    file = folder / "cases.jsonl"
    raw = [{"protocol": name, "item": item, "reply": reply} for name, item, reply in lines]
    file.write_text("\n".join(map(json.dumps, raw)) + "\n\n", encoding="utf-8")
    return file


def relations(*kinds: str) -> dict[str, Any]:
    return {"events": [{"event": "e", "relationship": kind, "reason": ""} for kind in kinds]}


def test_autodq_worked_out_by_hand(tmp_path: Path) -> None:
    """Only entailment counts, on both sides; texts are in lower case."""
    reference, answer = "he smiles, then waves, then sits.", "he smiles and frowns."
    true_events, events = ["he smiles", "he waves", "he sits"], ["he smiles", "he frowns"]
    judge = ReplayJudge(
        write_replies(
            tmp_path,
            ("autodq_events", {"text": reference}, {"events": true_events}),
            ("autodq_events", {"text": answer}, {"events": events}),
            ("autodq_events", {"text": "static"}, {"events": []}),
            ("autodq_entailment", {"text": reference, "events": events}, relations("entailment", "contradiction")),
            (
                "autodq_entailment",
                {"text": answer, "events": true_events},
                relations("entailment", "neutral", "neutral"),
            ),
            ("autodq_entailment", {"text": "static", "events": true_events}, relations(*["neutral"] * 3)),
        )
    )
    counts = judge_autodq(judge, [reference.upper()] * 3, [answer, "Static", ""])
    assert counts == [(1, 2, 1, 3), (0, 0, 0, 3), (0, 0, 0, 3)]
    counts = judge_autodq(judge, ["anything"], [""], events=[true_events])
    assert counts == [(0, 0, 0, 3)]
    assert judge.id == "offline-replay" and judge.offline


def test_a_failed_query_makes_its_item_missing(tmp_path: Path) -> None:
    judge = ReplayJudge(
        write_replies(
            tmp_path,
            ("autodq_events", {"text": "a"}, {"events": ["a happens"]}),
            ("autodq_events", {"text": "b"}, None),
            ("autodq_events", {"text": "c"}, {"events": ["c happens"]}),
            ("autodq_entailment", {"text": "a", "events": ["c happens"]}, None),
            ("autodq_entailment", {"text": "c", "events": ["a happens"]}, relations("entailment")),
            ("autodq_entailment", {"text": "a", "events": ["a happens"]}, relations("entailment")),
            ("autodq_entailment", {"text": "b", "events": ["a happens"]}, relations("entailment")),
        )
    )
    assert judge_autodq(judge, ["a", "a", "a"], ["a", "b", "c"]) == [(1, 1, 1, 1), None, None]
    assert judge.ledger.missing == {"null in the file": 2}
    assert judge.ledger.num_judged == judge.ledger.num_items - 2


def test_a_reply_may_be_a_text(tmp_path: Path) -> None:
    item = {"question": "q", "reference": "t", "answer": "a"}
    judge = ReplayJudge(write_replies(tmp_path, ("video_chatgpt_detail", item, "Well: {'score': 4.8}")))
    assert judge_video_chatgpt(judge, ["q"], ["t"], ["a"], ["detail"]) == {"detail": [4.0]}


def test_invalid_and_missing_replies_raise(tmp_path: Path) -> None:
    item = {"question": "q", "reference": "t", "answer": "a"}
    judge = ReplayJudge(write_replies(tmp_path, ("video_chatgpt_detail", item, {"score": 9})))
    with pytest.raises(ValueError, match=r"cases\.jsonl: .*video_chatgpt_detail .*0, 1, 2, 3, 4 or 5"):
        judge.query(VIDEO_CHATGPT["detail"], [item])
    with pytest.raises(ValueError, match=r"cases\.jsonl .*no reply .*video_chatgpt_context .*add the line"):
        judge.query(VIDEO_CHATGPT["context"], [item])
    with pytest.raises(ValueError, match=r"cases\.jsonl:2: .*duplicated"):
        ReplayJudge(write_replies(tmp_path, ("p", item, 1), ("p", dict(reversed(item.items())), 2)))
    (tmp_path / "cases.jsonl").write_text('{"protocol": "p", "item": {}}')
    with pytest.raises(ValueError, match=r"cases\.jsonl:1: .*protocol, item and reply"):
        ReplayJudge(tmp_path / "cases.jsonl")
    with pytest.raises(ValueError, match="no such file"):
        ReplayJudge(tmp_path / "none.jsonl")


def test_yaml_builds(tmp_path: Path) -> None:
    config = compose_part("judge", "replay")
    config.file = str(write_replies(tmp_path))
    assert build(config).replies == {}


@pytest.mark.parametrize("text", ["one\u2028two", "one\x85two", "one\x0btwo"])
def test_lines_end_at_newlines_only(tmp_path: Path, text: str) -> None:
    line = {"protocol": "emer_label_words", "item": {"text": text}, "reply": {"labels": ["sad"]}}
    file = tmp_path / "a.jsonl"
    file.write_text(f"\ufeff{json.dumps(line, ensure_ascii=False)}\r\n", encoding="utf-8", newline="")
    [verdict] = ReplayJudge(file).query(STATES, [{"text": text}])
    assert verdict is not None and verdict.reply.labels == ["sad"]


def test_another_encoding_raises(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}", encoding="utf-16")
    with pytest.raises(ValueError, match=r"a\.jsonl: .*UTF-8"):
        ReplayJudge(tmp_path / "a.jsonl")
