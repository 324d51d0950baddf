"""Model folders in their released form."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import omnihuman
from omnihuman.hub.export import export
from omnihuman.training.model_folder import load_model
from tests.official.folders import OfficialFolder, convert_official, write_official


@pytest.fixture(scope="session")
def make_run(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run folder of an experiment; parameters that are random at first, such as LoRA, have trained values."""
    folders = dict[str, Path]()

    def make(experiment: str) -> Path:
        if experiment not in folders:
            folder = tmp_path_factory.mktemp("trained") / experiment
            shutil.copytree(model_folder(experiment), folder)
            add_trained_values(folder)
            folders[experiment] = folder
        return folders[experiment]

    return make


def add_trained_values(folder: Path) -> None:
    _, model = load_model(folder)
    torch.manual_seed(0)
    values = {}
    for name, tensor in model.named_parameters():
        if "lora_" in name or name.startswith("early_fusions."):
            values[name] = torch.randn_like(tensor) / 20
    if values:
        save_file(load_file(folder / "weights.safetensors") | values, folder / "weights.safetensors")


@pytest.fixture(scope="session")
def make_release(make_run: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The released folder of an experiment's run, which the Auto classes load."""
    omnihuman.register()
    folders = dict[tuple[str, str], Path]()

    def make(experiment: str, lora: str = "merge") -> Path:
        if (experiment, lora) not in folders:
            out = tmp_path_factory.mktemp("released") / experiment
            export(make_run(experiment), out, lora=lora, max_shard_size="5MB")
            folders[experiment, lora] = out
        return folders[experiment, lora]

    return make


@pytest.fixture(scope="session")
def officials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OfficialFolder]:
    """HumanOmni as it is released, by preset."""
    root = tmp_path_factory.mktemp("official")
    return {preset: write_official(root / preset, preset) for preset in ("7b", "0_5b")}


@pytest.fixture(scope="session")
def converted(officials: dict[str, OfficialFolder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The converted model folders, by preset."""
    root = tmp_path_factory.mktemp("converted")
    return {preset: convert_official(official, root / preset) for preset, official in officials.items()}
