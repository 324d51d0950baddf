"""Safetensors files are written tensor by tensor, and created complete or not at all."""

import json
import os
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from omnihuman.data.feature_store import FeatureStore
from omnihuman.hub.export import open_folder, save_adapter
from omnihuman.official import checkpoint as checkpoint_reader
from omnihuman.official.checkpoint import open_checkpoint
from omnihuman.training.safetensors_writer import Header, order_reads, write_safetensors, write_sharded
from omnihuman.training.shards import has_weights
from omnihuman.training.state import write_state
from omnihuman.types import Features
from tests.official.folders import write_files

STATE = {
    "a.weight": torch.randn(3, 4, dtype=torch.float32),
    "b.weight": torch.randn(5, 2).to(torch.bfloat16),
    "c.bias": torch.randn(7).to(torch.float16),
    "scale": torch.tensor(2.5),
    "ids": torch.arange(3),
    "odd": torch.randn(3).to(torch.bfloat16),
}


def make_headers(dtype: torch.dtype | None = None) -> dict[str, Header]:
    return {key: Header(tuple(tensor.shape), dtype or tensor.dtype) for key, tensor in STATE.items()}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_have_the_mode_of_the_umask(umask: int, tmp_path: Path) -> None:
    """Those of the safetensors library as well, and features of the cache."""
    before = os.umask(umask)
    try:
        write_safetensors(tmp_path / "weights.safetensors", make_headers(), STATE.__getitem__)
        with open_folder(tmp_path / "export") as staging:
            save_adapter({"r": 2}, {"a": torch.zeros(2)}, staging / "adapter")
        (tmp_path / "state").mkdir()
        write_state(tmp_path / "state", {}, {"a": torch.zeros(2)})
        features = Features.of(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, dtype=torch.bool))
        FeatureStore(tmp_path / "features").save("abc", features, [0.0])
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {oct(0o666 & ~umask)}


def test_safetensors_reads_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_safetensors(file, make_headers(), STATE.__getitem__, {"source": "test"})
    loaded, checkpoint = load_file(file), open_checkpoint(file)
    assert set(loaded) == set(checkpoint) == set(STATE)
    for key, tensor in STATE.items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor) and torch.equal(checkpoint[key], tensor)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"source": "test"}


def test_digest_depends_on_the_content(tmp_path: Path) -> None:
    first = write_safetensors(tmp_path / "first", make_headers(), STATE.__getitem__, {"source": "test"})
    assert first == write_safetensors(tmp_path / "again", make_headers(), STATE.__getitem__, {"source": "test"})
    assert first != write_safetensors(tmp_path / "other", make_headers(torch.float32), STATE.__getitem__)
    assert load_file(tmp_path / "other")["b.weight"].dtype == torch.float32


@pytest.mark.parametrize("layout", ["shards", "bin shards"])
def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_reader, "MAX_MAPPED_BYTES", 30)  # so that a pickle is reopened in between
    write_files(tmp_path, STATE, layout)
    checkpoint, alive = open_checkpoint(tmp_path), weakref.WeakSet[torch.Tensor]()

    def read(name: str) -> torch.Tensor:
        assert not alive
        tensor = checkpoint[name].clone()
        alive.add(tensor)
        return tensor

    write_safetensors(tmp_path / "out.safetensors", checkpoint.headers, read)
    loaded = load_file(tmp_path / "out.safetensors")
    for key, tensor in STATE.items():
        assert torch.equal(loaded[key], tensor)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def read(name: str) -> torch.Tensor:
        return torch.ones(2) if name == "odd" else STATE[name]

    with pytest.raises(ValueError, match=r"odd is \(2,\), its header has \(3,\)"):
        write_safetensors(tmp_path / "model.safetensors", make_headers(), read)
    assert list(tmp_path.iterdir()) == []


def test_shards_stay_below_their_limit(tmp_path: Path) -> None:
    headers = make_headers()
    write_sharded(tmp_path / "model.safetensors", headers, STATE.__getitem__, max_shard_size=50)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 3 and files[0].name == "model-00001-of-00003.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(header.nbytes for header in headers.values())
    checkpoint = open_checkpoint(tmp_path)
    for key, tensor in STATE.items():
        assert torch.equal(checkpoint[key], tensor)
    for file in files:
        assert file.stat().st_size < 1000


def test_reads_have_the_announced_order(tmp_path: Path) -> None:
    """The ranks of a sharded model gather in it."""
    headers, reads = make_headers(), list[str]()

    def read(name: str) -> torch.Tensor:
        reads.append(name)
        return STATE[name]

    for size in (50, 10_000):
        reads.clear()
        write_sharded(tmp_path / "model.safetensors", headers, read, max_shard_size=size)
        assert reads == order_reads(headers, size) and {*reads} == {*STATE}


@pytest.mark.parametrize("sizes", [(50, 60), (50, 10_000), (10_000, 50)])
def test_interrupted_write_leaves_the_old_weights_or_none(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """At every tensor."""
    file, headers = tmp_path / "weights.safetensors", make_headers()
    for stop in range(len(STATE) + 1):
        write_sharded(file, headers, STATE.__getitem__, max_shard_size=sizes[0])
        reads = list[str]()

        def read(name: str, reads: list[str] = reads, stop: int = stop) -> torch.Tensor:
            if len(reads) == stop:
                raise KeyboardInterrupt
            reads.append(name)
            return STATE[name] + 1

        expected = 0
        try:
            write_sharded(file, headers, read, max_shard_size=sizes[1])
            expected = 1
        except KeyboardInterrupt:
            pass
        if has_weights(file):
            checkpoint = open_checkpoint(file)
            assert {*checkpoint} == {*STATE}
            assert all(torch.equal(checkpoint[name], STATE[name] + expected) for name in STATE)
        else:
            assert not expected
        assert not list(tmp_path.glob("*.partial"))
