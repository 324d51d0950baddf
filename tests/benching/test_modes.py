"""The modes of ``omnihuman bench`` on small inputs, and its mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from omnihuman.benching import input as clips
from omnihuman.benching import pack, plan, startup
from omnihuman.build import compose_config
from omnihuman.completion import complete
from omnihuman.cost.flops import FlopCounter
from omnihuman.data.packing import EpochPlan
from tests.cost.test_flops import build_batch, build_model
from tests.data.conftest import write_clip
from tests.programs import run_program

EXPERIMENT = "+experiment=humanomni_stage1_face"


def compose(*overrides: str) -> DictConfig:
    return compose_config([EXPERIMENT, "repeats=1", *overrides], "bench")


def test_words_are_completed_and_are_the_modes() -> None:
    from omnihuman.bench import MODES

    words = complete("omnihuman bench ", ["bench"])
    assert set(MODES) <= set(words)
    assert complete("omnihuman bench inp", ["bench"]) == ["input "]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["mode", "startup"]),
        (["inputs"], ["mode=inputs", "input, step, pack"]),
        (["pack", "repeats=0"], ["repeats=0"]),
        (["input", "clips=[nowhere.mp4]"], ["clips", "nowhere.mp4"]),
        (["gpu", "size=7b", "trainer.accelerator=cpu"], ["size=7b", "size=nano"]),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: list[str]) -> None:
    process = run_program("omnihuman.bench", *arguments)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert [word for word in words if word not in process.stderr] == []


def test_a_mode_is_typed_alone_and_writes_its_numbers(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["ranks=[1,2]", "windows=[1]", f"json={file}", f"data.root={corpus}"]
    process = run_program("omnihuman.bench", "pack", EXPERIMENT, *options)
    assert process.returncode == 0, process.stderr
    machine, tables = json.loads(file.read_text()).values()
    assert machine["commit"] in process.stdout and tables[0]["title"] in process.stdout
    assert [row["ranks"] for row in tables[0]["rows"]] == [1, 2]
    assert all(row["padded / packed positions"] >= 1 >= row["fill"] > 0 for row in tables[0]["rows"])


def test_input_is_compared_with_a_bare_decode(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "clip.mp4")
    config = compose(f"clips=['{file}']", "num_frames=[4]", "peak=true")
    (table,) = clips.measure(config, [])
    rows = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows[clips.BARE][f"{clips.BARE} / way"] == 1
    assert {clips.OURS, clips.STACKED} < rows.keys() and float(rows[clips.OURS]["MB more"]) >= 0  # type: ignore[arg-type]


def test_a_file_without_frames_is_no_input(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "sound.mp4", num_frames=0)
    with pytest.raises(ValueError, match=r"sound\.mp4"):
        list(clips.measure(compose(f"clips=['{file}']"), []))


def test_clips_of_the_data_are_its_videos(corpus: Path) -> None:
    files = clips.list_clips(compose(f"data.root={corpus}", "num_clips=2"))
    assert len(set(files)) == 2 and all(file.suffix == ".mp4" and file.is_file() for file in files)


def test_flops_of_samples_are_those_of_the_blocks() -> None:
    model = build_model("humanomni_stage3")
    batch = build_batch(model, answer=1)
    counter = FlopCounter(model)
    with counter.count():
        model(batch)
    head = 2 * model.llm.model.lm_head.weight.numel()
    (expected,) = pack.count_flops(model, np.array(batch.lengths, np.int32))
    assert counter.parts["llm"].forward - head == pytest.approx(expected, rel=0.01)


def test_steps_are_measured() -> None:
    lengths = np.array([4, 4, 2, 2] * pack.NUM_STEPS)
    order = np.arange(len(lengths), dtype=np.int32)
    limits = {"batch_size": 4, "max_tokens": 8, "world": 2}
    steps = EpochPlan(lengths, np.ones_like(lengths), order, **limits)
    figures = list(pack.measure_steps(steps, order, lengths.astype(float)))
    assert figures == [1, 1, 0.75, 1, 1, 1, 0.75]


def test_plans_are_timed_beside_json(tmp_path: Path) -> None:
    records = plan.write_records(tmp_path, 12)
    figures = plan.measure_plan(records, [EXPERIMENT], tmp_path / "index")
    assert figures[plan.FIRST] > figures[plan.READ] > 0 and figures[plan.SAMPLES] >= 12
    assert next((tmp_path / "index").iterdir())
    growth = plan.build_growth(10, 100, {10: figures, 100: {name: 10 * value for name, value in figures.items()}})
    assert [exponent for _, exponent in growth.rows] == pytest.approx([1] * len(growth.rows))


def test_commands_begin_with_their_reference(corpus: Path, tmp_path: Path) -> None:
    commands = startup.list_commands(compose(f"data.root={corpus}"), tmp_path)
    assert next(iter(commands)) == startup.REFERENCE and len(commands) > 4


def test_a_command_that_fails_is_named() -> None:
    startup.run_command(["-c", "import sys; sys.exit(1)"], 1)
    with pytest.raises(ValueError, match="ends with 3: no message"):
        startup.run_command(["-c", "import sys; sys.exit(3)"], 0)
