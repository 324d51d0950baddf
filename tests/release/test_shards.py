"""Checkpoints are read tensor by tensor, and what is wrong with their files is said by name."""

import json
import os
import pickle
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from omnihuman.release import shards
from omnihuman.release.shards import Header, adapters, open_checkpoint
from omnihuman.release.writing import write_safetensors, write_sharded
from tests.release.official import write_files

STATE = {
    "a.weight": torch.randn(3, 4, dtype=torch.float32),
    "b.weight": torch.randn(5, 2).to(torch.bfloat16),
    "c.bias": torch.randn(7).to(torch.float16),
    "scale": torch.tensor(2.5),
    "ids": torch.arange(3),
    "odd": torch.randn(3).to(torch.bfloat16),
}


@pytest.mark.parametrize("layout", ["shards", "single", "bin", "bin shards"])
def test_every_layout_is_the_same_mapping(tmp_path: Path, layout: str) -> None:
    write_files(tmp_path, STATE, layout)
    found = open_checkpoint(tmp_path)
    assert set(found) == set(STATE)
    for key, tensor in STATE.items():
        assert found.headers[key][:2] == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype


def test_shards_without_an_index_and_files_of_another_time(tmp_path: Path) -> None:
    write_files(tmp_path, STATE)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert set(open_checkpoint(tmp_path)) == set(STATE)
    old = tmp_path / "old.pt"
    torch.save({"epoch": 3, "model": STATE}, old, _use_new_zipfile_serialization=False)
    assert torch.equal(open_checkpoint(old, inside=("model",))["b.weight"], STATE["b.weight"])


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    """A file of 200 GB, all of it a hole."""
    size, file = 200 * 2**30, tmp_path / "model.safetensors"
    ends = {"first": (0, 8), "hole": (8, 8 + size), "last": (8 + size, 16 + size)}
    said = {
        key: {"dtype": "BF16", "shape": [(end - start) // 2], "data_offsets": [start, end]}
        for key, (start, end) in ends.items()
    }
    text = json.dumps(said).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + 16 + size)
    found = open_checkpoint(tmp_path)
    assert found.headers["hole"].nbytes == size
    assert found["last"].tolist() == [0, 0, 0, 0]


def broken(folder: Path, how: str) -> None:
    """A folder of three shards with one thing wrong."""
    write_files(folder, STATE)
    index = folder / "model.safetensors.index.json"
    first, second, third = sorted(folder.glob("*.safetensors"))
    said = json.loads(index.read_text())
    if how == "cut":
        second.write_bytes(second.read_bytes()[:-3])
    elif how == "cut header":
        second.write_bytes(second.read_bytes()[:20])
    elif how == "missing":
        second.unlink()
    elif how == "missing, no index":
        second.unlink()
        index.unlink()
    elif how == "twice":
        save_file(load_file(first) | load_file(second), second)
    elif how == "elsewhere":
        said["weight_map"]["gone"] = third.name
        index.write_text(json.dumps(said))
    elif how == "outside":
        said["weight_map"]["ids"] = "../else.safetensors"
        index.write_text(json.dumps(said))
    elif how == "sizes":
        third.write_bytes(third.read_bytes().replace(b'"shape":[3]', b'"shape":[4]', 1))
    elif how == "lfs":
        third.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4000000000\n")
    elif how == "int8":
        save_file({"q.weight": torch.ones(2, 2, dtype=torch.int8)}, third)
    elif how == "float8":
        save_file({"q.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, third)
    elif how == "zero":
        save_file({"q.weight": torch.ones(0)}, third)
    elif how == "empty":
        for file in folder.iterdir():
            file.unlink()
    elif how == "no json":
        index.write_text("{")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "00002-of-00003.safetensors is cut short: its header promises"),
        ("cut header", "cut short within its header"),
        ("missing", "index.json names model-00002-of-00003.safetensors, which is not there: download it, 3 shards"),
        ("missing, no index", "holds 2 of 3 shards"),
        ("twice", "stands in two shards, model-00001-of-00003.safetensors and model-00002"),
        ("elsewhere", "the index says that gone stands in model-00003-of-00003.safetensors, it stands in no shard"),
        ("outside", "shards lie beside their index"),
        ("sizes", r"promises \d+ bytes for scale|promises \d+ bytes for odd"),
        ("lfs", "is a pointer of Git LFS, not the file"),
        ("int8", "q.weight is I8: a quantised checkpoint"),
        ("float8", "q.weight is F8_E4M3: a quantised checkpoint"),
        ("zero", "q.weight is empty, .*ZeRO-3"),
        ("empty", "holds no checkpoint .* it is empty"),
        ("no json", "is no JSON"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, how: str, words: str) -> None:
    broken(tmp_path, how)
    with pytest.raises(ValueError, match=words):
        open_checkpoint(tmp_path)


class Code:
    """Whoever unpickles this touches a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    touched, file = tmp_path / "touched", tmp_path / "pytorch_model.bin"
    if zipped:
        torch.save({"a": Code(touched)}, file)
    else:
        file.write_bytes(pickle.dumps({"a": Code(touched)}))
    with pytest.raises(ValueError, match="other pickles are never read"):
        open_checkpoint(tmp_path)
    assert not touched.exists()
    pickle.loads(pickle.dumps(Code(touched)))
    assert touched.exists()  # it would have been


def test_cut_pickles_and_what_they_hold_besides(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save(STATE, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no plain checkpoint"):
        open_checkpoint(tmp_path)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="holds no names with tensors, it has list"):
        open_checkpoint(tmp_path)


def test_what_is_no_path_and_a_hub_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no such folder or file, and it is no hub id"):
        open_checkpoint(tmp_path / "nothing")

    def away(*args: object, **options: object) -> str:
        raise OSError("cannot be reached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", away)
    with pytest.raises(ValueError, match=r"the hub did not give it .*cannot be reached.*hf download a/b"):
        open_checkpoint("a/b")


def test_a_part_alone_says_where_it_belongs(tmp_path: Path) -> None:
    torch.save({"model.mm_projector.a": torch.ones(2)}, tmp_path / "mm_projector.bin")
    with pytest.raises(ValueError, match=r"holds mm_projector alone, which goes into the folder of the model"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is a LoRA adapter, which has to be merged"):
        open_checkpoint(tmp_path)


def test_the_hub_is_asked_for_the_parts_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HumanOmni-7B-Audio has its audio_projector.bin beside safetensors."""
    write_files(tmp_path, STATE)
    asked = list[str]()

    def give(path: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", give)
    open_checkpoint("a/b")
    assert "audio_projector.bin" in asked and "*.bin" not in asked


def test_adapters_lie_beside(tmp_path: Path) -> None:
    write_files(tmp_path, STATE)
    torch.save({"model.audio_projector.0.bias": torch.ones(2)}, tmp_path / "audio_projector.bin")
    assert set(open_checkpoint(tmp_path)) == set(STATE)
    assert adapters(tmp_path) == {"audio_projector": tmp_path / "audio_projector.bin"}


def headers(dtype: torch.dtype | None = None) -> dict[str, Header]:
    return {key: Header(tuple(tensor.shape), dtype or tensor.dtype) for key, tensor in STATE.items()}


def test_what_is_written_is_what_safetensors_reads(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    digest = write_safetensors(file, headers(), STATE.__getitem__, {"source": "test"})
    back = load_file(file)
    assert set(back) == set(STATE)
    for key, tensor in STATE.items():
        assert back[key].dtype == tensor.dtype and torch.equal(back[key], tensor)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"source": "test"}
    assert digest == write_safetensors(tmp_path / "again", headers(), STATE.__getitem__, {"source": "test"})
    assert digest != write_safetensors(tmp_path / "other", headers(torch.float32), STATE.__getitem__)
    assert load_file(tmp_path / "other")["b.weight"].dtype == torch.float32
    plain = open_checkpoint(file)
    assert all(torch.equal(plain[key], tensor) for key, tensor in STATE.items())


@pytest.mark.parametrize("layout", ["shards", "bin shards"])
def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAPPED", 30)  # so that a pickle is opened anew in between
    write_files(tmp_path, STATE, layout)
    found, alive = open_checkpoint(tmp_path), weakref.WeakSet[torch.Tensor]()

    def read(name: str) -> torch.Tensor:
        assert not alive
        tensor = found[name].clone()
        alive.add(tensor)
        return tensor

    write_safetensors(tmp_path / "out.safetensors", found.headers, read)
    back = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(back[key], tensor) for key, tensor in STATE.items())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def read(name: str) -> torch.Tensor:
        return torch.ones(2) if name == "odd" else STATE[name]

    with pytest.raises(ValueError, match=r"odd is \(2,\), it was announced as \(3,\)"):
        write_safetensors(tmp_path / "model.safetensors", headers(), read)
    assert list(tmp_path.iterdir()) == []


def test_shards_of_a_limit(tmp_path: Path) -> None:
    files = write_sharded(tmp_path, headers(), STATE.__getitem__, limit=50)
    assert len(files) == 3 and files[0].name == "model-00001-of-00003.safetensors"
    said = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert said["metadata"]["total_size"] == sum(header.nbytes for header in headers().values())
    found = open_checkpoint(tmp_path)
    assert all(torch.equal(found[key], tensor) for key, tensor in STATE.items())
    assert all(file.stat().st_size < 1000 for file in files)
