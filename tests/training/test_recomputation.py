"""The share of recomputed blocks that a training chooses."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import omnihuman.cost.checkpointing as checkpointing
from omnihuman.build import compose_config
from omnihuman.training.recomputation import choose_recomputation


@pytest.mark.parametrize(("devices", "memory"), [(1, 60 * 2**30), (8, 80 * 2**30)])
def test_the_memory_of_the_gpus_decides(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, devices: int, memory: int
) -> None:
    calls: list[Any] = []
    model: Any = SimpleNamespace(llm=SimpleNamespace(recompute=calls.append))
    config = compose_config(["+experiment=humanomni_stage3", f"trainer.devices={devices}"])

    def choose(*args: Any) -> float:
        calls.append(args[1:])
        return 0.25

    monkeypatch.setattr(checkpointing, "choose_share", choose)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60 * 2**30, 80 * 2**30))
    choose_recomputation(config, model)
    assert not calls, "the config says what is recomputed"
    config.recipe.activation_checkpointing = "auto"
    with caplog.at_level(logging.INFO):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        choose_recomputation(config, model)
        assert not calls and "no GPU" in caplog.text
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        choose_recomputation(config, model)
    assert calls == [(memory, devices), 0.25] and "25 %" in caplog.text
