"""Rules in the place of a judge."""

from collections.abc import Sequence

import pytest

from omnihuman.build import build, compose_part
from omnihuman.judge.base import Protocol
from omnihuman.judge.protocols import EVENTS, EXTRACTION, GROUPING, PROTOCOLS, VIDEO_CHATGPT
from omnihuman.judge.rule import RuleJudge, f1, labels_in, sentences, words
from omnihuman.judge.scoring import autodq, clue_overlap, consistency, group_labels, label_overlap, video_chatgpt

EVERYTHING = {
    "question": "q", "other_question": "q", "truth": "a man waves", "answer": "he waves", "other_answer": "he waves",
    "text": "a man waves", "events": ["man waves"], "labels": ["sad"],
}  # fmt: skip


def test_it_answers_every_protocol() -> None:
    judge = RuleJudge()
    for protocol in PROTOCOLS.values():
        assert judge.ask(protocol, [EVERYTHING])[0] is not None
    assert (judge.ledger.asked, judge.ledger.coverage, judge.ledger.calls) == (len(PROTOCOLS), 1.0, 0)
    with pytest.raises(ValueError, match="no rule for 'other'"):
        judge.ask(Protocol("other", "1", "JSON", "{text}", EVENTS.schema), [EVERYTHING])


def test_it_says_that_it_is_no_judge() -> None:
    assert RuleJudge.offline and RuleJudge().id == "offline-rule"
    assert build(compose_part("judge", "rule")).id == "offline-rule"


def test_scores_stretch_the_f1_of_words() -> None:
    truth, answer = "The man smiles and waves.", "A man frowns"
    assert words(truth) == ["man", "smiles", "waves"]
    assert f1(words(truth), words(answer)) == pytest.approx(2 / 5)
    judge = RuleJudge()
    assert video_chatgpt(judge, ["q"], [truth], [answer]) == {
        aspect: [2.0] for aspect in ("correctness", "detail", "context", "temporal")
    }
    assert clue_overlap(judge, [truth, truth], [truth, answer]) == [10, 5]  # 1 + round(9 x 0.4)
    assert consistency(judge, [("q", "r")] * 2, [truth] * 2, [(truth, truth), (truth, "no")]) == [5, 0]
    assert f1([], []) == 1 and f1(["a"], []) == 0


def test_sentences_are_events_and_words_entail_them() -> None:
    assert sentences("He sits. She waves!\nA dog barks; it runs. And?") == [
        "He sits",
        "She waves",
        "A dog barks",
        "it runs",
    ]
    judge = RuleJudge()
    truth, answer = "A man waves his hand. He sits down slowly.", "The man waves. A dog barks."
    assert autodq(judge, [truth], [answer]) == [(1, 2, 1, 2)]  # man, waves of man, waves, hand: 2/3; sits ... of none
    assert autodq(RuleJudge(contained=0.7), [truth], [answer]) == [(1, 2, 0, 2)]
    verdict = judge.ask(EVENTS, [{"text": ". ".join(f"Man {n} sits" for n in range(12))}])[0]
    assert verdict is not None and len(verdict.reply.events) == 10


def test_labels_stand_between_commas_or_in_a_list() -> None:
    assert labels_in("Sad, shy and very worried.") == ["sad", "shy", "very worried"]
    assert labels_in("['happy', 'calm']") == ["happy", "calm"]
    assert labels_in("The woman looks sad at first, then she smiles and is happy. So sad!") == ["sad", "happy"]
    assert labels_in("") == []
    judge = RuleJudge()
    assert label_overlap(judge, ["sad, shy", "sad"], ["shy, sad", "happy"]) == [10, 1]
    assert judge.ask(EXTRACTION, [{"text": "He talks about the weather for a while."}])[0].reply.labels == []  # type: ignore[union-attr]


def test_groups_come_from_whoever_knows() -> None:
    def by_letter(labels: Sequence[str]) -> list[list[str]]:
        return [[one for one in labels if one[0] == first] for first in sorted({one[0] for one in labels})]

    assert group_labels(RuleJudge(by_letter), [["sad"]], [["shy", "happy"]]) == [[["happy"], ["sad", "shy"]]]
    [[groups]] = [group_labels(build(compose_part("judge", "rule")), [["worried", "sad"]], [["anxious"]])]
    assert groups == [["anxious", "worried"], ["sad"]]  # the yaml's groups are those of an emotion wheel
    assert RuleJudge().ask(GROUPING, [{"labels": ["a", "b"]}])[0].reply.groups == [["a"], ["b"]]  # type: ignore[union-attr]


def test_it_reads_what_the_aspects_ask() -> None:
    item = {"question": "q", "truth": "a {man}", "answer": ""}
    assert RuleJudge().ask(VIDEO_CHATGPT["temporal"], [item])[0].reply.score == 0  # type: ignore[union-attr]
