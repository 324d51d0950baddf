"""Replies from the records of a clip."""

import json

import pytest
from pydantic import BaseModel

from omnihuman.corpus.world import build_scenes
from omnihuman.corpus.write import build_records
from omnihuman.judge.base import Protocol
from omnihuman.judge.scripted import ScriptedJudge


class Reply(BaseModel):
    text: str
    score: int


PROTOCOL = Protocol("look", "1", "JSON", "What?", Reply)


def test_the_first_task_that_a_clip_has() -> None:
    judge = ScriptedJudge({"look": {"text": {"tasks": ["a", "b"]}, "score": {"value": 3}}})
    records = [json.dumps({"task": task, "conversations": [{"value": "?"}, {"value": task * 2}]}) for task in "cba"]
    verdicts = judge.query(PROTOCOL, [{"records": records}, {"records": records[:2]}, {"records": records[:1]}])
    assert [verdict and verdict.reply.text for verdict in verdicts] == ["aa", "bb", None]
    assert judge.ledger.num_judged == 2 and judge.ledger.missing
    with pytest.raises(ValueError, match=r"look.*other.*brief"):
        ScriptedJudge({"other": {}}).query(PROTOCOL, [])


def test_clips_of_the_corpus_are_described_by_their_truth() -> None:
    class Caption(BaseModel):
        caption: str

    records = [json.dumps(record) for record in build_records(build_scenes(0)[0], 0)]
    judge = ScriptedJudge()
    first, other = judge.query(
        Protocol("brief", "1", "JSON", "What?", Caption), [{"records": records}, {"records": []}]
    )
    assert first is not None and "woman" in first.reply.caption and other is None
    detailed = Protocol("detailed", "1", "JSON", "What?", Caption)
    assert judge.query(detailed, [{"records": records}]) != judge.query(detailed, [{"records": records}], repeat=1)
