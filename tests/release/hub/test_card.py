import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from omnihuman.release.hub.card import bases_of, figures, licence, stages, write_card
from omnihuman.training.finished import load_model

Folder = Callable[..., Path]
LEDGER = {"command": "python -m omnihuman.train +experiment=x data.root=/home/somebody/clips", "trained": 90,
          "planned": 100, "steps": 10, "seconds": 360.0, "best": {"val/loss": 0.25}}  # fmt: skip


def card_of(folder: Path, out: Path) -> str:
    out.mkdir()
    write_card(folder, *load_model(folder), out, notes=["something to know"])
    return (out / "README.md").read_text()


def test_the_card_says_what_the_run_was(run_of: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(run_of("humanomni_stage3"), tmp_path / "run")
    (folder / "ledger.json").write_text(json.dumps(LEDGER))
    place = folder / "evaluation" / "sample" / "VA"
    place.mkdir(parents=True)
    score = {"value": 83.33, "low": 78.0, "high": 88.0, "n": 198, "judged": False}
    report = {"benchmark": "sample", "modality": "VA", "scores": {"war": score, "war/face": score}}
    (place / "metrics.json").write_text(json.dumps(report))
    text = card_of(folder, tmp_path / "out")
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "apache-2.0" and header["library_name"] == "transformers" and "base_model" not in header
    for said in (
        "| sample | VA | war | 83.3 | 78.0 to 88.0 | 198 |",
        "90 of 100 planned",
        "data.root=clips",
        "val/loss 0.25",
        "| `llm.*` | 0.001 |",
        "Something to know.",
        "foundation/whisper: Apache-2.0",
        "  - humanomni_stage2, of it projectors.audio.*",
        'processor(video="clip.mp4"',
    ):
        assert said in text, said
    assert "/home" not in text and "war/face" not in text and "{{" not in text


def test_a_card_without_figures_says_so(run_of: Folder, tmp_path: Path) -> None:
    text = card_of(run_of("favchat_stage3"), tmp_path / "out")
    assert "No evaluation lies beside the run" in text and "Nothing was trained" in text


@pytest.mark.parametrize(
    ("base", "line", "free"),
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
def test_licences_of_the_bases(base: str, line: str, free: bool) -> None:
    assert line in licence(base)[0] and licence(base)[1] is free


def test_bases_are_named_without_their_place(run_of: Folder, tmp_path: Path) -> None:
    config = OmegaConf.create(
        {
            "model": {
                "encoders": {
                    "video": {"weights": "google/siglip-base-patch16-224"},
                    "face": {"weights": "/home/me/mine"},
                },
                "llm": {"weights": None},
            },
            "init_from": [{"folder": str(tmp_path)}],
        }
    )
    (tmp_path / "config.yaml").write_text("name: humanomni")
    (tmp_path / "source.json").write_text(json.dumps({"source": "humanomni", "path": "StarJiaxing/HumanOmni-7B"}))
    assert [*bases_of(tmp_path / "run", config)] == [
        "google/siglip-base-patch16-224",
        "mine",
        "StarJiaxing/HumanOmni-7B",
    ]
    assert [*stages(tmp_path / "run", config)][1] == (1, "HumanOmni, converted")


def test_a_checkpoint_from_a_local_folder_is_named_with_its_towers(tmp_path: Path) -> None:
    config = OmegaConf.create({"model": {"encoders": {}, "llm": {}}, "init_from": []})
    towers = {"mm_vision_tower": "/mnt/siglip-so400m-patch14-384", "mm_audio_tower": "openai/whisper-large-v3"}
    said = {"source": "humanomni", "path": str(tmp_path), "config": towers}
    (tmp_path / "source.json").write_text(json.dumps(said))
    found = [*bases_of(tmp_path, config)]
    assert found == ["HumanOmni", "siglip-so400m-patch14-384", "openai/whisper-large-v3"]
    assert "ask its authors" in licence("HumanOmni")[0] and licence(found[1])[0] == "Apache-2.0"
    (tmp_path / "source.json").write_text(json.dumps({"source": "omnihuman", "path": "x", "config": {"bases": found}}))
    assert [*bases_of(tmp_path, config)] == found


def test_stages_are_followed_to_their_beginning(tmp_path: Path) -> None:
    for name, parents in (("c", ["b"]), ("b", ["a", "gone"]), ("a", [])):
        (tmp_path / name).mkdir()
        config = OmegaConf.create({"name": name, "init_from": [{"run": parent} for parent in parents]})
        OmegaConf.save(config, tmp_path / name / "config.yaml")
        (tmp_path / name / "digest").write_text(f"{name * 4}\nrecipe\n")
    last = OmegaConf.load(tmp_path / "c" / "config.yaml")
    found = [*stages(tmp_path / "c", last)]
    assert found == [(0, "c, `cccc`"), (1, "b, `bbbb`"), (2, "a, `aaaa`"), (2, "gone")]
    assert not [*figures(tmp_path / "c")]
