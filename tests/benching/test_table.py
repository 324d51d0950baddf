"""The line above the figures."""

import torch

from omnihuman.benching.table import Table, describe_machine, find_commit


def test_machine_is_described() -> None:
    machine = describe_machine()
    assert torch.__version__.startswith(machine["torch"]) and machine["threads"] == torch.get_num_threads()
    assert machine["commit"] == find_commit() and " x " in machine["cpu"]


def test_a_note_has_no_rows() -> None:
    assert Table("a note", ()).format() == "a note\n"


def test_rows_become_mappings() -> None:
    table = Table("two ways", ("way", "ms"), [("ours", 1.0)])
    assert table.to_json() == {"title": "two ways", "rows": [{"way": "ours", "ms": 1.0}]}
