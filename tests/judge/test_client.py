"""Sampling arguments, waits and keys of the client."""

import pytest
from tenacity import RetryCallState, Retrying

from omnihuman.judge.base import Missing
from omnihuman.judge.client import Client, RetryableError, build_sampling

MISSING = Missing("server_error", "status 500")


@pytest.mark.parametrize(
    "model", ["gpt-5", "gpt-5-mini-2025-08-07", "openai/gpt-5", "o1", "o3-mini", "o4-mini-2025-04-16"]
)
def test_reasoning_models_have_no_temperature(model: str) -> None:
    assert build_sampling(model, 0.0, 10) == {"max_completion_tokens": 10}


@pytest.mark.parametrize("model", ["gpt-4o-2024-11-20", "gpt-4.1", "Qwen/Qwen2.5-7B-Instruct", "o300", "foo1"])
def test_other_models_have_a_temperature(model: str) -> None:
    assert build_sampling(model, 0.0, 10) == {"max_tokens": 10, "temperature": 0.0}


def test_reasoning_overrides_the_name() -> None:
    assert build_sampling("my-model", 0.0, 10, reasoning=True) == {"max_completion_tokens": 10}
    assert build_sampling("gpt-5-chat-latest", 0.5, None, reasoning=False) == {"temperature": 0.5}
    assert build_sampling("any", None, None) == {}


def retry_state(attempt: int, error: Exception) -> RetryCallState:
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    return state


def test_waits_double_with_jitter_up_to_a_limit_and_respect_retry_after() -> None:
    client = Client("m", "http://127.0.0.1:9/v1", None, 1.0, 5, (1.0, 8.0), {}, {})
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)):
        waits = [client._wait_seconds(retry_state(attempt, RetryableError(MISSING))) for _ in range(50)]
        assert 0.5 <= min(waits) < max(waits) <= longest
    assert client._wait_seconds(retry_state(1, RetryableError(MISSING, retry_after=5.0))) == 5.0
    assert client._wait_seconds(retry_state(1, RetryableError(MISSING, retry_after=3600.0))) == 8.0


def test_an_empty_key_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "  ")
    with pytest.raises(ValueError, match=r"SOME_KEY is empty.*api_key_env=null"):
        Client("m", None, "SOME_KEY", 1.0, 5, (1.0, 8.0), {}, {})
