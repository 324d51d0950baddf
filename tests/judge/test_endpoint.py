"""A judge over HTTP: valid replies, failures, cache and costs."""

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
from omnihuman.judge.scoring import (
    extract_labels,
    group_labels,
    judge_autodq,
    judge_clue_overlap,
    judge_label_overlap,
    judge_video_chatgpt,
)

Make = Callable[..., EndpointJudge]
Log = Callable[[str], list[dict[str, Any]]]
DETAIL = VIDEO_CHATGPT["detail"]


def build_items(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"question": "what?", "reference": "a man", "answer": f"answer {n}"} for n in range(first, first + count)]


def read_scores(verdicts: list[Verdict | None]) -> list[int | None]:
    return [verdict.reply.score if verdict else None for verdict in verdicts]


def test_valid_replies_are_scored_and_counted(make: Make, log: Log) -> None:
    judge = make("good")
    assert read_scores(judge.query(DETAIL, build_items(3))) == [0, 1, 2]
    ledger = judge.ledger
    assert (ledger.num_items, ledger.num_judged, ledger.num_calls, ledger.num_cached, ledger.coverage) == (
        3,
        3,
        3,
        0,
        1.0,
    )
    assert (ledger.tokens_in, ledger.tokens_out, ledger.missing) == (30, 6, {})
    assert ledger.models == {"good-2024": 3}
    assert ledger.seconds > 0
    body = log("good")[0]["body"]
    assert body["temperature"] == 0 and body["seed"] == 0 and body["max_tokens"] == 4096
    assert body["response_format"]["json_schema"]["strict"] is True
    assert judge.id == "good, T=0, seed 0"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("garbage", "invalid"),
        ("wrong", "invalid"),
        ("endless", "invalid"),
        ("cut", "truncated"),
        ("mute", "no text"),
        ("page", "no text"),
        ("half", "no chat completion"),
        ("broken", "status 500"),
        ("silent", "no connection"),
    ],
)
def test_failed_items_are_missing_after_the_retries(make: Make, log: Log, model: str, reason: str) -> None:
    judge = make(model)
    assert judge.query(DETAIL, build_items(2, first=1)) == [None, None]
    assert len(log(model)) == judge.ledger.num_calls == 6  # one request and two retries each
    assert judge.ledger.coverage == 0
    [(message, count)] = judge.ledger.missing.items()
    assert reason in message and count == 2
    keys = [judge.cache_key(DETAIL, item) for item in build_items(2)]
    assert judge.cache is not None and judge.cache.get(keys) == {}


def test_a_lone_surrogate_is_invalid(make: Make) -> None:
    judge = make("surrogate")
    assert judge.query(EVENTS, [{"text": "a man"}]) == [None]


@pytest.mark.parametrize("model", ["flaky", "mood"])
def test_temporary_errors_are_retried(make: Make, log: Log, model: str) -> None:
    judge = make(model)
    assert read_scores(judge.query(DETAIL, build_items(4))) == [0, 1, 2, 3]
    assert len(log(model)) == judge.ledger.num_calls == (12 if model == "flaky" else 8)
    assert judge.ledger.missing == {}


def test_retry_after_is_respected(make: Make, log: Log) -> None:
    assert read_scores(make("busy").query(DETAIL, build_items(1))) == [0]
    first, second = (entry["time"] for entry in log("busy"))
    assert 0.4 <= second - first < 2


def test_slow_replies_time_out(make: Make) -> None:
    judge = make("slow", timeout=0.1, max_retries=1)
    assert judge.query(DETAIL, build_items(2)) == [None, None]
    assert judge.ledger.missing == {"no reply in 0.1 s": 2}


def test_a_closed_port_is_missing(make: Make) -> None:
    judge = make("good", base_url="http://127.0.0.1:9/v1")
    assert judge.query(DETAIL, build_items(1)) == [None]
    assert "no connection" in str(judge.ledger.missing)


def test_remaining_items_are_skipped_after_max_failures(make: Make, log: Log) -> None:
    judge = make("org/broken", max_failures=3, max_concurrency=2, max_retries=0)
    assert judge.query(DETAIL, build_items(50)) == [None] * 50
    assert 3 <= len(log("org/broken")) <= 4
    assert sum(judge.ledger.missing.values()) == 50
    assert "skipped after 3 consecutive failures" in judge.ledger.missing


@pytest.mark.parametrize(("model", "num_formats"), [("object", 2), ("plain", 3)])
def test_rejected_response_formats_are_not_tried_again(make: Make, log: Log, model: str, num_formats: int) -> None:
    judge = make(model, max_concurrency=1)
    assert read_scores(judge.query(DETAIL, build_items(4))) == [0, 1, 2, 3]
    formats = [entry["body"].get("response_format", {}).get("type", "text") for entry in log(model)]
    assert formats == ["json_schema", "json_object", "text"][:num_formats] + [formats[num_formats - 1]] * 3


def test_a_rejected_text_does_not_change_the_response_format(make: Make, log: Log) -> None:
    judge = make("prudish", max_concurrency=1)
    rejected, accepted = judge.query(EVENTS, [{"text": "a knife falls"}, {"text": "a man sits"}])
    assert rejected is None and accepted is not None
    assert "policy" in str(judge.ledger.missing)
    assert log("prudish")[-1]["body"]["response_format"]["type"] == "json_schema"


def test_prose_fences_and_reasoning_are_stripped(make: Make) -> None:
    assert read_scores(make("chatty").query(DETAIL, build_items(3))) == [0, 1, 2]


def test_reasoning_models_get_no_temperature(make: Make, log: Log) -> None:
    judge = make("o3-mini")
    judge.query(DETAIL, build_items(1))
    body = log("o3-mini")[0]["body"]
    assert "temperature" not in body and "max_tokens" not in body and body["max_completion_tokens"] == 4096
    assert judge.id == "o3-mini, seed 0"


def test_concurrent_requests_keep_their_order(make: Make, log: Log) -> None:
    judge = make("slowish", max_concurrency=16)
    assert read_scores(judge.query(DETAIL, build_items(64))) == [n % 6 for n in range(64)]
    assert len(log("slowish")) == 64


def test_equal_items_are_judged_once(make: Make, log: Log) -> None:
    judge = make("twice")
    assert read_scores(judge.query(DETAIL, build_items(2) * 3)) == [0, 1] * 3
    assert len(log("twice")) == judge.ledger.num_calls == 2
    assert (judge.ledger.num_items, judge.ledger.num_cached) == (6, 4)


def test_cached_items_need_no_request(make: Make, log: Log) -> None:
    make("again").query(DETAIL, build_items(3))
    judge = make("again", api_key_env="NOT_SET")  # no request, no key
    verdicts = judge.query(DETAIL, build_items(3))
    assert read_scores(verdicts) == [0, 1, 2]
    assert all(verdict is not None and verdict.is_cached and verdict.model == "again-2024" for verdict in verdicts)
    assert (judge.ledger.num_calls, judge.ledger.num_cached, judge.ledger.tokens_in) == (0, 3, 0)
    assert len(log("again")) == 3
    make("again", seed=1).query(DETAIL, build_items(1))  # everything that determines a reply is part of the key
    make("again", temperature=0.5).query(DETAIL, build_items(1))
    make("again", extra_body={"top_k": 3}).query(DETAIL, build_items(1))
    assert len(log("again")) == 6
    assert log("again")[-1]["body"]["top_k"] == 3


def test_an_invalid_cached_reply_is_requested_again(make: Make, log: Log, tmp_path: Path) -> None:
    make("stale").query(DETAIL, build_items(2))
    with sqlite3.connect(tmp_path / "judgements.sqlite") as connection:
        connection.execute("UPDATE judgements SET text = 'nonsense' WHERE parsed = '{\"score\":1}'")
    assert read_scores(make("stale").query(DETAIL, build_items(2))) == [0, 1]
    assert read_scores(make("stale", mode="offline").query(DETAIL, build_items(2))) == [0, 1]
    assert len(log("stale")) == 3


def test_uncached_items_are_missing_or_an_error_without_requests(make: Make, log: Log) -> None:
    make("shipped").query(DETAIL, build_items(2))
    judge = make("shipped", mode="cache_only", api_key_env="NOT_SET")
    assert read_scores(judge.query(DETAIL, build_items(4))) == [0, 1, None, None]
    assert (judge.ledger.missing, judge.ledger.coverage) == ({"not in the cache": 2}, 0.5)
    offline = make("shipped", mode="offline")
    assert offline.cache is not None and offline.cache.read_only
    assert read_scores(offline.query(DETAIL, build_items(2))) == [0, 1]
    with pytest.raises(ValueError, match=r"mode=offline .* 2 of 4 .*video_chatgpt_detail"):
        offline.query(DETAIL, build_items(4))
    with pytest.raises(ValueError, match="no such file"):
        make("shipped", mode="cache_only", cache="nowhere.sqlite")
    assert len(log("shipped")) == 2


SCRIPT = """
import sys
from omnihuman.judge.endpoint import EndpointJudge
from omnihuman.judge.protocols import VIDEO_CHATGPT
judge = EndpointJudge("slow-kill", base_url=sys.argv[1], api_key_env=None, cache=sys.argv[2], max_concurrency=2)
items = [{"question": "what?", "reference": "a man", "answer": f"answer {n}"} for n in range(40)]
judge.query(VIDEO_CHATGPT["detail"], items)
"""


def test_a_killed_judge_resumes(make: Make, log: Log, endpoint: str, tmp_path: Path) -> None:
    file = tmp_path / "killed.sqlite"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, endpoint, str(file)], env=os.environ)
    deadline = time.monotonic() + 60
    while len(log("slow-kill")) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with sqlite3.connect(file) as connection:
        num_cached = connection.execute("SELECT COUNT(*) FROM judgements").fetchone()[0]
    assert 5 <= num_cached < 40
    judge = make("slow-kill", api_key_env=None, cache=str(file))
    assert read_scores(judge.query(DETAIL, build_items(40))) == [n % 6 for n in range(40)]
    assert judge.ledger.num_calls == 40 - num_cached and judge.ledger.num_cached == num_cached
    requests = Counter(entry["key"][1] for entry in log("slow-kill"))
    assert len(requests) == 40
    assert requests.total() - 40 <= 2  # only the requests in flight at the kill are repeated


def test_the_key_is_not_in_cache_logs_and_messages(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    assert read_scores(make("locked").query(DETAIL, build_items(1))) == [0]
    assert b"s3cret" not in (tmp_path / "judgements.sqlite").read_bytes()
    monkeypatch.setenv("JUDGE_KEY", "wr0ng")
    with pytest.raises(ValueError, match=r"judge locked .*http.*401.*wrong key: Bearer \*\*\*") as raised:
        make("locked").query(DETAIL, build_items(30, first=1))  # one fatal error suffices
    assert "wr0ng" not in "".join(traceback.format_exception(raised.value))
    assert "wr0ng" not in caplog.text and "s3cret" not in caplog.text
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match=r"JUDGE_KEY.*empty"):
        make("locked").query(DETAIL, build_items(1, first=1))


def test_a_fatal_error_stops_waiting_requests(make: Make, log: Log) -> None:
    judge = make("revoked", backoff=(100.0, 200.0), max_concurrency=16)
    with pytest.raises(ValueError, match=r"403.*no longer"):
        judge.query(DETAIL, build_items(10))  # nine of them wait for their retry
    assert len(log("revoked")) <= 10
    assert read_scores(judge.query(DETAIL, build_items(2))) == [0, 1]  # the judge remains usable


def test_repeats_have_different_seeds(make: Make, log: Log) -> None:
    judge = make("repeated", repeats=3)
    assert judge_video_chatgpt(judge, ["q"] * 2, ["t"] * 2, ["a 1", "a 3"], ["detail"]) == {"detail": [1.0, 3.0]}
    assert Counter(entry["body"]["seed"] for entry in log("repeated")) == {0: 2, 1: 2, 2: 2}
    assert judge.ledger.spread == {"video_chatgpt_detail": 0.0}
    assert judge.id == "repeated, T=0, seed 0, mean of 3"
    unseeded = make("unseeded", repeats=2, seed=None)
    judge_video_chatgpt(unseeded, ["q"], ["t"], ["a 1"], ["detail"])
    assert not any("seed" in entry["body"] for entry in log("unseeded"))


def test_all_scores_over_http(make: Make) -> None:
    judge = make("all")
    assert judge_clue_overlap(judge, ["x", "x"], ["x", "y"]) == [10, 2]
    assert judge_label_overlap(judge, ["sad, shy", "sad"], ["shy, sad", "happy"]) == [10, 2]
    assert extract_labels(judge, ["Sad, shy,sad", " "]) == [["sad", "shy"], []]
    assert group_labels(judge, [["Shy", "sad"]], [["happy", "sad"]]) == [[["happy"], ["sad", "shy"]]]
    assert judge_autodq(judge, ["A man waves. He sits."], ["a man waves. a dog barks. he sits."]) == [(2, 3, 2, 2)]


def test_estimate_counts_calls_without_a_request(make: Make, log: Log) -> None:
    references, answers = ["A man waves. He sits."] * 2, ["A man waves.", "A dog barks."]
    judge = make("dry", prices={"dry": [1e6, 2e6]})

    def score(judge: Any) -> None:
        judge_autodq(judge, references, answers)
        judge_clue_overlap(judge, references, answers)

    first = estimate(judge, score)
    assert first.num_calls == 3 + 4 + 2 and first.num_cached == 0  # the two references are equal
    assert first.tokens_in > 300 and first.dollars == first.tokens_in + 2 * first.tokens_out
    assert log("dry") == []
    score(judge)
    assert len(log("dry")) == judge.ledger.num_calls == first.num_calls
    assert judge.dollars == 9 * (10 + 2 * 2)
    second = estimate(judge, score)
    assert (second.num_calls, second.num_cached, second.dollars) == (0, 9, 0)
    assert estimate(make("unpriced"), score).dollars is None
    assert judge.query(CLUES, []) == []


def test_invalid_options_raise(make: Make) -> None:
    with pytest.raises(ValueError, match="cache is null"):
        make("good", mode="cache_only", cache=None)
    with pytest.raises(ValueError, match="repeats=0"):
        make("good", repeats=0)
    with pytest.raises(ValueError, match=r"base_url=localhost:8000/v1 .*\bhttp:// or https://"):
        make("good", base_url="localhost:8000/v1")
    with pytest.raises(ValueError, match=r"mode=liv: .*live, cache_only, offline"):
        build({**compose_part("judge", "endpoint"), "mode": "liv"})


def test_yaml_builds() -> None:
    judge = build(compose_part("judge", "endpoint"))
    assert judge.id == "gpt-4o-2024-11-20, T=0, seed 0" and not judge.offline
