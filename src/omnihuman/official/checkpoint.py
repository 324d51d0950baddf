"""Reading checkpoints tensor by tensor, in every file layout.

``open_checkpoint(path)`` returns a ``Checkpoint``: a mapping of keys to tensors that has every shape and dtype
(``headers``) without reading data, and reads one tensor per access. ``write_safetensors`` of ``omnihuman.training`` is
its counterpart. ``conversion.convert`` joins them: an official model is a folder whose ``read.py`` has
``prepare(request, folder) -> Conversion``, listed in ``conversion.FOLDERS``. It decides by names, shapes and
configurations alone, and tensors are copied once, after all checks. A reader that must change a tensor subclasses
``Checkpoint``.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnihuman.gate import load_pickle
from omnihuman.nn.finite import check_finite
from omnihuman.official.keys import unwrap
from omnihuman.training.safetensors_writer import DTYPES, Header
from omnihuman.training.shards import find_shards, has_weights

ADAPTER_FILES = ("mm_projector.bin", "audio_projector.bin", "mm_projector.safetensors", "audio_projector.safetensors")
"""Files that hold one part of a model, beside its checkpoint or without one."""

FORMATS = {".safetensors": "safetensors", ".bin": "pickle", ".pt": "pickle", ".pth": "pickle"}

MAX_MAPPED_BYTES = 2**29
"""Bytes read from a memory-mapped pickle before it is reopened: pages of a mapped file count as memory once read."""


class Checkpoint(Mapping[str, Tensor]):
    """Keys -> tensors of one or more files; every access reads the tensor from disk, nothing is cached.

    A tensor that is not finite raises ``ValueError`` when it is read.

    Args:
        path: of the folder or file, for messages.
        headers: of all tensors.
        wrappers: see ``open_checkpoint``.
    """

    def __init__(self, path: Path, headers: Mapping[str, Header], wrappers: Sequence[str] = ()) -> None:
        self.path, self.headers, self.wrappers = path, dict(headers), tuple(wrappers)
        self._open: tuple[Path, Mapping[str, Tensor]] | None = None
        self._mapped_bytes = 0

    def __getitem__(self, key: str) -> Tensor:
        header = self.headers[key]
        tensor = self._read(key, header)
        check_finite(header.file, key, tensor)
        return tensor

    def _read(self, key: str, header: Header) -> Tensor:
        file = header.file
        if _file_format(file) == "safetensors":  # read, not mapped: mapping fails for a file larger than memory
            shape, dtype, _, start = header
            data = np.fromfile(file, np.uint8, header.nbytes, offset=start)
            return torch.from_numpy(data).view(dtype).reshape(shape)
        if self._open is None or self._open[0] != file or self._mapped_bytes > MAX_MAPPED_BYTES:
            self._open, self._mapped_bytes = None, 0  # before loading, so that two shards are never in memory
            self._open = (file, _load_tensors(file, self.wrappers))
        self._mapped_bytes += header.nbytes
        return self._open[1][key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def folder(self) -> Path:
        """The folder of its configuration and tokenizer."""
        return self.path if self.path.is_dir() else self.path.parent

    def has_prefix(self, prefix: str) -> bool:
        """Return whether a key has the prefix."""
        return any(key.startswith(prefix) for key in self.headers)

    def select_prefix(self, prefix: str) -> "Checkpoint":
        """Return the tensors whose keys have the prefix, without it."""
        headers = {key.removeprefix(prefix): header for key, header in self.headers.items() if key.startswith(prefix)}
        return _PrefixView(self, headers, prefix)


class _PrefixView(Checkpoint):
    def __init__(self, checkpoint: Checkpoint, headers: Mapping[str, Header], prefix: str) -> None:
        super().__init__(checkpoint.path, headers, checkpoint.wrappers)
        self._checkpoint, self._prefix = checkpoint, prefix

    def __getitem__(self, key: str) -> Tensor:
        return self._checkpoint[self._prefix + key]


def resolve_path(path: str | Path) -> Path:
    """Return the folder or file of a path, or the local snapshot of the hub's model with that id.

    Raises:
        ValueError: the path does not exist, and it is not a hub id or the download fails.
    """
    local = Path(path).expanduser()
    if local.exists():
        return local
    if str(path).count("/") != 1 or str(path).startswith((".", "~", "/")):
        raise ValueError(f"{path}: no such folder or file, and not a hub id (owner/name) either.")
    from huggingface_hub import snapshot_download

    small_files = ["*.json", "*.txt", "*.model", "*.jinja", "tokenizer*", *ADAPTER_FILES]
    try:
        folder = Path(snapshot_download(str(path), allow_patterns=[*small_files, "*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(path), allow_patterns=[*small_files, "*.bin", "*.pt", "*.pth"]))
    except (OSError, ValueError) as error:  # hub errors are OSErrors, a bad id is a ValueError
        raise ValueError(
            f"{path}: no such folder, and the download from the hub failed ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Download it elsewhere (hf download {path}) and give the folder."
        ) from error
    return folder


def resolve_option(options: Mapping[str, Any], key: str, default: str) -> Path:
    """Return the local path of an option or, if it is not set, of its default hub id.

    Raises:
        ValueError: the path does not exist; the message names the option.
    """
    try:
        return resolve_path(options.get(key) or default)
    except ValueError as error:
        raise ValueError(f"{error} Give {key}=<folder or hub id>.") from error


def find_single_file(path: str) -> Path:
    """Return the file of that path, or the only ``.pt`` or ``.pth`` file of that folder or repository.

    Raises:
        ValueError: the folder has no such file, or several.
    """
    local = resolve_path(path)
    if local.is_file():
        return local
    files = sorted([*local.rglob("*.pt"), *local.rglob("*.pth")])
    if len(files) != 1:
        listed = ", ".join(str(file.relative_to(local)) for file in files[:6]) or "none"
        raise ValueError(f"{local} has {len(files)} files .pt or .pth ({listed}): give path=<one of them>.")
    return files[0]


def open_checkpoint(path: str | Path, wrappers: Sequence[str] = ()) -> Checkpoint:
    """Open a folder, file or hub id as a mapping of tensors; only names, shapes and dtypes are read.

    A folder may have ``model.safetensors`` or ``pytorch_model.bin``, in one file or in shards, with or without their
    index; safetensors come first. Adapter files beside them are not read, ``find_adapters`` returns them.

    Args:
        path: folder, file or hub id.
        wrappers: names of entries that may wrap the state dict of a pickle, as ``model`` does in ``{"model": state}``.

    Raises:
        ValueError: no checkpoint exists there, a shard is missing, cut short, a Git LFS pointer or a pickle with code,
            the index contradicts the shards, or the tensors are quantised or empty.
    """
    local = Path(path) if has_weights(Path(path)) else resolve_path(path)
    files, index = _find_files(local) if local.is_dir() else (find_shards(local), {})
    headers: dict[str, Header] = {}
    for file in files:
        for key, header in _read_headers(file, wrappers).items():
            if key in headers:
                raise ValueError(
                    f"{local}: {key} is in two shards, {headers[key].file.name} and {file.name}: are these files "
                    "of one checkpoint? Remove those that are not in the index."
                )
            headers[key] = header
    _check_index(local, index, headers)
    return Checkpoint(local, headers, wrappers)


def find_adapters(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that hold one part alone, by part (``mm_projector``, ``audio_projector``)."""
    return {name.partition(".")[0]: folder / name for name in ADAPTER_FILES if (folder / name).is_file()}


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return the fields of a folder's configuration.

    Raises:
        ValueError: the file is missing, or not a JSON object.
    """
    file = folder / name
    if not file.is_file():
        raise ValueError(f"{folder} has no {name}, the configuration of its weights: take it from the same download.")
    try:
        fields = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{file} holds a {type(fields).__name__}; expected an object.")
    return fields


def _check_index(folder: Path, index: Mapping[str, str], headers: Mapping[str, Header]) -> None:
    for key, name in index.items():
        actual = headers[key].file.name if key in headers else "no shard"
        if actual != name:
            raise ValueError(
                f"{folder}: the index has {key} in {name}, but it is in {actual}: take both from the same download."
            )


def _find_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the weight files of a folder, and key -> file name of its index (empty without an index)."""
    for suffix in ("safetensors", "bin"):
        for index in sorted(folder.glob(f"*.{suffix}.index.json")):
            weight_map = read_config(folder, index.name).get("weight_map", {})
            if weight_map:
                return _resolve_shards(index, weight_map), weight_map
        shards = sorted(folder.glob(f"*-of-*.{suffix}"))
        if shards:
            num_shards = int(shards[0].stem.rpartition("-of-")[2])
            if len(shards) != num_shards:
                names = ", ".join(shard.name for shard in shards)
                raise ValueError(f"{folder} has {len(shards)} of {num_shards} shards ({names}): download the others.")
            return shards, {}
        for stem in ("model", "pytorch_model"):
            if (folder / f"{stem}.{suffix}").is_file():
                return [folder / f"{stem}.{suffix}"], {}
    raise ValueError(
        f"{folder} has no checkpoint (model.safetensors, pytorch_model.bin, or shards of them): "
        f"{_describe_content(folder)}"
    )


def _resolve_shards(index: Path, weight_map: Mapping[str, str]) -> list[Path]:
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} names {name!r}: shards must be in the folder of their index.")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index} names {name}, which is missing: download it, {len(names)} shards are needed.")
    return [index.parent / name for name in names]


def _describe_content(folder: Path) -> str:
    """Return the content of a folder without a checkpoint and, if it is recognized, the cure."""
    if (folder / "adapter_config.json").is_file():
        return "it is a LoRA adapter, which must be merged into its base model first."
    parts = find_adapters(folder)
    if parts:
        return f"it has {', '.join(parts)} alone, which belongs into the folder of the model that it was trained with."
    names = sorted(path.name for path in folder.iterdir())[:6]
    return f"it has {', '.join(names)}." if names else "it is empty."


def _file_format(file: Path) -> str:
    if file.suffix not in FORMATS:
        raise ValueError(f"{file}: expected a checkpoint file with suffix {', '.join(FORMATS)}.")
    return FORMATS[file.suffix]


def _read_headers(file: Path, wrappers: Sequence[str]) -> dict[str, Header]:
    """Return the headers of a file's tensors."""
    with file.open("rb") as stream:
        if stream.read(23) == b"version https://git-lfs":
            raise ValueError(
                f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` there, or download with "
                "`hf download`."
            )
    if _file_format(file) == "safetensors":
        headers = _read_safetensors_headers(file)
    else:
        headers = {}
        for key, tensor in _load_tensors(file, wrappers).items():
            headers[key] = Header(tuple(tensor.shape), tensor.dtype, file)
    for key, header in headers.items():
        if header.dtype not in DTYPES.values():
            raise ValueError(
                f"{file}: {key} is {str(header.dtype).removeprefix('torch.')}: a quantised checkpoint cannot be "
                "converted. Take the original one in bfloat16, float16 or float32."
            )
        if 0 in header.shape:
            raise ValueError(
                f"{file}: {key} is empty, {list(header.shape)}: it was saved under ZeRO-3 without gathering. Save it "
                "again, or run zero_to_fp32.py of its checkpoint."
            )
    return headers


def _read_safetensors_headers(file: Path) -> dict[str, Header]:
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        offset = 8 + length
        end = offset + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{file} is not a safetensors file, or is cut short within its header ({error}).") from error
    if end != size:
        problem = "cut short" if size < end else "too long"
        raise ValueError(f"{file} is {problem}: expected {end} bytes by its header, got {size}. Download it again.")
    headers = {}
    for key, entry in entries.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{file}: {key} is {entry['dtype']}: a quantised checkpoint cannot be converted. Take the original one "
                "in BF16, F16 or F32."
            )
        first, last = entry["data_offsets"]
        headers[key] = Header(tuple(entry["shape"]), DTYPES[entry["dtype"]], file, offset + first)
        if headers[key].nbytes != last - first:
            raise ValueError(f"{file}: its header has {last - first} bytes for {key}, but it is {entry}.")
    return headers


def _load_tensors(file: Path, wrappers: Sequence[str]) -> dict[str, Tensor]:
    """Load the tensors of a pickle, memory-mapped if the file format allows it."""
    content = unwrap(load_pickle(file, mmap=True), wrappers)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} has no state dict, it is a {type(content).__name__}.")
    tensors = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{file} has no state dict, it has {list(content)[:3]}.")
    return tensors
