"""The app of the page: settings of Gradio and of the guard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from omnihuman.inference.answerer import Answerer
from omnihuman.serving.app import build_app
from omnihuman.serving.guard import Guard


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.load(model_folder("humanomni_stage3"))


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """The config of the page without examples; environment variables are restored after the test."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
    config = OmegaConf.load("conf/chat.yaml")
    assert isinstance(config, DictConfig)
    config.examples = None
    return config


def test_app_has_no_public_api_and_loads_nothing_from_elsewhere(
    answerer: Answerer, config: DictConfig, tmp_path: Path
) -> None:
    app = build_app(answerer, config, tmp_path)
    assert isinstance(app, Guard) and app.local and app.uploads == tmp_path / "uploads"
    inner: Any = app.inner
    blocks = inner.routes[-1].app.get_blocks()
    assert blocks.has_launched and not blocks.analytics_enabled and not blocks.footer_links and not blocks.show_error
    assert blocks.max_file_size == config.max_upload * 2**20 == app.max_upload
    public = [call for call in blocks.config["dependencies"] if call["api_visibility"] == "public"]
    assert {call["targets"][0][1] for call in public} <= {"unload"}
    assert "fonts.g" not in blocks.theme_css


def test_app_on_another_host_is_not_local(answerer: Answerer, config: DictConfig, tmp_path: Path) -> None:
    config.host = "0.0.0.0"
    config.temperature = 0.5
    assert not build_app(answerer, config, tmp_path).local
