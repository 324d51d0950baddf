"""At size=7b, every experiment has the numbers, data, frozen parts and starting weights of its paper."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from omnihuman.build import compose_config, config_dir, has_model, prune
from omnihuman.training.base import list_parts

TABLE: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("papers.yaml").read_text())
OWN = ("composition",)
"""Experiments without a paper."""

EXPERIMENTS = sorted(
    path.stem
    for path in (Path(config_dir()) / "experiment").glob("*.yaml")
    if has_model(path.stem) and path.stem not in OWN
)
ENCODERS = ("video", "face", "audio", "instruction")


def read_values(experiment: str) -> dict[str, Any]:
    """Return what the table pins of an experiment."""
    config = compose_config([f"+experiment={experiment}", "size=7b"])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    model = prune(plain["model"])
    rates = find_rates(model, plain["trainable"])
    tasks = plain["data"]["tasks"]
    values = {key: plain["recipe"][key] for key in ("batch_size", "max_epochs", "warmup")}
    values |= {
        "frames": plain["data"]["num_frames"],
        "trained": sorted(rates),
        "tasks": tasks if isinstance(tasks, dict) else dict.fromkeys(tasks, 1),
        "views": plain["data"]["views"],
        "init_from": [entry["run"] for entry in plain["init_from"]],
        "lora": (model["llm"]["lora"] or {}).get("r"),
        "llm": model["llm"]["weights"],
    }
    (values["lr"],) = set(rates.values())
    for name in ENCODERS:
        values[name] = model["encoders"].get(name, {}).get("weights")
    return values


def find_rates(model: dict[str, Any], trainable: dict[str, float]) -> dict[str, float]:
    """Return the learning rate of every part that is trained; the first pattern counts."""
    rates = {}
    for path in list_parts(model):
        matching = [rate for pattern, rate in trainable.items() if fnmatchcase(f"{path}.weight", pattern)]
        if matching:
            rates[path] = matching[0]
    return rates


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_is_the_papers(experiment: str) -> None:
    values = read_values(experiment)
    expected = {key: value for key, (value, _) in TABLE[experiment].items()}
    expected["trained"] = sorted(expected["trained"])
    pinned = {key: value for key, value in values.items() if value is not None or key in expected}
    assert pinned == expected


def test_every_row_says_where_it_is_from() -> None:
    for rows in TABLE.values():
        for value, source in rows.values():
            assert isinstance(source, str) and ("§" in source or "our choice: " in source or len(source) > 9), value


def test_mixtures_of_the_smaller_sizes_are_said_to_be_ours() -> None:
    for file in (Path(config_dir()) / "mixture").glob("*/*.yaml"):
        assert "Our choice" in file.read_text(), file
