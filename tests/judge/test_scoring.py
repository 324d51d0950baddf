"""What benchmarks get: means over repeats, missing items, shortcuts without a call."""

from collections.abc import Iterable, Sequence

import pytest

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.scoring import autodq, clue_overlap, extract_labels, group_labels, label_overlap, video_chatgpt


class Script(Judge):
    """Says what stands in a list, in order; remembers what it was asked."""

    id = "script"

    def __init__(self, replies: Iterable[object], repeats: int = 1) -> None:
        super().__init__()
        self.replies, self.repeats = iter(replies), repeats
        self.asked: list[tuple[str, Item, int]] = []

    def ask(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        self.asked += [(protocol.name, item, repeat) for item in items]
        said = [next(self.replies) for _ in items]
        return [None if one is None else Verdict(protocol.schema.model_validate(one)) for one in said]


def points(*scores: float | None) -> list[object]:
    return [None if score is None else {"reason": "", "score": score} for score in scores]


def test_the_mean_over_repeats_and_its_spread() -> None:
    judge = Script(points(2, 4, 9, 4, 8, None), repeats=2)
    assert clue_overlap(judge, ["t"] * 3, ["a"] * 3) == [3, 6, 9]
    # figures of the repeats on the two items that both judged: 3 and 6
    assert judge.ledger.spread == {"emer_clue": pytest.approx(2.1213, abs=1e-4)}
    assert [repeat for _, _, repeat in judge.asked] == [0, 0, 0, 1, 1, 1]
    failed = Script(points(None, None), repeats=2)
    assert clue_overlap(failed, ["t"], ["a"]) == [None]
    assert failed.ledger.spread == {}


def test_one_question_for_each_aspect() -> None:
    judge = Script([{"score": score} for score in (1, 2, 3, 4)])
    assert video_chatgpt(judge, ["q"], ["t"], ["a"]) == {
        "correctness": [1],
        "detail": [2],
        "context": [3],
        "temporal": [4],
    }
    with pytest.raises(ValueError, match="zip"):
        video_chatgpt(judge, ["q"], ["t"], ["a", "b"])


def test_label_overlap_compares_only_what_both_sides_have() -> None:
    labels = [{"labels": ["sad", "low"]}, {"labels": ["sad"]}, None, {"labels": ["low", "sad"]}, None, {"labels": []}]
    judge = Script([*labels, *points(10)])
    assert label_overlap(judge, ["t1", "t2", "t3"], ["a1", "a2", "a3"]) == [10, None, None]
    assert judge.asked[-1] == ("emer_label_overlap", {"truth": ["low", "sad"], "answer": ["low", "sad"]}, 0)


def test_counts_add_up_over_repeats() -> None:
    def entails(kind: str) -> dict[str, list[dict[str, str]]]:
        return {"events": [{"event": "e", "relationship": kind, "reason": ""}]}

    once = [{"events": ["t"]}, {"events": ["a"]}, entails("entailment"), entails("neutral")]
    again = [{"events": ["t"]}, {"events": []}, entails("entailment")]  # no events of the answer: nothing to ask
    assert autodq(Script([*once, *again], repeats=2), ["t"], ["a"]) == [(1, 1, 1, 2)]
    failed = [None, {"events": ["a"]}, entails("entailment")]
    assert autodq(Script([*once, *failed], repeats=2), ["t"], ["a"]) == [(1, 1, 0, 1)]


def test_events_of_the_annotation_are_not_asked_for() -> None:
    relation = {"events": [{"event": "e", "relationship": "entailment", "reason": ""}]}
    judge = Script([{"events": ["t2"]}, {"events": []}, {"events": []}, relation, relation])
    assert autodq(judge, ["T1", "T2"], ["A1", "A2"], events=[["e1"], None]) == [(0, 0, 1, 1), (0, 0, 1, 1)]
    assert [item["text"] for _, item, _ in judge.asked] == ["t2", "a1", "a2", "a1", "a2"]


def test_nothing_to_ask() -> None:
    judge = Script([])
    assert autodq(judge, [""], [" "]) == [(0, 0, 0, 0)]
    assert extract_labels(judge, ["", " \n"]) == [[], []]
    assert group_labels(judge, [["Sad "], []], [["sad", ""], []]) == [[["sad"]], []]
    assert clue_overlap(judge, [], []) == [] and judge.asked == []


def test_labels_are_plain_and_asked_in_order() -> None:
    judge = Script([{"labels": [" Sad", "sad", "SHY", ""]}, None, {"groups": [["low", "sad"], ["shy"]]}])
    assert extract_labels(judge, ["x", "y"]) == [["sad", "shy"], None]
    assert group_labels(judge, [["shy", "Sad"]], [["low", "shy"]]) == [[["low", "sad"], ["shy"]]]
    assert judge.asked[-1] == ("emer_ov_groups", {"labels": ["low", "sad", "shy"]}, 0)
