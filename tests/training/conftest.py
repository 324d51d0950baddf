"""A model folder with all weights."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from omnihuman.build import build
from omnihuman.training.weights import save_weights


@pytest.fixture
def complete_folder(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder with all weights, such as a converted checkpoint."""
    folder = tmp_path / "complete"
    shutil.copytree(model_folder("humanomni_stage3"), folder)
    config = OmegaConf.load(folder / "config.yaml")
    model = build(config.model)
    shutil.copytree(config.model.llm.tokenizer, folder / "tokenizer")
    architecture = {key: value for key, value in model.llm.model.config.to_dict().items() if key[0] != "_"}
    config.model.llm.architecture, config.model.llm.weights = architecture, None
    config.model.llm.tokenizer = "${folder}/tokenizer"
    for encoder in config.model.encoders.values():
        encoder.weights = None
    config.data.num_frames = 5
    OmegaConf.save(config, folder / "config.yaml")
    (folder / "weights.safetensors").unlink()
    save_weights(folder / "weights.safetensors", model.state_dict(), dict(model.named_parameters()), {})
    return folder
