"""The summary a person reads."""

import json
from pathlib import Path

from PIL import Image
from rich.console import Console

from omnihuman.training.summary import write_summary


def test_numbers_add_up_and_a_picture_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss,val/loss,val/emotion/war\n0,2.0,,\n1,1.5,1.8,40\n2,1.0,1.9,60\n"
    )
    console = Console(record=True, width=140)
    facts = {
        "experiment": "x", "steps": 3, "seconds": 1.0, "planned": 10, "trained": 8, "skipped": {"truncated": 2},
        "tokens_per_second": 5.0, "samples_per_second": 1.0, "gpu_memory_gib": 0.0, "data_wait": 0.1,
        "next": "python -m omnihuman.train +experiment=y",
    }  # fmt: skip
    write_summary(tmp_path, facts, console)
    text = console.export_text()
    assert "10 planned = 8 trained + 2 skipped (2 truncated)" in text and "+experiment=y" in text
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["best"] == {"val/loss": 1.8, "val/emotion/war": 60.0}
    assert Image.open(tmp_path / "curves.png").size[0] > 300
