"""Studies by name, their cells, and the command line with which Hydra sweeps over them."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.build import compose_config, config_dir, prune
from omnihuman.cost.forecast import Forecaster
from omnihuman.model.trainable import set_trainable
from omnihuman.overrides import without_keys
from omnihuman.studies.cell import build_chain, build_evaluations
from omnihuman.studies.config import build_arguments, compose_study, locate_study, read_cells
from omnihuman.study import main
from omnihuman.training.assembly import read_trainable
from omnihuman.training.chain import Chain

FORECASTER = Forecaster()  # builds a part once, on the meta device
STUDIES = sorted(path.parent.name for path in (Path(config_dir()).parent / "experiments").glob("*/sweep.yaml"))


@pytest.mark.parametrize("study", STUDIES)
def test_cells_that_differ_have_different_folders(study: str) -> None:
    config = compose_study(study)
    digests: dict[Path, str] = {}
    for cell in read_cells(config):
        run = build_chain(config, cell).run
        assert digests.setdefault(run.folder, run.digest) == run.digest, f"{cell} shares {run.folder} with another run"


@pytest.mark.parametrize("study", STUDIES)
def test_scores_paper_and_claims_name_cells_and_evaluations(study: str) -> None:
    config = compose_study(study)
    cells = read_cells(config)
    assert config.study == study and config.baseline in cells
    for cell in cells:
        assert set(build_evaluations(config, cell)) == set(config.evaluations)
    for key in config.scores:
        assert key.partition("/")[0] in config.evaluations
    assert set(config.paper["rows"]) <= set(cells)
    for row in config.paper["rows"].values():
        assert len(row) == len(config.paper["columns"])
    for claim in config.claims:
        assert {claim.better, claim.worse} <= set(cells) and claim.score in config.scores


@pytest.mark.parametrize("study", [study for study in STUDIES if study != "composition"])
def test_every_stage_of_every_cell_builds(study: str) -> None:
    config = compose_study(study)
    digests: set[str] = set()

    def check(chain: Chain) -> None:
        for parent in chain.parents:
            check(parent)
        if chain.run.digest not in digests:
            digests.add(chain.run.digest)
            overrides = without_keys(chain.overrides, "variant")
            stage = compose_config(overrides)
            model: Any = OmegaConf.to_container(stage.model, resolve=True)
            set_trainable(FORECASTER.build_model(prune(model)), read_trainable(stage))

    for cell in read_cells(config):
        check(build_chain(config, cell))


def test_cells_share_the_parents_in_which_they_agree() -> None:
    config = compose_study("humanomni_branches")
    parents, folders = {}, {}
    for cell in read_cells(config):
        chain = build_chain(config, cell)
        folders[cell] = chain.run.folder.name
        parents[cell] = {str(parent.run.folder) for parent in chain.parents}
    assert parents["gate"] == parents["sum"] == parents["learned_sum"]
    assert not parents["no_compressor"] & parents["gate"]  # the gate's parents have a compressor themselves
    assert parents["face"] < parents["gate"] and len(parents["face"]) == 1
    assert folders["gate"] == "humanomni_stage1" and folders["sum"] == "humanomni_branches.sum"


def test_parts_that_a_cell_drops_are_dropped_from_its_parents() -> None:
    config = compose_study("favchat_ablation")
    parent = build_chain(config, "without_face_encoder").parents[0]
    assert any("encoders.face" in override for override in parent.overrides)
    assert parent.run.folder != build_chain(config, "full").parents[0].run.folder


def test_a_grid_has_a_cell_per_combination_of_its_axes() -> None:
    cells = read_cells(compose_study("composition"))
    assert len(cells) == 18 and "umt-qformer-frame_attend" in cells
    assert cells["siglip-mlp-clip_concat"]["train"] == []


def test_an_unknown_study_raises_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"favchat: unknown study; .* composition, favchat_ablation"):
        locate_study("favchat")


def test_a_study_may_be_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    OmegaConf.save(OmegaConf.create({"title": "mine"}), folder / "sweep.yaml")
    arguments = build_arguments(str(folder), ["cell=a"])
    assert arguments[-2:] == ["study=mine", "cell=a"] and arguments[1] == str(folder.resolve())


def test_an_unknown_cell_raises() -> None:
    with pytest.raises(ValueError, match=r"cell=ful: unknown cell .*\bfull, without_face_encoder"):
        build_chain(compose_study("favchat_ablation"), "ful")


def test_unknown_names_on_the_command_line_are_refused_before_the_sweep() -> None:
    message = r"error: cell=nose: unknown .*favchat_ablation; .*\bfull, without_face_encoder"
    with pytest.raises(SystemExit, match=message):
        main(["favchat_ablation", "cell=full,nose"])
    with pytest.raises(SystemExit, match="error: nonsense: unknown study"):
        main(["nonsense"])
