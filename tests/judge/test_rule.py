"""Rules instead of a judge."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import pytest

from omnihuman.build import build, compose_part
from omnihuman.judge.base import Protocol
from omnihuman.judge.protocols import EVENTS, EXTRACTION, GROUPING, PROTOCOLS, VIDEO_CHATGPT
from omnihuman.judge.rule import RuleJudge, content_words, extract_labels, split_sentences, word_f1
from omnihuman.judge.scoring import (
    ASPECTS,
    group_labels,
    judge_autodq,
    judge_clue_overlap,
    judge_consistency,
    judge_label_overlap,
    judge_video_chatgpt,
)

ITEM = {
    "question": "q",
    "other_question": "q",
    "reference": "a man waves",
    "answer": "he waves",
    "other_answer": "he waves",
    "text": "a man waves",
    "events": ["man waves"],
    "labels": ["sad"],
    "first": "a bald man",
    "second": "a young girl",
}


def test_every_protocol_has_a_rule() -> None:
    judge = RuleJudge()
    for protocol in PROTOCOLS.values():
        assert judge.query(protocol, [ITEM])[0] is not None
    assert (judge.ledger.num_items, judge.ledger.coverage, judge.ledger.num_calls) == (len(PROTOCOLS), 1.0, 0)
    with pytest.raises(ValueError, match="no rule for 'other'"):
        judge.query(Protocol("other", "1", "JSON", "{text}", EVENTS.schema), [ITEM])


def test_id_marks_the_stand_in() -> None:
    assert RuleJudge.offline and RuleJudge().id == "offline-rule"
    assert build(compose_part("judge", "rule")).id == "offline-rule"


def test_scores_scale_the_f1_of_content_words() -> None:
    reference, answer = "The man smiles and waves.", "A man frowns"
    assert content_words(reference) == ["man", "smiles", "waves"]
    assert word_f1(content_words(reference), content_words(answer)) == pytest.approx(2 / 5)
    judge = RuleJudge()
    assert judge_video_chatgpt(judge, ["q"], [reference], [answer]) == {aspect: [2.0] for aspect in ASPECTS}
    assert judge_clue_overlap(judge, [reference, reference], [reference, answer]) == [10, 5]  # 1 + round(9 x 0.4)
    assert judge_consistency(judge, [("q", "r")] * 2, [reference] * 2, [(reference, reference), (reference, "no")]) == [
        5,
        0,
    ]
    assert word_f1([], []) == 1 and word_f1(["a"], []) == 0


def test_sentences_are_events_entailed_by_their_words() -> None:
    assert split_sentences("He sits. She waves!\nA dog barks; it runs. And?") == [
        "He sits",
        "She waves",
        "A dog barks",
        "it runs",
    ]
    judge = RuleJudge()
    reference, answer = "A man waves his hand. He sits down slowly.", "The man waves. A dog barks."
    assert judge_autodq(judge, [reference], [answer]) == [
        (1, 2, 1, 2)
    ]  # man and waves of man, waves, hand: 2/3; of sits, down, slowly: none
    assert judge_autodq(RuleJudge(min_overlap=0.7), [reference], [answer]) == [(1, 2, 0, 2)]
    verdict = judge.query(EVENTS, [{"text": ". ".join(f"Man {n} sits" for n in range(12))}])[0]
    assert verdict is not None and len(verdict.reply.events) == 10


def test_labels_are_list_items_or_emotion_words() -> None:
    assert extract_labels("Sad, shy and very worried.") == ["sad", "shy", "very worried"]
    assert extract_labels("['happy', 'calm']") == ["happy", "calm"]
    assert extract_labels("The woman looks sad at first, then she smiles and is happy. So sad!") == ["sad", "happy"]
    assert extract_labels("") == []
    judge = RuleJudge()
    assert judge_label_overlap(judge, ["sad, shy", "sad"], ["shy, sad", "happy"]) == [10, 1]
    assert judge.query(EXTRACTION, [{"text": "He talks about the weather for a while."}])[0].reply.labels == []  # type: ignore[union-attr]


def test_groups_are_configurable() -> None:
    def group_by_letter(labels: Sequence[str]) -> list[list[str]]:
        return [list(group) for _, group in groupby(sorted(labels), key=itemgetter(0))]

    assert group_labels(RuleJudge(group_by_letter), [["sad"]], [["shy", "happy"]]) == [[["happy"], ["sad", "shy"]]]
    [[groups]] = [group_labels(build(compose_part("judge", "rule")), [["worried", "sad"]], [["anxious"]])]
    assert groups == [["anxious", "worried"], ["sad"]]  # the yaml groups by an emotion wheel
    assert RuleJudge().query(GROUPING, [{"labels": ["a", "b"]}])[0].reply.groups == [["a"], ["b"]]  # type: ignore[union-attr]


def test_an_empty_answer_scores_zero() -> None:
    item = {"question": "q", "reference": "a {man}", "answer": ""}
    assert RuleJudge().query(VIDEO_CHATGPT["temporal"], [item])[0].reply.score == 0  # type: ignore[union-attr]
