"""The summary of a finished run."""

import json
from pathlib import Path

from PIL import Image
from rich.console import Console

from omnihuman.training.summary import print_summary, write_summary

METRICS = """step,train/loss,val/loss,val/emotion/war,val/gate/emotion/face
0,2.0,1.1,70,0.5
1,1.5,1.8,40,
2,1.0,1.9,60,
3,,nan,60,
"""
FACTS = {
    "experiment": "x",
    "steps": 3,
    "seconds": 1.0,
    "planned": 10,
    "trained": 8,
    "skipped": {"truncated": 2},
    "val_skipped": {"timeout": 1},
    "answer_cut": 3,
    "audio_gaps": {"samples": 2, "gaps": 3, "seconds": 4.25},
    "tokens_per_second": 5.0,
    "samples_per_second": 1.0,
    "gpu_memory_gib": 0.0,
    "data_wait": 0.1,
    "clips_per_second": 1.5,
    "tflops_per_second": 400.0,
    "mfu": {"value": 0.4045, "device": "NVIDIA H100 80GB HBM3", "peak_tflops": 989.0, "convention": "useful FLOPs"},
    "time": {"start": 10.0, "compute": 70.0, "data_wait": 20.0},
    "processes": 2,
    "goodput": 0.65,
    "weights_of_step": 2,
    "selected_by": "val/emotion/war",
    "next": "python -m omnihuman.train +experiment=y",
}


def test_summary_has_a_table_a_ledger_and_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    console = Console(record=True, width=140)
    print_summary(tmp_path, write_summary(tmp_path, FACTS), console)
    text = console.export_text()
    assert "10 planned = 8 trained + 2 skipped (2 truncated)" in text and "+experiment=y" in text
    assert "3 answers cut" in text and "1 skipped in validation" in text
    assert "3 in 2 samples, 4.2 s" in text
    assert "1.5 clips/s, 400 TFLOP/s, MFU 40.5% of 989" in text
    assert "10% start, 70% compute, 20% data wait; goodput 65% over 2 starts" in text
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["best"] == {"val/loss": 1.8, "val/emotion/war": 60.0}, "not those of the untrained model"
    assert ledger["best_step"] == {"val/loss": 1, "val/emotion/war": 2}
    assert ledger["last"] == {"val/emotion/war": 60.0}
    assert ledger["untrained"] == {"val/loss": 1.1, "val/emotion/war": 70.0}
    assert "val/emotion/war 60 at step 2 (selected), val/loss 1.8 at step 1" in text
    assert "untrained" in text and "of step 2" in text
    assert Image.open(tmp_path / "curves.png").size[0] > 300


def test_best_step_of_the_selecting_score_is_that_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss,val/emotion/war\n1,3.0,60\n2,2.0,60\n")
    ledger = write_summary(tmp_path, FACTS)
    assert ledger["best_step"] == {"val/loss": 2, "val/emotion/war": 2}
