"""Runs as they are released."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnihuman.release.hub.export import export
from omnihuman.training.finished import load_model
from tests.release.official import Official, make, write_official


@pytest.fixture(scope="session")
def run_of(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run that has learned something wherever it draws at random, LoRA among it."""
    made = dict[str, Path]()

    def make(experiment: str) -> Path:
        if experiment not in made:
            folder = tmp_path_factory.mktemp("trained") / experiment
            shutil.copytree(model_folder(experiment), folder)
            _, model = load_model(folder)
            torch.manual_seed(0)
            learned = {
                name: torch.randn_like(tensor) / 20
                for name, tensor in model.named_parameters()
                if "lora_" in name or name.startswith("early_fusions.")
            }
            if learned:
                save_file(load_file(folder / "weights.safetensors") | learned, folder / "weights.safetensors")
            made[experiment] = folder
        return made[experiment]

    return make


@pytest.fixture(scope="session")
def released(run_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The released folder of an experiment's run."""
    made = dict[tuple[str, str], Path]()

    def make(experiment: str, lora: str = "merge") -> Path:
        if (experiment, lora) not in made:
            out = tmp_path_factory.mktemp("released") / experiment
            export(run_of(experiment), out, lora=lora, max_shard_size="5MB")
            made[experiment, lora] = out
        return made[experiment, lora]

    return make


@pytest.fixture(scope="session")
def officials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Official]:
    """HumanOmni as it is released, by its form."""
    root = tmp_path_factory.mktemp("official")
    return {form: write_official(root / form, form) for form in ("7b", "0_5b")}  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def converted(officials: dict[str, Official], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model folders that these become."""
    root = tmp_path_factory.mktemp("converted")
    return {form: make(official, root / form) for form, official in officials.items()}
