import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from omnihuman.hub.card import find_bases, find_licence, list_stages, metric_rows, write_card
from omnihuman.training.model_folder import load_model

Folder = Callable[..., Path]
LEDGER = {
    "command": "python -m omnihuman.train +experiment=x data.root=/home/somebody/clips",
    "trained": 90,
    "planned": 100,
    "steps": 10,
    "seconds": 360.0,
    "best": {"val/loss": 0.25},
}


def read_card(folder: Path, out: Path) -> str:
    out.mkdir()
    write_card(folder, *load_model(folder), out, notes=["a note on the model"])
    return (out / "README.md").read_text()


def test_card_of_a_run(make_run: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(make_run("humanomni_stage3"), tmp_path / "run")
    (folder / "ledger.json").write_text(json.dumps(LEDGER))
    evaluation = folder / "evaluation" / "sample" / "VA"
    evaluation.mkdir(parents=True)
    score = {"value": 83.33, "low": 78.0, "high": 88.0, "n": 198, "judged": False}
    metrics = {"benchmark": "sample", "view": "VA", "scores": {"war": score, "war/face": score}}
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    text = read_card(folder, tmp_path / "out")
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "apache-2.0" and header["library_name"] == "transformers" and "base_model" not in header
    for line in (
        "| sample | VA | war | 83.3 | 78.0 to 88.0 | 198 |",
        "90 of 100 planned",
        "data.root=clips",
        "val/loss 0.25",
        "| `llm.*` | 0.001 |",
        "A note on the model.",
        "foundation/whisper: Apache-2.0",
        "  - humanomni_stage2, only projectors.audio.*",
        'processor(video="clip.mp4"',
    ):
        assert line in text, line
    assert "/home" not in text and "war/face" not in text and "{{" not in text


def test_card_without_training_and_metrics(make_run: Folder, tmp_path: Path) -> None:
    text = read_card(make_run("favchat_stage3"), tmp_path / "out")
    assert "The run has no evaluation" in text and "Not trained" in text


@pytest.mark.parametrize(
    ("base", "licence", "is_free"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", True),
        ("Qwen/Qwen2.5-3B-Instruct", "Research", False),
        ("Qwen/Qwen2-72B", "Qwen License", False),
        ("google/siglip-so400m-patch14-384", "Apache-2.0", True),
        ("openai/whisper-large-v3", "MIT", True),
        ("kartiknarayan/facexformer", "MIT", False),
        ("somebody/else", "see its repository", False),
        ("weights", "see its repository", False),
    ],
)
def test_licences_of_base_models(base: str, licence: str, is_free: bool) -> None:
    assert licence in find_licence(base)[0] and find_licence(base)[1] is is_free


def test_base_models_have_no_local_paths(tmp_path: Path) -> None:
    encoders = {"video": {"weights": "google/siglip-base-patch16-224"}, "face": {"weights": "/home/me/mine"}}
    config = OmegaConf.create(
        {"model": {"encoders": encoders, "llm": {"weights": None}}, "init_from": [{"folder": str(tmp_path)}]}
    )
    (tmp_path / "config.yaml").write_text("name: humanomni")
    (tmp_path / "official.json").write_text(json.dumps({"official": "humanomni", "path": "StarJiaxing/HumanOmni-7B"}))
    bases = list(find_bases(tmp_path / "run", config))
    assert bases == ["google/siglip-base-patch16-224", "mine", "StarJiaxing/HumanOmni-7B"]
    assert list(list_stages(tmp_path / "run", config))[1] == (1, "HumanOmni, converted")


def test_local_checkpoint_is_named_with_its_towers(tmp_path: Path) -> None:
    config = OmegaConf.create({"model": {"encoders": {}, "llm": {}}, "init_from": []})
    towers = {"mm_vision_tower": "/mnt/siglip-so400m-patch14-384", "mm_audio_tower": "openai/whisper-large-v3"}
    source = {"official": "humanomni", "path": str(tmp_path), "config": towers}
    (tmp_path / "official.json").write_text(json.dumps(source))
    bases = list(find_bases(tmp_path, config))
    assert bases == ["HumanOmni", "siglip-so400m-patch14-384", "openai/whisper-large-v3"]
    assert "ask its authors" in find_licence("HumanOmni")[0] and find_licence(bases[1])[0] == "Apache-2.0"


def test_converted_release_has_the_base_models_of_the_release(tmp_path: Path) -> None:
    config = OmegaConf.create({"model": {"encoders": {}, "llm": {}}, "init_from": []})
    source = {"official": "omnihuman", "path": "x", "config": {"bases": ["HumanOmni", "openai/whisper-large-v3"]}}
    (tmp_path / "official.json").write_text(json.dumps(source))
    assert list(find_bases(tmp_path, config)) == ["HumanOmni", "openai/whisper-large-v3"]


def test_stages_list_all_parent_runs(tmp_path: Path) -> None:
    for name, parents in (("c", ["b"]), ("b", ["a", "deleted"]), ("a", [])):
        (tmp_path / name).mkdir()
        config = OmegaConf.create({"name": name, "init_from": [{"run": parent} for parent in parents]})
        OmegaConf.save(config, tmp_path / name / "config.yaml")
        (tmp_path / name / "digest").write_text(f"{name * 4}\nchain digest\n")
    last = OmegaConf.load(tmp_path / "c" / "config.yaml")
    stages = list(list_stages(tmp_path / "c", last))
    assert stages == [(0, "c, `cccc`"), (1, "b, `bbbb`"), (2, "a, `aaaa`"), (2, "deleted")]
    assert not list(metric_rows(tmp_path / "c"))
