"""What is sent, how long is waited, and what ends it."""

import pytest
from tenacity import RetryCallState, Retrying

from omnihuman.judge.client import Client, Passing, sampling


@pytest.mark.parametrize(
    "model", ["gpt-5", "gpt-5-mini-2025-08-07", "openai/gpt-5", "o1", "o3-mini", "o4-mini-2025-04-16"]
)
def test_these_think(model: str) -> None:
    assert sampling(model, 0.0, 10) == {"max_completion_tokens": 10}


@pytest.mark.parametrize("model", ["gpt-4o-2024-11-20", "gpt-4.1", "Qwen/Qwen2.5-7B-Instruct", "o300", "foo1"])
def test_these_do_not(model: str) -> None:
    assert sampling(model, 0.0, 10) == {"max_tokens": 10, "temperature": 0.0}


def test_the_user_knows_better() -> None:
    assert sampling("my-model", 0.0, 10, reasoning=True) == {"max_completion_tokens": 10}
    assert sampling("gpt-5-chat-latest", 0.5, None, reasoning=False) == {"temperature": 0.5}
    assert sampling("any", None, None) == {}


def state(attempt: int, error: Exception) -> RetryCallState:
    made = RetryCallState(Retrying(), None, (), {})
    made.attempt_number = attempt
    made.set_exception((type(error), error, None))
    return made


def test_waits_double_with_jitter_to_a_bound_and_heed_the_endpoint() -> None:
    client = Client("m", "http://127.0.0.1:9/v1", None, 1.0, 5, (1.0, 8.0), {}, {})
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)):
        waits = [client._wait(state(attempt, Passing("x"))) for _ in range(50)]
        assert 0.5 <= min(waits) < max(waits) <= longest
    assert client._wait(state(1, Passing("x", after=5.0))) == 5.0
    assert client._wait(state(1, Passing("x", after=3600.0))) == 8.0


def test_a_key_is_wanted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "  ")
    with pytest.raises(ValueError, match=r"SOME_KEY is empty.*api_key_env=null"):
        Client("m", None, "SOME_KEY", 1.0, 5, (1.0, 8.0), {}, {})
