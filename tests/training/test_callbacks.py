"""The table of metrics and averages."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omnihuman.pl import pl
from omnihuman.training.callbacks import (
    MetricsTable,
    Throughput,
    TrainableEMA,
    build_progress_bar,
    count_steps_of_epoch,
    describe_epoch,
)


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.seconds)


def test_throughput_counts_the_samples_of_all_ranks_and_no_time_before_a_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: dict[str, float] = {}
    module = SimpleNamespace(log=lambda name, value, **options: logged.update({name: value}))
    trainer, clock = SimpleNamespace(), Clock(monkeypatch)
    first = Throughput(SimpleNamespace(step_tokens=120, step_samples=6))  # of two ranks that have 80 and 40 tokens
    second = Throughput(SimpleNamespace(step_tokens=60, step_samples=3))
    for callback, start in ((first, 1000.0), (second, 2000.0)):
        callback.load_state_dict(first.state_dict())
        clock.seconds = start  # a training that resumes within an epoch does not start the epoch
        callback.on_train_start(trainer, module)
        clock.seconds += 1
        callback.on_train_batch_start(trainer, module, None, 0)
        clock.seconds += 3
        callback.on_train_batch_end(trainer, module, None, None, 0)
    assert logged == {"train/tokens_per_second": 15.0, "train/samples_per_second": 0.75, "train/data_wait": 0.25}
    assert second.summary() == {"tokens_per_second": 22.5, "samples_per_second": 1.125, "data_wait": 0.25}


def test_metrics_of_one_step_share_a_row(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics({"train/loss": 2.0}, step=0)
    table.log_metrics({"train/loss": 1.0}, step=1)
    table.log_metrics({"val/loss": 1.5}, step=1)
    assert read_rows(table.file) == [
        {"step": "0", "train/loss": "2.0", "val/loss": ""},
        {"step": "1", "train/loss": "1.0", "val/loss": "1.5"},
    ]


def test_resumed_table_drops_the_rows_after_the_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    first = MetricsTable(file)
    for step in range(5):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.log_metrics({"val/loss": 5.0}, step=3)
    first.log_metrics({"val/loss": 6.0}, step=4)
    resumed = MetricsTable(file, resume_at=3)
    resumed.log_metrics({"train/loss": 30.0}, step=3)
    resumed.save()
    rows = read_rows(file)
    assert [row["train/loss"] for row in rows] == ["0.0", "1.0", "2.0", "30.0"]
    assert [row["val/loss"] for row in rows] == ["", "", "", "5.0"], "the validation of the checkpoint's weights stays"


def test_validation_is_in_the_row_of_the_next_step(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    for num_steps, step in ((0, 0), (1, 0), (2, 1), (3, 3)):  # before, within, within and after a training
        table.trainer = SimpleNamespace(global_step=num_steps)
        table.log_metrics({"val/loss": float(num_steps)}, step=step)
    assert [(row["step"], row["val/loss"]) for row in read_rows(table.file)] == [
        (str(step), str(float(step))) for step in range(4)
    ]


def test_new_table_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    for losses in ([1.0, 2.0], [9.0]):
        table = MetricsTable(file)
        for step, loss in enumerate(losses):
            table.log_metrics({"train/loss": loss}, step=step)
        table.save()
    assert [row["train/loss"] for row in read_rows(file)] == ["9.0"]


def build_trainer(epoch: int, max_steps: int, max_epochs: int = 4) -> Any:
    return SimpleNamespace(
        num_training_batches=20,
        current_epoch=epoch,
        max_steps=max_steps,
        max_epochs=max_epochs,
    )


@pytest.mark.parametrize(
    ("epoch", "max_steps", "num_steps", "text"),
    [
        (0, -1, 20, "epoch 1 of 4"),
        (3, -1, 20, "epoch 4 of 4"),
        (0, 12, 12, "epoch 1 of 1"),
        (0, 30, 20, "epoch 1 of 2"),
        (1, 30, 10, "epoch 2 of 2"),
        (2, 99, 20, "epoch 3 of 4"),
    ],
)
def test_progress_bar_counts_up_to_the_end(epoch: int, max_steps: int, num_steps: int, text: str) -> None:
    trainer = build_trainer(epoch, max_steps)
    assert count_steps_of_epoch(trainer) == num_steps and describe_epoch(trainer) == text


@pytest.mark.parametrize("num_done", [0, 7])
def test_progress_bar_goes_on_within_an_epoch(num_done: int) -> None:
    trainer = build_trainer(0, -1)
    progress = SimpleNamespace(current=SimpleNamespace(ready=num_done))
    trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    bar = build_progress_bar(is_rich=False)
    bar._trainer = trainer
    bar.on_train_start(trainer)
    assert bar.train_progress_bar.n == bar.train_progress_bar.initial == num_done
    total = 20 if num_done else None  # the next hook sets that of an epoch that begins
    assert bar.train_progress_bar.total == total


def test_average_of_a_sharded_model_is_refused() -> None:
    strategy = pl.strategies.ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    with pytest.raises(ValueError, match="callback=ema"):
        TrainableEMA().setup(SimpleNamespace(strategy=strategy), None, "fit")
