"""Names of runs and their folders."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.training.run_search import find_run_folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of runs: of one and of two sizes, with variants, and unfinished ones."""
    write_run(tmp_path / "nano/stage")
    write_run(tmp_path / "nano/stage", "variant=of_it")
    write_run(tmp_path / "7b/tune", "base=net")
    write_run(tmp_path / "7b/tune", "base=net", moved=".1")
    for seed in ("seed=1", "seed=2"):
        write_run(tmp_path / "nano/seeds", seed)
    for size in ("nano", "7b"):
        write_run(tmp_path / size / "both")
    write_run(tmp_path / "nano/both_but", is_finished=False)
    write_run(tmp_path / "nano/begun", "base=net", is_finished=False)
    write_run(tmp_path / "nano/humanomni_stage1", is_finished=False)
    return tmp_path


def write_run(parent: Path, variant: str | None = None, is_finished: bool = True, moved: str = "") -> None:
    folder = parent / f"{variant or ''}{moved}"
    folder.mkdir(parents=True, exist_ok=True)
    config = {"name": parent.name, "size": parent.parent.name, "variant": variant, "base": None}
    if variant and variant.startswith("base="):
        config["base"] = "runs/net"
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    names = ("digest", "weights.safetensors", "finished") if is_finished else ("digest",)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("keys", "folder"),
    [
        ({"run": "stage"}, "nano/stage"),  # the exact folder, not its variant
        ({"run": "stage", "variant": "variant=of_it"}, "nano/stage/variant=of_it"),
        ({"run": "stage/variant=of_it"}, "nano/stage/variant=of_it"),
        ({"run": "tune"}, "7b/tune/base=net"),
        ({"run": "tune", "size": "7b"}, "7b/tune/base=net"),
        ({"run": "seeds", "variant": "seed=2"}, "nano/seeds/seed=2"),
        ({"run": "both", "size": "nano"}, "nano/both"),
        ({"run": "both_but"}, "nano/both_but"),  # whoever reads it says that it is not finished
    ],
)
def test_a_name_stands_for_one_run(keys: dict[str, str], folder: str, runs: Path) -> None:
    assert find_run_folder({"runs": str(runs), **keys}) == runs / folder


def test_a_path_is_a_run_wherever_it_is(runs: Path, tmp_path: Path) -> None:
    for keys in ({"runs": "elsewhere"}, {"runs": str(runs), "size": "7b"}):
        assert find_run_folder({"run": str(runs / "nano/stage"), **keys}) == runs / "nano/stage"


def test_an_exact_folder_with_reports_alone_is_found(tmp_path: Path) -> None:
    (tmp_path / "nano/copied/evaluation").mkdir(parents=True)
    assert find_run_folder({"run": "copied", "runs": str(tmp_path)}) == tmp_path / "nano/copied"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"run": "seeds"}, r"run=seeds: 2 runs .*nano/seeds/seed=1, .*nano/seeds/seed=2; .*variant="),
        ({"run": "both"}, r"run=both: 2 runs .*7b/both, .*nano/both; .*size="),
        ({"run": "tune", "size": "nano"}, r"run=tune: .*no such run .*nano; .*7b/tune/base=net\.$"),
        ({"run": "seeds", "variant": "seed=3"}, r"run=seeds: .*seeds/seed=1, .*seeds/seed=2\.$"),
        ({"run": "begun"}, r"nano/begun/base=net .*not finished.*experiment=begun size=nano base=runs/net"),
        ({"run": "tunes"}, r"run=tunes: .*7b/tune/base=net\.$"),
        ({"run": "nothing"}, r"run=nothing: .*7b/both, .*nano/seeds/seed=2, .*nano/stage"),
        ({"run": "humanomni_stage2", "size": "7b"}, r"train it: .*experiment=humanomni_stage2 size=7b\.$"),
    ],
)
def test_a_name_of_no_or_several_runs_raises(keys: dict[str, Any], message: str, runs: Path) -> None:
    with pytest.raises(ValueError, match=message):
        find_run_folder({"runs": str(runs), **keys})


def test_no_run_at_all_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run=net: .*missing; no run is"):
        find_run_folder({"run": "net", "runs": str(tmp_path / "missing")})
