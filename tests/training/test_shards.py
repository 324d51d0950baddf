"""Weights are one file, or shards with an index."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from omnihuman.training.runs import FINISHED, Run
from omnihuman.training.shards import copy_file, copy_weights, delete_weights, find_shards, has_weights
from omnihuman.training.weights import load_weights, read_dtype, save_weights


def write(file: Path, max_shard_size: int) -> nn.Module:
    model = nn.ModuleDict({"projectors": nn.ModuleDict({"face": nn.Linear(2, 3), "body": nn.Linear(2, 3)})})
    save_weights(file, model.state_dict(), model.state_dict(), {"experiment": "x"}, max_shard_size)
    return model


def test_shards_are_read_like_one_file(tmp_path: Path) -> None:
    for number, size in enumerate((1000, 30)):
        file = tmp_path / f"{number}.safetensors"
        saved, model = write(file, size), write(tmp_path / "other.safetensors", size)
        report = load_weights(model, file, "projectors.face.*")
        assert (len(report.loaded), len(report.ignored)) == (2, 2)
        assert torch.equal(model["projectors"]["face"].weight, saved["projectors"]["face"].weight)
        assert read_dtype(file) == "float32" and has_weights(file)
        with pytest.raises(ValueError, match=r"'fusions\.\*'; .*projectors\.body"):
            load_weights(model, file, "fusions.*")
    assert len(find_shards(file)) == 4 and not file.exists()


def test_run_with_shards_is_complete(tmp_path: Path) -> None:
    run = Run(tmp_path, "")
    write(run.weights, 30)
    (tmp_path / FINISHED).touch()
    assert run.is_complete()
    delete_weights(run.weights)
    assert not run.is_complete() and [path.name for path in tmp_path.iterdir()] == [FINISHED]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a-00002-of-00004.safetensors").unlink(), r"a-00002-of-00004\.safetensors.*missing"),
        (lambda folder: (folder / "a.safetensors.index.json").write_text("[]"), r"index\.json .*copy it"),
        (lambda folder: (folder / "a.safetensors.index.json").unlink(), r"a\.safetensors: .*no such"),
        (lambda folder: (folder / "a-00001-of-00004.safetensors").write_bytes(b"x"), r"a-00001.*complete"),
        (
            lambda folder: copy_file(folder / "a-00001-of-00004.safetensors", folder / "a-00002-of-00004.safetensors"),
            r"projectors\.body\.bias.*two shards",
        ),
        (
            lambda folder: (folder / "a.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'),
            r"'\.\./b': .*folder",
        ),
    ],
)
def test_damaged_shards_are_named(tmp_path: Path, damage: object, message: str) -> None:
    model = write(tmp_path / "a.safetensors", 30)
    assert callable(damage)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "a.safetensors")


@pytest.mark.parametrize("sizes", [(1000, 30), (30, 1000), (30, 36)])
def test_copy_replaces_what_was_there(tmp_path: Path, sizes: tuple[int, int]) -> None:
    source, target = tmp_path / "best" / "step=3.safetensors", tmp_path / "weights.safetensors"
    source.parent.mkdir()
    write(target, sizes[0])
    saved = write(source, sizes[1])
    model = write(tmp_path / "other.safetensors", 1000)
    copy_weights(source, target)
    load_weights(model, target)
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in model.state_dict().items())
    shards = find_shards(target)
    names = {path.name for path in tmp_path.glob("weights*")}
    assert names == {shard.name for shard in shards} | ({"weights.safetensors.index.json"} if shards[1:] else set())
    if shards[1:]:
        index = json.loads((tmp_path / "weights.safetensors.index.json").read_text())
        assert {*index["weight_map"].values()} == {shard.name for shard in shards}


def test_copy_needs_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("1")
    for _ in range(2):
        copy_file(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(Path, "hardlink_to", lambda *args: (_ for _ in ()).throw(OSError("no links")))
    copy_file(tmp_path / "a", tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"] and (tmp_path / "c").read_text() == "1"
