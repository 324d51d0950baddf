"""Studies by name, their cells, and the command line with which Hydra sweeps over them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import compose_config, config_dir, prune
from omnihuman.cost.forecast import Forecaster
from omnihuman.model.trainable import set_trainable
from omnihuman.overrides import without_keys
from omnihuman.studies.cell import build_chain, list_commands
from omnihuman.studies.check import check_names
from omnihuman.studies.config import (
    build_arguments,
    build_evaluations,
    compose_study,
    find_baseline,
    list_seeds,
    load_study,
    locate_study,
    read_cells,
    store_study,
)
from omnihuman.study import add_size, main
from omnihuman.training.assembly import read_trainable
from omnihuman.training.chain import Chain, resolve_chain

FORECASTER = Forecaster()  # builds a part once, on the meta device
SEED = 42
STUDIES = sorted(path.parent.name for path in (Path(config_dir()).parent / "experiments").glob("*/sweep.yaml"))
FEW_CELLS = ("humanomni_modality", "omni_emotion_modality")


def mark_long(studies: Iterable[str]) -> list[Any]:
    """Mark the studies of many cells, which take half a minute each."""
    return [study if study in FEW_CELLS else pytest.param(study, marks=pytest.mark.slow) for study in studies]


@pytest.mark.parametrize("study", mark_long(STUDIES))
def test_cells_that_differ_have_different_folders(study: str) -> None:
    config = compose_study(study)
    digests: dict[Path, str] = {}
    for cell in read_cells(config):
        run = build_chain(config, cell, SEED).run
        assert digests.setdefault(run.folder, run.digest) == run.digest, f"{cell} shares {run.folder} with another run"


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("size", ["nano", "7b"])
def test_benchmarks_are_those_of_the_size(study: str, size: str) -> None:
    """At nano the corpus, otherwise the benchmarks of the paper's table, each beside the paper's own column."""
    config = compose_study(study, [f"size={size}"])
    cells = check_names(config)
    assert config.study == study and find_baseline(config) in cells
    for cell in cells:
        for name, overrides in build_evaluations(config, cell).items():
            assert ("benchmark=sample" in overrides) == (size == "nano"), f"{cell}, {name}"
    assert {key.partition("/")[0] for key in config.scores} == set(config.evaluations)
    for score in config.paper.scores:
        assert (score in config.scores) == (size != "nano"), score
    if size != "nano":
        assert len(config.paper.scores) == len(config.paper.columns)
    overlays = [file.stem for file in (Path(config.folder) / "sweep").iterdir()]
    assert overlays == ["nano"], "a file is an overlay of a size; the papers' values are in sweep.yaml"


def test_a_cell_skips_what_its_modality_cannot_answer() -> None:
    config = compose_study("humanomni_modality", ["size=0_5b", "benchmark_root=/d", "judge_overrides=['judge=rule']"])
    assert set(build_evaluations(config, "audio")) == {"dfew", "mafw"}
    captions = build_evaluations(config, "video")["dfec"]
    assert captions == ["benchmark=dfec", "benchmark.root=/d/DFEC", "judge=rule", "view=V"]
    config.cells.audio["skip"] = ["dfecs"]
    with pytest.raises(ValueError, match=r"humanomni_modality: .*audio.*\['dfecs'\].*dfew, mafw"):
        check_names(config)
    config.cells.audio["skip"] = []
    config.paper.rows.audio = [58.63]
    with pytest.raises(ValueError, match=r"audio has 1 values.* 4 columns"):
        check_names(config)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], set()),
        (["size=7b"], {"dtype=bfloat16"}),
        (["size=7b", "extra_overrides=['trainer=fsdp']"], {"dtype=bfloat16", "processes=auto"}),
        (["size=7b", "extra_overrides=['trainer.devices=8']"], {"dtype=bfloat16", "processes=8"}),
        (["size=7b", "extra_overrides=['trainer.devices=[0,1]','trainer.precision=32-true']"], {"processes=2"}),
    ],
)
def test_cells_are_evaluated_as_they_were_trained(overrides: list[str], expected: set[str]) -> None:
    config = compose_study("humanomni_modality", overrides)
    config.experiment = "humanomni_stage1_face"  # which has no parents
    training, evaluation, *_ = list_commands(config, "video", SEED)
    assert training[2:4] == ["omnihuman.train", "+experiment=humanomni_stage1_face"]
    assert evaluation[2:4] == ["omnihuman.evaluate", "run=humanomni_stage1_face"]
    assert {text for text in evaluation if text.startswith(("dtype", "processes"))} == expected


@pytest.mark.parametrize("study", mark_long(study for study in STUDIES if study != "composition"))
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
        check(build_chain(config, cell, SEED))


def test_cells_share_the_parents_in_which_they_agree() -> None:
    config = compose_study("humanomni_branches")
    parents, folders = {}, {}
    for cell in read_cells(config):
        chain = build_chain(config, cell, SEED)
        folders[cell] = chain.run.folder.name
        parents[cell] = {str(parent.run.folder) for parent in chain.parents}
    assert parents["gate"] == parents["sum"] == parents["learned_sum"]
    assert not parents["no_compressor"] & parents["gate"]  # the gate's parents have a compressor themselves
    assert parents["face"] < parents["gate"] and len(parents["face"]) == 1
    assert folders["gate"] == "humanomni_stage1" and folders["sum"] == "humanomni_branches.sum,seed=42"


def test_parts_that_a_cell_drops_are_dropped_from_its_parents() -> None:
    config = compose_study("favchat_ablation")
    parent = build_chain(config, "without_face_encoder", SEED).parents[0]
    assert any("encoders.face" in override for override in parent.overrides)
    assert parent.run.folder != build_chain(config, "full", SEED).parents[0].run.folder


def test_a_grid_has_a_cell_per_combination_of_its_axes() -> None:
    cells = read_cells(compose_study("composition"))
    assert len(cells) == 18 and "umt-qformer-frame_attend" in cells
    assert cells["siglip-mlp-clip_concat"]["train"] == []


def test_an_unknown_study_raises_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"favchat: unknown study; .* composition, favchat_ablation"):
        locate_study("favchat")
    with pytest.raises(ValueError, match=r"no .*mine/sweep\.yaml.*own_clips"):
        locate_study(str(tmp_path / "mine" / "sweep.yaml"))


@pytest.fixture
def own_study(tmp_path: Path) -> Path:
    """Return the folder of a study as a user writes one, with what it cannot do without."""
    sweep = {
        "defaults": ["study", "_self_"],
        "experiment": "humanomni_stage1",
        "grid": {"fusion": {"gate": [], "sum": ["fusion@model.fusions.gate=weighted_sum"]}},
        "evaluations": {"emotion": ["benchmark=sample"]},
        "scores": {"emotion/war": "WAR"},
    }
    (tmp_path / "mine").mkdir()
    OmegaConf.save(OmegaConf.create(sweep), tmp_path / "mine" / "sweep.yaml")
    return tmp_path / "mine"


@pytest.mark.parametrize("file", ["", "sweep.yaml"])
def test_a_study_may_be_any_folder_or_file(own_study: Path, file: str) -> None:
    arguments = build_arguments(str(own_study / file), ["cell=a"])
    assert arguments[-1] == "cell=a" and arguments[1] == str(own_study.resolve())
    config = compose_study(str(own_study / file))
    assert (config.study, config.title, find_baseline(config)) == ("mine", "mine", "gate")
    assert config.folder == str(own_study.resolve())


def test_a_dry_run_prints_the_commands_of_cells(own_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(own_study), "size=7b", "cell=sum", f"runs={own_study}/runs", "seeds=[7]", "dry_run=true"]
    assert main([*arguments, "--", "data=humanomni", "data.path=records"]) == 0
    title, training, evaluation = capsys.readouterr().out.splitlines()
    assert title == "# sum,seed=7" and "data=humanomni data.path=records" in training
    assert evaluation.endswith(" tag=emotion dtype=bfloat16 benchmark=sample")
    for command in (training, evaluation):
        assert "\"variant='mine.sum,seed=7'\"" in command
    assert [path.name for path in own_study.iterdir()] == ["sweep.yaml"]


def test_a_study_is_read_again_as_it_was_run(own_study: Path, tmp_path: Path) -> None:
    runs = str(tmp_path / "a=b")
    store_study(
        compose_study(str(own_study), [f"runs='{runs}'", "size=7b", "seeds=[1,2]", "extra_overrides=['frames=4']"])
    )
    for study in ("mine", str(own_study), str(own_study / "sweep.yaml")):
        config = load_study(study, runs)
        assert (config.size, config.seeds, config.extra_overrides) == ("7b", [1, 2], ["frames=4"])
    store_study(compose_study(str(own_study), [f"runs='{runs}'"]))
    with pytest.raises(ValueError, match=r"sizes 7b, nano: add size="):
        load_study("mine", runs)
    assert load_study("mine", runs, "nano").seeds == [SEED]
    assert load_study("composition", runs).experiment == "composition"  # not run yet


def list_folders(config: DictConfig, seed: int) -> tuple[list[str], list[str]]:
    """Return the folders of the runs of all cells of the own study, and those of their parents."""
    runs, parents = [], set[str]()
    for cell in ("gate", "sum"):
        chain = build_chain(config, cell, seed)
        runs.append(chain.run.folder.name)
        parents |= {str(parent.run.folder) for parent in chain.parents}
    return runs, sorted(parents)


def test_seeds_share_their_parents_unless_each_has_its_own(own_study: Path) -> None:
    config = compose_study(str(own_study), ["seeds=[1,2]"])
    assert list_seeds(config) == [1, 2]
    (first, shared), (second, parents) = list_folders(config, 1), list_folders(config, 2)
    assert first == ["seed=1,parent_seed=42", "mine.sum,seed=1"] and second[1] == "mine.sum,seed=2"
    assert shared == parents and len(shared) == 3 and all("seed" not in parent for parent in shared)
    config.parent_seeds = "own"
    _, parents = list_folders(config, 1)
    assert [Path(parent).name for parent in parents] == ["seed=1"] * 3
    chains = [build_chain(config, "gate", 1), build_chain(compose_study(str(own_study)), "gate", 1)]
    assert chains[0].run.digest != chains[1].run.digest


@pytest.mark.parametrize("seeds", ["[]", "[1,1]", "[a]", "3"])
def test_seeds_that_are_no_list_of_integers_raise(own_study: Path, seeds: str) -> None:
    with pytest.raises(ValueError, match=r"seeds=.*seeds=\[1,2,3\]"):
        list_seeds(compose_study(str(own_study), [f"seeds={seeds}"]))


@pytest.mark.parametrize("override", ["seed=3", "size=7b", "+variant=x"])
def test_overrides_that_the_study_sets_itself_raise(own_study: Path, override: str) -> None:
    config = compose_study(str(own_study), [f"extra_overrides=['{override}']"])
    with pytest.raises(ValueError, match="study sets"):
        build_chain(config, "gate", SEED)


def test_a_cell_from_a_base_is_the_run_that_train_makes_of_it(
    own_study: Path, model_folder: Callable[[str], Path]
) -> None:
    base = model_folder("humanomni_stage1")
    config = compose_study(str(own_study), [f"extra_overrides=['base={base}']", "common=[]"])
    gate, total = build_chain(config, "gate", SEED), build_chain(config, "sum", SEED)
    command_line = ["+experiment=humanomni_stage1", f"base={base}"]
    plain = resolve_chain(compose_config(command_line), command_line).run
    assert gate.run.digest == plain.digest and plain.folder.name == "base=humanomni_stage1"
    assert [chain.run.folder.name for chain in (gate, total)] == ["mine.gate,seed=42", "mine.sum,seed=42"]
    for chain in (gate, total):
        assert [(parent.run.folder, parent.overrides) for parent in chain.parents] == [(base, ())]
        assert resolve_chain(compose_config(chain.overrides), chain.overrides).run == chain.run


def test_an_unknown_cell_raises() -> None:
    with pytest.raises(ValueError, match=r"cell=ful: unknown cell .*\bfull, without_face_encoder"):
        build_chain(compose_study("favchat_ablation"), "ful", SEED)


def test_cells_that_differ_in_their_evaluations_share_a_run_from_a_base(model_folder: Callable[[str], Path]) -> None:
    base = model_folder("humanomni_stage3")
    config = compose_study("humanomni_modality", [f"extra_overrides=['base={base}']"])
    folders = {build_chain(config, cell, SEED).run.folder.name for cell in read_cells(config)}
    assert folders == {"humanomni_modality.video,seed=42"}


def test_unknown_names_on_the_command_line_are_refused_before_the_sweep() -> None:
    message = r"error: cell=nose: unknown .*favchat_ablation; .*\bfull, without_face_encoder"
    with pytest.raises(SystemExit, match=message):
        main(["favchat_ablation", "cell=full,nose"])
    with pytest.raises(SystemExit, match=r"error: cell_seed=2: unknown .*\b1, 3"):
        main(["favchat_ablation", "seeds=[1,3]", "cell_seed=1,2"])
    with pytest.raises(SystemExit, match="error: nonsense: unknown study"):
        main(["nonsense"])


def test_study_of_own_data_has_the_size_of_its_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    OmegaConf.save(OmegaConf.create({"size": "7b", "model": {"variant": "favchat"}}), base / "config.yaml")
    study = OmegaConf.create({"experiment": "finetune", "extra_overrides": [f"base={base}"]})
    assert add_size(study, ["threads=1"]) == ["threads=1", "size=7b"]
    assert add_size(study, ["size=nano"]) == ["size=nano"]
    study.experiment = "favchat_stage3"
    assert add_size(study, []) == ["size=7b"]
