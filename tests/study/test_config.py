"""Studies by name, their cells, and the sweep that Hydra makes of them."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config, config_dir, prune
from omnihuman.study.cell import link_of, questions_of
from omnihuman.study.config import arguments_of, cells_of, compose_study, folder_named
from omnihuman.training.chain import Link
from omnihuman.training.forecast import Forecaster
from omnihuman.training.stage import trainable_of
from omnihuman.training.trainable import set_trainable

FORECASTER = Forecaster()  # builds a part once, on the meta device
STUDIES = sorted(path.parent.name for path in (Path(config_dir()).parent / "experiments").glob("*/sweep.yaml"))


@pytest.mark.parametrize("study", STUDIES)
def test_every_cell_of_every_study_composes_and_has_its_own_folder(study: str) -> None:
    config = compose_study(study)
    cells = cells_of(config)
    assert config.reference in cells and config.study == study
    folders = {}
    for cell in cells:
        chain = link_of(config, cell)
        folders.setdefault(str(chain.run.folder), []).append((cell, chain.run.digest))
        assert set(questions_of(config, cell)) == set(config.evaluate)
    for shared in folders.values():
        assert len({digest for _, digest in shared}) == 1, f"cells {shared} differ and share a folder"
    assert all(key.partition("/")[0] in config.evaluate for key in config.scores)
    assert set(config.paper["rows"]) <= set(cells)
    assert all(len(row) == len(config.paper["columns"]) for row in config.paper["rows"].values())
    for claim in config.claims:
        assert {claim.better, claim.worse} <= set(cells) and claim.score in config.scores


@pytest.mark.parametrize("study", [study for study in STUDIES if study != "composition"])
def test_every_stage_of_every_cell_fits_together(study: str) -> None:
    config, seen = compose_study(study), set[str]()

    def check(chain: Link) -> None:
        for parent in chain.parents:
            check(parent)
        if chain.run.digest not in seen:
            seen.add(chain.run.digest)
            plain = [each for each in chain.overrides if not each.startswith("variant=")]
            stage = compose_config(plain)
            model: Any = OmegaConf.to_container(stage.model, resolve=True)
            set_trainable(FORECASTER.model(prune(model)), trainable_of(stage))

    for cell in cells_of(config):
        check(link_of(config, cell))


def test_cells_share_the_parents_in_which_they_agree() -> None:
    config = compose_study("humanomni_branches")
    parents = {cell: {str(p.run.folder) for p in link_of(config, cell).parents} for cell in cells_of(config)}
    assert parents["gate"] == parents["sum"] == parents["learned_sum"]
    assert not parents["no_compressor"] & parents["gate"]  # they have a compressor themselves
    assert parents["face"] < parents["gate"] and len(parents["face"]) == 1
    folders = {cell: link_of(config, cell).run.folder.name for cell in cells_of(config)}
    assert folders["gate"] == "humanomni_stage1" and folders["sum"] == "humanomni_branches.sum"


def test_what_a_cell_does_without_its_parents_do_without() -> None:
    config = compose_study("favchat_ablation")
    chain = link_of(config, "without_face_encoder")
    stage2 = chain.parents[0]
    assert any("encoders.face" in override for override in stage2.overrides)
    assert stage2.run.folder != link_of(config, "full").parents[0].run.folder


def test_a_grid_is_every_combination_of_its_axes() -> None:
    cells = cells_of(compose_study("composition"))
    assert len(cells) == 18 and "umt-qformer-frame_attend" in cells
    assert cells["siglip-mlp-clip_concat"]["train"] == []


def test_an_unknown_study_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the studies are composition, favchat_ablation"):
        folder_named("favchat")
    (tmp_path / "mine").mkdir()
    OmegaConf.save(OmegaConf.create({"title": "mine"}), tmp_path / "mine" / "sweep.yaml")
    arguments = arguments_of(str(tmp_path / "mine"), ["cell=a"])
    assert arguments[-2:] == ["study=mine", "cell=a"] and arguments[1] == str((tmp_path / "mine").resolve())
    config = compose_study("favchat_ablation")
    config.cell = "ful"
    with pytest.raises(ValueError, match="has full, without_face_encoder"):
        link_of(config, "ful")


def test_a_foreign_cell_is_refused_before_anything_is_swept(capsys: pytest.CaptureFixture[str]) -> None:
    from omnihuman.study.__main__ import main

    assert main(["favchat_ablation", "cell=full,nose"]) == 2
    assert "cell=nose: the study favchat_ablation has full, without_face_encoder" in capsys.readouterr().err
    assert main(["nonsense"]) == 2 and "the studies are composition" in capsys.readouterr().err
