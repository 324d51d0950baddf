"""Plugins: the package of the guide, installed, and what else of it stays closed."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from omnihuman.build import _compose, _compose_files, build, compose_config
from omnihuman.config_files import list_choices, read_file
from omnihuman.gate import find_target
from omnihuman.keys import check_keys
from omnihuman.plugins import GROUP, list_config_folders, list_plugins
from omnihuman.usage import format_usage

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "plugins.md"
FILE = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
CACHES = (list_plugins, list_config_folders, read_file, _compose, _compose_files)


def clear_caches() -> None:
    for function in CACHES:
        function.cache_clear()
    GlobalHydra.instance().clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the package of the guide, without pip, and return the folder that it is in."""
    for name, content in FILE.findall(GUIDE.read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"][GROUP].items())
    info = tmp_path / "mylab-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
    monkeypatch.syspath_prepend(tmp_path)
    clear_caches()
    yield tmp_path
    for module in [module for module in sys.modules if module.partition(".")[0] == "mylab"]:
        del sys.modules[module]
    monkeypatch.undo()
    clear_caches()


def test_its_choices_are_listed_composed_and_built(site: Path) -> None:
    assert "wave" in list_choices("projector")
    assert "Linear, sine, Linear." in format_usage("train", "", ["--help", "projector"])
    texts = [
        "+experiment=humanomni_stage1_face",
        "projector@model.projectors.face=wave",
        "model.projectors.face.scale=3",
    ]
    config = compose_config(texts)
    check_keys(texts, config, "train")
    face = build(config.model).projectors["face"]
    assert type(face).__module__ == "mylab.wave" and face.scale == 3
    with pytest.raises(ValueError, match=r"WaveProjector .*model\.projectors\.face\.scale\?"):
        check_keys([*texts, "+model.projectors.face.scael=3"], config, "train")


def test_its_metric_scores_answers(site: Path) -> None:
    config = compose_config(["+experiment=humanomni_stage1", "+metric@validation.metrics.expression=smile"])
    metric = build(config.validation.metrics.expression)
    metric.update(["She smiles.", "She cries."], ["", ""])
    assert metric.compute() == {"rate": 50.0}


def test_another_process_finds_it(site: Path) -> None:
    code = "from omnihuman.__main__ import main; main(['train', '--help', 'metric'])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=site)
    assert "Share of the answers that name a smile." in process.stdout


def test_a_plugin_without_yaml_files_is_named(site: Path) -> None:
    (site / "mylab" / "conf").rename(site / "conf")
    with pytest.raises(ValueError, match=r"mylab .*plugin .*mylab/conf"):
        list_config_folders()


def test_without_it_its_class_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"mylab\.wave\.WaveProjector.*{re.escape(GROUP)}"):
        find_target("model._target_", "mylab.wave.WaveProjector")
