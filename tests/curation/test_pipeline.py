"""A pipeline is checked as a config before anything runs."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from omnihuman.build import compose_config, config_dir
from omnihuman.curation.pipeline import select_operators
from tests.curation.conftest import build_on, compose_operator


def test_a_column_that_nobody_writes_is_named(clips: Path, tmp_path: Path) -> None:
    nodes = {"size": compose_operator("filter", conditions=[{"column": "short_side", "least": 1}])}
    with pytest.raises(ValueError, match=r"operators\.size .*column short_side.* source"):
        build_on(clips, nodes, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_column_that_two_operators_write_is_named(clips: Path, tmp_path: Path) -> None:
    nodes = {"probe": compose_operator("probe"), "again": compose_operator("probe")}
    with pytest.raises(ValueError, match=r"operators\.again writes kind.*probe"):
        build_on(clips, nodes, tmp_path)


def test_a_missing_package_has_a_cure(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.curation.pipeline.find_spec", lambda module: None)
    nodes = {"probe": compose_operator("probe"), "scenes": compose_operator("scenes")}
    with pytest.raises(ValueError, match=r"operators\.scenes: .*pip install .omnihuman\[curate\]"):
        build_on(clips, nodes, tmp_path)


def test_a_detector_needs_its_file(clips: Path, tmp_path: Path) -> None:
    detector = {"_target_": "omnihuman.data.face.YuNet", "model": "nothing.onnx"}
    nodes = {"faces": compose_operator("faces", detector=detector)}
    with pytest.raises(ValueError, match=r"nothing\.onnx.*YuNet"):
        build_on(clips, nodes, tmp_path)
    with pytest.raises(ValueError, match=r"boxes=detector.*boxes=truth"):
        build_on(clips, {"faces": compose_operator("faces")}, tmp_path)


def test_an_order_has_a_name() -> None:
    config = {"operators": {"a": {"n": 1}, "b": {"n": 2}}, "order": "paper", "orders": {"paper": ["b", "a"]}}
    assert list(select_operators(OmegaConf.create(config))) == ["b", "a"]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["probe", "other"], "other .*probe, scenes"),
        (["probe", "probe"], "probe .*twice"),
        ("paper", "order=paper: .*list of"),
    ],
)
def test_order_names_operators_once(order: list[str] | str, message: str) -> None:
    config = OmegaConf.create({"operators": {"probe": {}, "scenes": {}}, "order": order})
    with pytest.raises(ValueError, match=message):
        select_operators(config)


PAPERS = ("favchat", "humanomni", "omni_emotion")


@pytest.mark.parametrize("size", ["nano", "7b"])
@pytest.mark.parametrize("name", sorted(path.stem for path in (Path(config_dir()) / "pipeline").glob("*.yaml")))
def test_every_pipeline_fits_together(clips: Path, tmp_path: Path, name: str, size: str) -> None:
    config = compose_config([f"pipeline={name}", f"size={size}", "out=x", "judge@captioner=scripted"], "curate")
    with open_dict(config):
        config.captioner["_partial_"] = True
    pipeline = config.pipeline
    assert pipeline.name == name
    for order in [pipeline.order, *pipeline.get("orders", {})]:
        with open_dict(config):
            pipeline.order = order
        nodes = select_operators(pipeline)
        if "scenes" in nodes:
            pytest.importorskip("scenedetect")
        for node in nodes.values() if size == "7b" else ():  # a user names the models
            node |= {option: "truth" for option in ("boxes", "words") if option in node}
        assert build_on(clips, nodes, tmp_path).levels[-1].name == list(nodes)[-1]


@pytest.mark.parametrize("name", PAPERS)
def test_the_default_order_drops_more_before_it_asks(name: str) -> None:
    pipeline = compose_config([f"pipeline={name}", "out=x", "judge@captioner=scripted"], "curate").pipeline
    saving, paper = pipeline.orders.saving, pipeline.orders.paper

    def count_above(order: list[str]) -> int:
        """Return the operators above the first request."""
        return next(place for place, key in enumerate(order) if "protocol" in pipeline.operators[key])

    assert set(paper) <= set(saving) <= set(pipeline.operators) and count_above(saving) > count_above(paper)
