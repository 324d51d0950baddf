"""The table of metrics and the account of samples."""

import csv
from pathlib import Path

from omnihuman.training.callbacks import Account, MetricsTable


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_metrics_of_one_step_share_a_row_and_columns_grow(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.log_metrics({"train/loss": 2.0}, step=0)
    table.log_metrics({"train/loss": 1.0}, step=1)
    table.log_metrics({"val/loss": 1.5}, step=1)
    assert rows(table.file) == [
        {"step": "0", "train/loss": "2.0", "val/loss": ""},
        {"step": "1", "train/loss": "1.0", "val/loss": "1.5"},
    ]


def test_a_resumed_table_goes_on_where_the_checkpoint_stands(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    first = MetricsTable(file)
    for step in range(5):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.save()
    second = MetricsTable(file, resume_at=3)
    second.log_metrics({"train/loss": 30.0}, step=3)
    second.save()
    assert [row["train/loss"] for row in rows(file)] == ["0.0", "1.0", "2.0", "30.0"]
    third = MetricsTable(file)  # not resumed: a new run
    third.log_metrics({"train/loss": 9.0}, step=0)
    third.save()
    assert len(rows(file)) == 1


def test_every_skip_is_counted_and_written_down(tmp_path: Path) -> None:
    account = Account(tmp_path / "skipped.jsonl")
    account.note([{"id": "a", "reason": "truncated", "message": "cut"}, {"id": "b", "reason": "truncated"}])
    account.note([])
    assert account.totals() == (0, {"truncated": 2})
    assert len(account.file.read_text().splitlines()) == 2
    other = Account(account.file)
    other.load_state_dict(account.state_dict())
    assert other.totals() == account.totals()
