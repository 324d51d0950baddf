"""The cost of a pipeline before it runs: by a price list, and by partitions that are there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.build import config_dir
from omnihuman.curation.folder import write_state
from omnihuman.curation.listing import Listing
from omnihuman.curation.pipeline import Pipeline, build_pipeline
from omnihuman.curation.plan import add, plan, print_plan
from omnihuman.curation.prices import Prices
from tests.curation.conftest import NUM_CLIPS, build_on, compose_operator, run_here

NUM_CLIPS_AT_SIZE = 2_400_000
LARGE, SMALL = "Qwen/Qwen2.5-VL-72B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
CALLS = {
    "brief": ("brief", True, LARGE),
    "first": ("detailed", True, LARGE),
    "second": ("detailed", True, SMALL),
    "consensus": ("consensus", False, LARGE),
    "branches": ("branches", False, LARGE),
}
"""The calls of HumanOmni §3: operator -> protocol, whether its model sees frames, and the model."""


def list_prices(**figures: Any) -> Prices:
    node: Any = OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / "prices" / "h100.yaml"))
    return Prices(**{**node, **figures})


def build_ask(protocol: str, frames: bool, model: str) -> dict[str, Any]:
    captioner = {"_target_": "omnihuman.judge.endpoint.EndpointJudge", "_partial_": True, "model": model}
    captioner["prices"] = {"paid": [2.0, 8.0]}
    fields = {"system": "", "user": "", "reply": {"text": {"kind": "text"}}}
    return compose_operator(
        "ask", protocol={"name": protocol, "version": 1, "frames": frames, **fields}, captioner=captioner
    )


def imagine(out: Path, calls: Mapping[str, tuple[str, bool, str]]) -> Pipeline:
    nodes = {"probe": compose_operator("probe"), "extract_frames": compose_operator("extract_frames")}
    nodes["faces"] = compose_operator("faces", boxes="truth")
    nodes |= {name: {**build_ask(*call), "name": name} for name, call in calls.items()}
    listing = Listing(Path(), (), 256)
    listing.num_rows = NUM_CLIPS_AT_SIZE
    return build_pipeline("test", nodes, listing, out)


def test_the_cost_of_the_paper_at_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline, prices = imagine(tmp_path / "out", CALLS), list_prices()
    lines = {line.name: line for line in plan(pipeline, prices, NUM_CLIPS_AT_SIZE)}
    hours = {name: line.cost.gpu_hours for name, line in lines.items()}
    expected = {"brief": 2430, "first": 2573, "second": 367, "consensus": 679, "branches": 614, "faces": 38}
    assert {name: hours[name] for name in expected} == pytest.approx(expected, rel=0.01)
    total = add([lines[name].cost for name in CALLS])
    assert total.calls == 5 * NUM_CLIPS_AT_SIZE and total.gpu_hours == pytest.approx(6670, rel=0.01)
    assert total.dollars == pytest.approx(16_700, rel=0.01) and total.gpu_hours / 64 == pytest.approx(104, rel=0.01)
    assert lines["extract_frames"].cost.core_hours == pytest.approx(756, rel=0.01)
    print_plan(pipeline, prices, NUM_CLIPS_AT_SIZE)
    assert "2,400,000 clips in 9,375 partitions" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_a_smaller_model_before_dedupe(tmp_path: Path) -> None:
    prices = list_prices(operators={**list_prices().operators, "brief": {"share": 2.4 / 10.5}})
    calls = {**CALLS, "brief": ("brief", True, SMALL)}
    lines = plan(imagine(tmp_path, calls), prices, 10_500_000)
    brief = add([line.cost for line in lines if line.name == "brief"])
    total = add([line.cost for line in lines if line.name in CALLS])
    assert brief.gpu_hours == pytest.approx(1520, rel=0.01) and total.gpu_hours == pytest.approx(5750, rel=0.01)
    assert [round(line.rows) for line in lines if line.name == "first"] == [NUM_CLIPS_AT_SIZE]


def test_a_model_that_is_paid_by_tokens(tmp_path: Path) -> None:
    (line,) = plan(imagine(tmp_path, {"a": ("consensus", False, "paid")}), list_prices(), 1_000_000)[-1:]
    assert line.cost.dollars == pytest.approx(2.0 * 1200 + 8.0 * 350) and line.cost.gpu_hours == 0


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"models": {}}, r"prices\.models .*Qwen2.*captioner\.prices"),
        ({"operators": {}}, r"prices\.operators .*listing"),
        ({"protocols": {"brief": {"words": 3}}}, r"prices\.protocols\.brief .*words"),
        ({"gpus": 0}, r"gpus=0"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, figures: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(imagine(tmp_path, CALLS), list_prices(**figures), 10)


def test_partitions_that_are_there_tell_the_cost(clips: Path, tmp_path: Path) -> None:
    nodes = {"probe": compose_operator("probe"), "faces": compose_operator("faces", boxes="truth")}
    pipeline = build_on(clips, nodes, tmp_path / "out", 2)
    run_here(pipeline, [2])  # a cut clip and a copy
    write_state(pipeline, [])
    lines = plan(pipeline, list_prices(), NUM_CLIPS)
    assert [line.num_missing for line in lines] == [2, 2, 2] and all(line.cost.is_measured for line in lines)
    assert [line.rows for line in lines] == [6, 6, 3], "of the two clips that were measured one has failed"
    assert 0 < lines[1].cost.core_hours < 0.01 and lines[1].cost.dollars > 0
