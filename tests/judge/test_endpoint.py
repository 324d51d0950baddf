"""A judge asked over HTTP, by the book and otherwise."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.judge.base import Verdict
from omnihuman.judge.endpoint import EndpointJudge, estimate
from omnihuman.judge.protocols import CLUES, EVENTS, VIDEO_CHATGPT
from omnihuman.judge.scoring import autodq, clue_overlap, extract_labels, group_labels, label_overlap, video_chatgpt

Make = Callable[..., EndpointJudge]
Log = Callable[[str], list[dict[str, Any]]]
DETAIL = VIDEO_CHATGPT["detail"]


def items(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"question": "what?", "truth": "a man", "answer": f"answer {n}"} for n in range(first, first + count)]


def scores(verdicts: list[Verdict | None]) -> list[int | None]:
    return [verdict.reply.score if verdict else None for verdict in verdicts]


def test_good_answers_are_scored_and_counted(make: Make, log: Log) -> None:
    judge = make("good")
    assert scores(judge.ask(DETAIL, items(3))) == [0, 1, 2]
    ledger = judge.ledger
    assert (ledger.asked, ledger.judged, ledger.calls, ledger.hits, ledger.coverage) == (3, 3, 3, 0, 1.0)
    assert (ledger.tokens_in, ledger.tokens_out, ledger.missing) == (30, 6, {})
    assert ledger.served == {"good-2024": 3}
    assert ledger.seconds > 0
    sent = log("good")[0]["body"]
    assert sent["temperature"] == 0 and sent["seed"] == 0 and sent["max_tokens"] == 4096
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert judge.id == "good, T=0, seed 0"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("garbage", "wrong form"),
        ("wrong", "wrong form"),
        ("endless", "wrong form"),
        ("cut", "cut short"),
        ("mute", "no text"),
        ("page", "no text"),
        ("half", "no chat completion"),
        ("broken", "status 500"),
        ("silent", "no connection"),
    ],
)
def test_a_judge_that_fails_is_missing_never_zero_never_endless(make: Make, log: Log, model: str, reason: str) -> None:
    judge = make(model)
    assert judge.ask(DETAIL, items(2, first=1)) == [None, None]
    assert len(log(model)) == judge.ledger.calls == 6  # a try and two retries each
    assert judge.ledger.coverage == 0
    assert [reason in key and count == 2 for key, count in judge.ledger.missing.items()] == [True]
    assert judge.cache is not None and judge.cache.get([judge.key(DETAIL, item) for item in items(2)]) == {}


def test_half_a_character_is_a_reply_of_the_wrong_form(make: Make) -> None:
    judge = make("surrogate")
    assert judge.ask(EVENTS, [{"text": "a man"}]) == [None]


@pytest.mark.parametrize("model", ["flaky", "mood"])
def test_what_passes_is_tried_again(make: Make, log: Log, model: str) -> None:
    judge = make(model)
    assert scores(judge.ask(DETAIL, items(4))) == [0, 1, 2, 3]
    assert len(log(model)) == judge.ledger.calls == (12 if model == "flaky" else 8)
    assert judge.ledger.missing == {}


def test_the_endpoint_says_how_long_to_wait(make: Make, log: Log) -> None:
    assert scores(make("busy").ask(DETAIL, items(1))) == [0]
    first, second = (one["time"] for one in log("busy"))
    assert 0.4 <= second - first < 2


def test_slow_answers_run_into_the_timeout(make: Make) -> None:
    judge = make("slow", timeout=0.1, max_retries=1)
    assert judge.ask(DETAIL, items(2)) == [None, None]
    assert judge.ledger.missing == {"no reply in 0.1 s": 2}


def test_nobody_listens(make: Make) -> None:
    judge = make("good", base_url="http://127.0.0.1:9/v1")
    assert judge.ask(DETAIL, items(1)) == [None]
    assert "no connection" in str(judge.ledger.missing)


def test_a_dead_endpoint_is_not_asked_for_ever(make: Make, log: Log) -> None:
    judge = make("org/broken", give_up_after=3, max_concurrency=2, max_retries=0)
    assert judge.ask(DETAIL, items(50)) == [None] * 50
    assert 3 <= len(log("org/broken")) <= 4
    assert sum(judge.ledger.missing.values()) == 50
    assert "not asked after 3 failures in a row" in judge.ledger.missing


@pytest.mark.parametrize(("model", "forms"), [("object", 2), ("plain", 3)])
def test_an_endpoint_without_schemas_is_asked_otherwise_and_remembered(
    make: Make, log: Log, model: str, forms: int
) -> None:
    judge = make(model, max_concurrency=1)
    assert scores(judge.ask(DETAIL, items(4))) == [0, 1, 2, 3]
    sent = [one["body"].get("response_format", {}).get("type", "text") for one in log(model)]
    assert sent == ["json_schema", "json_object", "text"][:forms] + [sent[forms - 1]] * 3


def test_one_refused_text_does_not_change_the_form(make: Make, log: Log) -> None:
    judge = make("prudish", max_concurrency=1)
    asked = [{"text": "a knife falls"}, {"text": "a man sits"}]
    refused, fine = judge.ask(EVENTS, asked)
    assert refused is None and fine is not None
    assert "policy" in str(judge.ledger.missing)
    assert log("prudish")[-1]["body"]["response_format"]["type"] == "json_schema"


def test_prose_fences_and_thoughts_are_read_through(make: Make) -> None:
    assert scores(make("chatty").ask(DETAIL, items(3))) == [0, 1, 2]


def test_models_that_think_get_no_temperature(make: Make, log: Log) -> None:
    judge = make("o3-mini")
    judge.ask(DETAIL, items(1))
    sent = log("o3-mini")[0]["body"]
    assert "temperature" not in sent and "max_tokens" not in sent and sent["max_completion_tokens"] == 4096
    assert judge.id == "o3-mini, seed 0"


def test_many_at_once_are_neither_lost_nor_mixed_up(make: Make, log: Log) -> None:
    judge = make("slowish", max_concurrency=16)
    assert scores(judge.ask(DETAIL, items(64))) == [n % 6 for n in range(64)]
    assert len(log("slowish")) == 64


def test_equal_questions_are_asked_once(make: Make, log: Log) -> None:
    judge = make("twice")
    assert scores(judge.ask(DETAIL, items(2) * 3)) == [0, 1] * 3
    assert len(log("twice")) == judge.ledger.calls == 2
    assert (judge.ledger.asked, judge.ledger.hits) == (6, 4)


def test_the_cache_answers_the_second_time(make: Make, log: Log) -> None:
    make("again").ask(DETAIL, items(3))
    judge = make("again", api_key_env="NOT_SET")  # no call, no key
    verdicts = judge.ask(DETAIL, items(3))
    assert scores(verdicts) == [0, 1, 2]
    assert all(verdict is not None and verdict.cached and verdict.model == "again-2024" for verdict in verdicts)
    assert (judge.ledger.calls, judge.ledger.hits, judge.ledger.tokens_in) == (0, 3, 0)
    assert len(log("again")) == 3
    make("again", seed=1).ask(DETAIL, items(1))  # what decides a reply is part of the key
    make("again", temperature=0.5).ask(DETAIL, items(1))
    make("again", extra_body={"top_k": 3}).ask(DETAIL, items(1))
    assert len(log("again")) == 6
    assert log("again")[-1]["body"]["top_k"] == 3


def test_a_cached_reply_that_no_longer_holds_is_asked_for_again(make: Make, log: Log, tmp_path: Path) -> None:
    make("stale").ask(DETAIL, items(2))
    with sqlite3.connect(tmp_path / "judgements.sqlite") as connection:
        connection.execute("UPDATE judgements SET text = 'nonsense' WHERE parsed = '{\"score\":1}'")
    assert scores(make("stale").ask(DETAIL, items(2))) == [0, 1]
    assert scores(make("stale", mode="offline").ask(DETAIL, items(2))) == [0, 1]
    assert len(log("stale")) == 3


def test_without_calls_what_lacks_is_missing_or_an_error(make: Make, log: Log) -> None:
    make("shipped").ask(DETAIL, items(2))
    judge = make("shipped", mode="cache_only", api_key_env="NOT_SET")
    assert scores(judge.ask(DETAIL, items(4))) == [0, 1, None, None]
    assert (judge.ledger.missing, judge.ledger.coverage) == ({"not in the cache": 2}, 0.5)
    offline = make("shipped", mode="offline")
    assert offline.cache is not None and offline.cache.read_only
    assert scores(offline.ask(DETAIL, items(2))) == [0, 1]
    with pytest.raises(ValueError, match=r"mode=offline asks nobody.* lacks 2 of 4 judgements of video_chatgpt_detail"):
        offline.ask(DETAIL, items(4))
    with pytest.raises(ValueError, match="no such file"):
        make("shipped", mode="cache_only", cache="nowhere.sqlite")
    assert len(log("shipped")) == 2


SCRIPT = """
import sys
from omnihuman.judge.endpoint import EndpointJudge
from omnihuman.judge.protocols import VIDEO_CHATGPT
judge = EndpointJudge("slow-kill", base_url=sys.argv[1], api_key_env=None, cache=sys.argv[2], max_concurrency=2)
items = [{"question": "what?", "truth": "a man", "answer": f"answer {n}"} for n in range(40)]
judge.ask(VIDEO_CHATGPT["detail"], items)
"""


def test_a_killed_judge_goes_on_where_it_was(make: Make, log: Log, endpoint: str, tmp_path: Path) -> None:
    file = tmp_path / "killed.sqlite"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, endpoint, str(file)], env=os.environ)
    until = time.monotonic() + 60
    while len(log("slow-kill")) < 12 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with sqlite3.connect(file) as connection:
        kept = connection.execute("SELECT COUNT(*) FROM judgements").fetchone()[0]
    assert 5 <= kept < 40
    judge = make("slow-kill", api_key_env=None, cache=str(file))
    assert scores(judge.ask(DETAIL, items(40))) == [n % 6 for n in range(40)]
    assert judge.ledger.calls == 40 - kept and judge.ledger.hits == kept
    asked = Counter(one["key"][1] for one in log("slow-kill"))
    assert len(asked) == 40
    assert sum(count - 1 for count in asked.values()) <= 2  # only what was under way when it died


def test_the_key_stays_out_of_the_cache_and_of_messages(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    assert scores(make("locked").ask(DETAIL, items(1))) == [0]
    assert b"s3cret" not in (tmp_path / "judgements.sqlite").read_bytes()
    monkeypatch.setenv("JUDGE_KEY", "wr0ng")
    with pytest.raises(ValueError, match=r"judge locked at http.*401.*wrong key: Bearer \*\*\*") as caught:
        make("locked").ask(DETAIL, items(30, first=1))  # one refusal is enough
    assert "wr0ng" not in "".join(traceback.format_exception(caught.value))
    assert "wr0ng" not in caplog.text and "s3cret" not in caplog.text
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match="the environment variable JUDGE_KEY is empty"):
        make("locked").ask(DETAIL, items(1, first=1))


def test_a_refusal_for_good_waits_for_nobody(make: Make, log: Log) -> None:
    judge = make("revoked", backoff=(100.0, 200.0), max_concurrency=16)
    with pytest.raises(ValueError, match=r"403.*no longer"):
        judge.ask(DETAIL, items(10))  # nine of them wait for their second try by now
    assert len(log("revoked")) <= 10
    assert scores(judge.ask(DETAIL, items(2))) == [0, 1]  # and the judge can be asked again


def test_repeats_are_asked_with_seeds_of_their_own(make: Make, log: Log) -> None:
    judge = make("repeated", repeats=3)
    assert video_chatgpt(judge, ["q"] * 2, ["t"] * 2, ["a 1", "a 3"], ["detail"]) == {"detail": [1.0, 3.0]}
    assert Counter(one["body"]["seed"] for one in log("repeated")) == {0: 2, 1: 2, 2: 2}
    assert judge.ledger.spread == {"video_chatgpt_detail": 0.0}
    assert judge.id == "repeated, T=0, seed 0, mean of 3"
    without = make("unseeded", repeats=2, seed=None)
    video_chatgpt(without, ["q"], ["t"], ["a 1"], ["detail"])
    assert ["seed" in one["body"] for one in log("unseeded")] == [False, False]


def test_every_score_over_http(make: Make) -> None:
    judge = make("all")
    assert clue_overlap(judge, ["x", "x"], ["x", "y"]) == [10, 2]
    assert label_overlap(judge, ["sad, shy", "sad"], ["shy, sad", "happy"]) == [10, 2]
    assert extract_labels(judge, ["Sad, shy,sad", " "]) == [["sad", "shy"], []]
    assert group_labels(judge, [["Shy", "sad"]], [["happy", "sad"]]) == [[["happy"], ["sad", "shy"]]]
    assert autodq(judge, ["A man waves. He sits."], ["a man waves. a dog barks. he sits."]) == [(2, 3, 2, 2)]


def test_a_dry_run_counts_calls_without_one(make: Make, log: Log) -> None:
    truths, answers = ["A man waves. He sits."] * 2, ["A man waves.", "A dog barks."]
    judge = make("dry", prices={"dry": [1e6, 2e6]})

    def score(judge: Any) -> None:
        autodq(judge, truths, answers)
        clue_overlap(judge, truths, answers)

    before = estimate(judge, score)
    assert before.calls == 3 + 4 + 2 and before.cached == 0  # the two truths are one question
    assert before.tokens_in > 300 and before.dollars == before.tokens_in + 2 * before.tokens_out
    assert log("dry") == []
    score(judge)
    assert len(log("dry")) == judge.ledger.calls == before.calls
    assert judge.dollars == 9 * (10 + 2 * 2)
    after = estimate(judge, score)
    assert (after.calls, after.cached, after.dollars) == (0, 9, 0)
    assert estimate(make("unpriced"), score).dollars is None
    assert judge.ask(CLUES, []) == []


def test_options_that_do_not_hold(make: Make) -> None:
    with pytest.raises(ValueError, match="cache is null"):
        make("good", mode="cache_only", cache=None)
    with pytest.raises(ValueError, match="repeats=0"):
        make("good", repeats=0)
    with pytest.raises(ValueError, match=r"base_url=localhost:8000/v1 begins with http:// or https://"):
        make("good", base_url="localhost:8000/v1")
    with pytest.raises(ValueError, match=r"mode=liv: choose from live, cache_only, offline"):
        build({**compose_part("judge", "endpoint"), "mode": "liv"})


def test_its_yaml_builds_it() -> None:
    judge = build(compose_part("judge", "endpoint"))
    assert judge.id == "gpt-4o-2024-11-20, T=0, seed 0" and not judge.offline
