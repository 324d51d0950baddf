"""Messages about a resumed run."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from omnihuman.training import assembly
from omnihuman.training.callbacks import MetricsTable


@pytest.mark.parametrize(("step", "rows", "is_said"), [(2, (), True), (2, (2,), False), (3, (), False), (4, (), False)])
def test_a_validation_that_was_interrupted_is_said(
    step: int, rows: tuple[int, ...], is_said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One follows every second step; that after the last one, 4, is repeated."""
    trainer = {"limit_val_batches": 1.0, "max_epochs": 1, "max_steps": 4, "check_val_every_n_epoch": 1}
    config = OmegaConf.create({"val_every": 2, "trainer": trainer})
    metrics = MetricsTable(tmp_path / "metrics.csv")
    for row in rows:
        metrics.log_metrics({"val/loss": 1.0}, step=row)
    data = SimpleNamespace(steps_per_epoch=9, val_samples=["a"])
    with caplog.at_level(logging.WARNING):
        assembly._warn_of_interrupted_validation(config, data, step, metrics)
    assert ("after step 2 was interrupted" in caplog.text) == is_said
