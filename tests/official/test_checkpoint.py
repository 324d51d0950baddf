"""Checkpoints are read tensor by tensor, and errors name the broken file."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnihuman.official.checkpoint import find_adapters, open_checkpoint
from tests.official.folders import write_files

STATE = {
    "a.weight": torch.randn(3, 4, dtype=torch.float32),
    "b.weight": torch.randn(5, 2).to(torch.bfloat16),
    "c.bias": torch.randn(7).to(torch.float16),
    "scale": torch.tensor(2.5),
    "ids": torch.arange(3),
    "odd": torch.randn(3).to(torch.bfloat16),
}


@pytest.mark.parametrize("layout", ["shards", "single", "bin", "bin shards"])
def test_every_layout_gives_the_same_mapping(tmp_path: Path, layout: str) -> None:
    write_files(tmp_path, STATE, layout)
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == set(STATE)
    for key, tensor in STATE.items():
        assert checkpoint.headers[key][:2] == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(checkpoint[key], tensor) and checkpoint[key].dtype == tensor.dtype


def test_shards_without_an_index(tmp_path: Path) -> None:
    write_files(tmp_path, STATE)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert set(open_checkpoint(tmp_path)) == set(STATE)


def test_pickles_in_the_old_format(tmp_path: Path) -> None:
    file = tmp_path / "old.pt"
    torch.save({"epoch": 3, "model": STATE}, file, _use_new_zipfile_serialization=False)
    assert torch.equal(open_checkpoint(file, wrappers=("model",))["b.weight"], STATE["b.weight"])


def test_only_requested_data_is_read(tmp_path: Path) -> None:
    """A sparse file of 200 GB."""
    size, file = 200 * 2**30, tmp_path / "model.safetensors"
    header = {
        "first": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
        "large": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [8, 8 + size]},
        "last": {"dtype": "BF16", "shape": [4], "data_offsets": [8 + size, 16 + size]},
    }
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + 16 + size)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.headers["large"].nbytes == size
    assert checkpoint["last"].tolist() == [0, 0, 0, 0]


def change_weight_map(index: Path, key: str, file: str) -> None:
    content = json.loads(index.read_text())
    content["weight_map"][key] = file
    index.write_text(json.dumps(content))


def break_shards(folder: Path, fault: str) -> None:
    """Break a folder of three shards; see also ``replace_last_shard``."""
    index = folder / "model.safetensors.index.json"
    first, second, third = sorted(folder.glob("*.safetensors"))
    if fault == "cut":
        second.write_bytes(second.read_bytes()[:-3])
    elif fault == "cut header":
        second.write_bytes(second.read_bytes()[:20])
    elif fault == "missing":
        second.unlink()
    elif fault == "missing, no index":
        second.unlink()
        index.unlink()
    elif fault == "duplicate":
        save_file(load_file(first) | load_file(second), second)
    elif fault == "unknown key":
        change_weight_map(index, "unknown", third.name)
    elif fault == "outside":
        change_weight_map(index, "ids", "../else.safetensors")
    elif fault == "no json":
        index.write_text("{")
    else:
        replace_last_shard(third, fault)


def replace_last_shard(file: Path, fault: str) -> None:
    if fault == "sizes":
        file.write_bytes(file.read_bytes().replace(b'"shape":[3]', b'"shape":[4]', 1))
    elif fault == "lfs":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4000000000\n")
    elif fault == "int8":
        save_file({"q.weight": torch.ones(2, 2, dtype=torch.int8)}, file)
    elif fault == "float8":
        save_file({"q.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, file)
    else:
        assert fault == "zero"
        save_file({"q.weight": torch.ones(0)}, file)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cut", r"00002-of-00003\.safetensors .*cut short: .*bytes"),
        ("cut header", r"00002-of-00003\.safetensors .*cut short .*header"),
        ("missing", r"index\.json names model-00002-of-00003\.safetensors.*missing.*\b3 shards"),
        ("missing, no index", "has 2 of 3 shards"),
        ("duplicate", r"two shards.*model-00001-of-00003\.safetensors and model-00002"),
        ("unknown key", r"unknown in model-00003-of-00003\.safetensors.* no shard"),
        ("outside", r"index\.json names '.*'.*folder"),
        ("sizes", r"has \d+ bytes for scale|has \d+ bytes for odd"),
        ("lfs", "Git LFS pointer.*`git lfs pull`"),
        ("int8", r"q\.weight is I8: .*quantised"),
        ("float8", r"q\.weight is F8_E4M3: .*quantised"),
        ("zero", "q.weight is empty, .*ZeRO-3"),
        ("no json", "is not valid JSON"),
    ],
)
def test_broken_shards_raise(tmp_path: Path, fault: str, message: str) -> None:
    write_files(tmp_path, STATE)
    break_shards(tmp_path, fault)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path)


def test_empty_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint \(model\.safetensors.*\bempty"):
        open_checkpoint(tmp_path)


class TouchOnUnpickle:
    """Unpickling an instance touches a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_pickle_raises_and_never_runs(tmp_path: Path, is_zip: bool) -> None:
    marker, file = tmp_path / "marker", tmp_path / "pytorch_model.bin"
    if is_zip:
        torch.save({"a": TouchOnUnpickle(marker)}, file)
    else:
        file.write_bytes(pickle.dumps({"a": TouchOnUnpickle(marker)}))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin .*pickles .*torch\.save"):
        open_checkpoint(tmp_path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(TouchOnUnpickle(marker)))
    assert marker.exists()  # the control: plain unpickling runs the code


def test_pickles_without_a_state_dict_raise(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save(STATE, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"pytorch_model\.bin .*plain checkpoint"):
        open_checkpoint(tmp_path)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match=r"no state dict.*\blist"):
        open_checkpoint(tmp_path)
    torch.save({"epoch": 3}, file)
    with pytest.raises(ValueError, match=r"no state dict.*\['epoch'\]"):
        open_checkpoint(tmp_path)


def test_unknown_path_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing: no such folder.*hub id"):
        open_checkpoint(tmp_path / "nothing")


def test_failed_download_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **options: object) -> str:
        raise OSError("cannot be reached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ValueError, match=r"a/b: .*download .*cannot be reached.*hf download a/b"):
        open_checkpoint("a/b")


def test_folder_with_one_part_raises(tmp_path: Path) -> None:
    torch.save({"model.mm_projector.a": torch.ones(2)}, tmp_path / "mm_projector.bin")
    with pytest.raises(ValueError, match=r"mm_projector alone.*folder"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"LoRA adapter.*merged"):
        open_checkpoint(tmp_path)


def test_adapter_files_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HumanOmni-7B-Audio has its audio_projector.bin beside safetensors."""
    write_files(tmp_path, STATE)
    patterns = list[str]()

    def download(path: str, allow_patterns: list[str]) -> str:
        patterns.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    open_checkpoint("a/b")
    assert "audio_projector.bin" in patterns and "*.bin" not in patterns


def test_adapter_files_are_separate(tmp_path: Path) -> None:
    write_files(tmp_path, STATE)
    torch.save({"model.audio_projector.0.bias": torch.ones(2)}, tmp_path / "audio_projector.bin")
    assert set(open_checkpoint(tmp_path)) == set(STATE)
    assert find_adapters(tmp_path) == {"audio_projector": tmp_path / "audio_projector.bin"}


def test_tensor_that_is_not_finite_is_refused_when_it_is_read(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(2), "b.weight": torch.tensor([1.0, float("inf")])}
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "model.bin")
    for name in ("model.safetensors", "model.bin"):
        checkpoint = open_checkpoint(tmp_path / name)
        assert torch.equal(checkpoint["a.weight"], state["a.weight"])
        with pytest.raises(ValueError, match=rf"{name}: b\.weight"):
            checkpoint.select_prefix("b.")["weight"]
