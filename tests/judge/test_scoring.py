"""Scores for benchmarks: means over repeats, missing items, shortcuts without a query."""

from collections.abc import Iterable, Sequence
from itertools import islice

import pytest

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.scoring import (
    extract_labels,
    group_labels,
    judge_autodq,
    judge_clue_overlap,
    judge_label_overlap,
    judge_video_chatgpt,
)


class ScriptedJudge(Judge):
    """Replies from a list, in order, and records the queries."""

    id = "scripted"

    def __init__(self, replies: Iterable[object], repeats: int = 1) -> None:
        super().__init__()
        self.replies, self.repeats = iter(replies), repeats
        self.queries: list[tuple[str, Item, int]] = []

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        self.queries += [(protocol.name, item, repeat) for item in items]
        verdicts: list[Verdict | None] = []
        for reply in islice(self.replies, len(items)):
            verdicts.append(None if reply is None else Verdict(protocol.schema.model_validate(reply)))
        return verdicts


def points(*scores: float | None) -> list[object]:
    return [None if score is None else {"reason": "", "score": score} for score in scores]


def test_mean_over_repeats_and_its_spread() -> None:
    judge = ScriptedJudge(points(2, 4, 9, 4, 8, None), repeats=2)
    assert judge_clue_overlap(judge, ["t"] * 3, ["a"] * 3) == [3, 6, 9]
    # means of the repeats on the two items judged in both: 3 and 6
    assert judge.ledger.spread == {"emer_clue": pytest.approx(2.1213, abs=1e-4)}
    assert [repeat for _, _, repeat in judge.queries] == [0, 0, 0, 1, 1, 1]
    failed = ScriptedJudge(points(None, None), repeats=2)
    assert judge_clue_overlap(failed, ["t"], ["a"]) == [None]
    assert failed.ledger.spread == {}


def test_one_query_per_aspect() -> None:
    judge = ScriptedJudge([{"score": score} for score in (1, 2, 3, 4)])
    assert judge_video_chatgpt(judge, ["q"], ["t"], ["a"]) == {
        "correctness": [1],
        "detail": [2],
        "context": [3],
        "temporal": [4],
    }
    with pytest.raises(ValueError, match="zip"):
        judge_video_chatgpt(judge, ["q"], ["t"], ["a", "b"])


def test_label_overlap_needs_labels_of_both_sides() -> None:
    labels = [{"labels": ["sad", "low"]}, {"labels": ["sad"]}, None, {"labels": ["low", "sad"]}, None, {"labels": []}]
    judge = ScriptedJudge([*labels, *points(10)])
    assert judge_label_overlap(judge, ["t1", "t2", "t3"], ["a1", "a2", "a3"]) == [10, None, None]
    assert judge.queries[-1] == ("emer_label_overlap", {"reference": ["low", "sad"], "answer": ["low", "sad"]}, 0)


def test_counts_are_summed_over_repeats() -> None:
    def relation(kind: str) -> dict[str, list[dict[str, str]]]:
        return {"events": [{"event": "e", "relationship": kind, "reason": ""}]}

    first = [{"events": ["t"]}, {"events": ["a"]}, relation("entailment"), relation("neutral")]
    second = [{"events": ["t"]}, {"events": []}, relation("entailment")]  # no events of the answer: no entailment query
    assert judge_autodq(ScriptedJudge([*first, *second], repeats=2), ["t"], ["a"]) == [(1, 1, 1, 2)]
    failed = [None, {"events": ["a"]}, relation("entailment")]
    assert judge_autodq(ScriptedJudge([*first, *failed], repeats=2), ["t"], ["a"]) == [(1, 1, 0, 1)]


def test_annotated_events_are_not_extracted() -> None:
    relation = {"events": [{"event": "e", "relationship": "entailment", "reason": ""}]}
    judge = ScriptedJudge([{"events": ["t2"]}, {"events": []}, {"events": []}, relation, relation])
    assert judge_autodq(judge, ["T1", "T2"], ["A1", "A2"], events=[["e1"], None]) == [(0, 0, 1, 1), (0, 0, 1, 1)]
    assert [item["text"] for _, item, _ in judge.queries] == ["t2", "a1", "a2", "a1", "a2"]


def test_empty_texts_need_no_query() -> None:
    judge = ScriptedJudge([])
    assert judge_autodq(judge, [""], [" "]) == [(0, 0, 0, 0)]
    assert extract_labels(judge, ["", " \n"]) == [[], []]
    assert group_labels(judge, [["Sad "], []], [["sad", ""], []]) == [[["sad"]], []]
    assert judge_clue_overlap(judge, [], []) == [] and judge.queries == []


def test_labels_are_normalized_and_sorted() -> None:
    judge = ScriptedJudge([{"labels": [" Sad", "sad", "SHY", ""]}, None, {"groups": [["low", "sad"], ["shy"]]}])
    assert extract_labels(judge, ["x", "y"]) == [["sad", "shy"], None]
    assert group_labels(judge, [["shy", "Sad"]], [["low", "shy"]]) == [[["low", "sad"], ["shy"]]]
    assert judge.queries[-1] == ("emer_ov_groups", {"labels": ["low", "sad", "shy"]}, 0)
