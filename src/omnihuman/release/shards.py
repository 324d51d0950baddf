"""Checkpoints read tensor by tensor, whatever files they are in.

``open_checkpoint(path)`` gives a ``Checkpoint``: a mapping of keys to tensors that knows every shape and dtype
(``headers``) without reading data, and reads one tensor when it is asked for one. ``writing.write_safetensors`` is its
counterpart. ``convert.convert`` joins them: a source is a module with ``plan(request, folder) -> Plan``, named in
``convert.SOURCES``; it decides by names, shapes and configurations alone, and tensors flow once, when the plan holds. A
source that must change a tensor subclasses ``Checkpoint``.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from omnihuman.convert.checkpoint import unpickle

ADAPTERS = ("mm_projector.bin", "audio_projector.bin", "mm_projector.safetensors", "audio_projector.safetensors")
"""Files beside or in place of a checkpoint that hold one part of it."""

SUFFIXES = {".safetensors": "safetensors", ".bin": "pickle", ".pt": "pickle", ".pth": "pickle"}

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "BOOL": torch.bool,
}  # fmt: skip
"""What safetensors calls the types that are read. Weights are floats; the others are positions, masks and counters."""

MAPPED = 2**29
"""Bytes after which a pickle is opened anew: what has been read of a mapped file counts as memory."""


class Header(NamedTuple):
    """What is known of a tensor before it is read or written; ``file`` holds it, from ``start`` on."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path = Path()
    start: int = 0

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Checkpoint(Mapping[str, Tensor]):
    """Keys -> tensors of one or more files; a tensor is read when it is asked for, and not kept.

    Args:
        path: of the folder or file, for messages.
        headers: of all tensors.
        inside: see ``open_checkpoint``.
    """

    def __init__(self, path: Path, headers: Mapping[str, Header], inside: Sequence[str] = ()) -> None:
        self.path, self.headers, self.inside = path, dict(headers), tuple(inside)
        self._open: tuple[Path, Mapping[str, Tensor]] | None = None
        self._mapped = 0

    def __getitem__(self, key: str) -> Tensor:
        header = self.headers[key]
        file = header.file
        if _kind(file) == "safetensors":  # read and not mapped, which fails where a file is larger than memory
            shape, dtype, _, start = header
            data = np.fromfile(file, np.uint8, header.nbytes, offset=start)
            return torch.from_numpy(data).view(dtype).reshape(shape)
        if self._open is None or self._open[0] != file or self._mapped > MAPPED:
            self._open, self._mapped = None, 0  # first, so that two shards never lie in memory
            self._open = (file, _tensors(file, self.inside))
        self._mapped += header.nbytes
        return self._open[1][key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def folder(self) -> Path:
        """Where its configuration and tokenizer lie."""
        return self.path if self.path.is_dir() else self.path.parent

    def under(self, prefix: str) -> "Checkpoint":
        """The tensors whose keys begin so, without the beginning."""
        found = {key.removeprefix(prefix): each for key, each in self.headers.items() if key.startswith(prefix)}
        return _Renamed(self, found, prefix)


class _Renamed(Checkpoint):
    def __init__(self, whole: Checkpoint, headers: Mapping[str, Header], prefix: str) -> None:
        super().__init__(whole.path, headers, whole.inside)
        self._whole, self._prefix = whole, prefix

    def __getitem__(self, key: str) -> Tensor:
        return self._whole[self._prefix + key]


def local(path: str | Path) -> Path:
    """The folder or file of that path, or where the hub's model of that id has been downloaded to.

    Raises:
        ValueError: there is no such path, and it is no id or the hub cannot be reached.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    if str(path).count("/") != 1 or str(path).startswith((".", "~", "/")):
        raise ValueError(f"{path}: there is no such folder or file, and it is no hub id (owner/name) either.")
    from huggingface_hub import snapshot_download

    beside = ["*.json", "*.txt", "*.model", "*.jinja", "tokenizer*", *ADAPTERS]
    try:
        folder = Path(snapshot_download(str(path), allow_patterns=[*beside, "*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(path), allow_patterns=[*beside, "*.bin", "*.pt", "*.pth"]))
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors, of a bad id ValueErrors
        raise ValueError(
            f"{path}: there is no such folder, and the hub did not give it ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Download it elsewhere (hf download {path}) and give the folder."
        ) from error
    return folder


def open_checkpoint(path: str | Path, inside: Sequence[str] = ()) -> Checkpoint:
    """A folder, file or hub id -> its tensors, of which only names, shapes and dtypes are read.

    A folder may hold ``model.safetensors`` or ``pytorch_model.bin``, whole or in shards, with or without their index;
    safetensors go first. Adapter files beside them are not read, ``adapters`` finds them.

    Args:
        path: folder, file or hub id.
        inside: names of entries that may wrap the tensors of a pickle; each is entered where it is there.

    Raises:
        ValueError: there is nothing, a shard is missing, cut short, a pointer of Git LFS or a pickle with code, the
            index and the shards disagree, or the tensors are quantised or empty.
    """
    found = local(path)
    if found.is_file():
        return Checkpoint(found, _headers(found, inside), inside)
    files, index = _files(found)
    headers: dict[str, Header] = {}
    for file in files:
        for key, header in _headers(file, inside).items():
            if key in headers:
                raise ValueError(
                    f"{found}: {key} stands in two shards, {headers[key].file.name} and {file.name}: are these files "
                    "of one checkpoint? Remove those that the index does not name."
                )
            headers[key] = header
    for key, name in index.items():
        if key not in headers or headers[key].file.name != name:
            where = headers[key].file.name if key in headers else "no shard"
            raise ValueError(f"{found}: the index says that {key} stands in {name}, it stands in {where}: take both "
                             "from the same download.")  # fmt: skip
    return Checkpoint(found, headers, inside)


def adapters(folder: Path) -> dict[str, Path]:
    """Part (``mm_projector``, ``audio_projector``) -> the file that holds it alone."""
    return {name.partition(".")[0]: folder / name for name in ADAPTERS if (folder / name).is_file()}


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The fields of a folder's configuration.

    Raises:
        ValueError: there is none, or it is no JSON object.
    """
    file = folder / name
    if not file.is_file():
        raise ValueError(f"{folder} has no {name}, which says what its tensors mean: take it from the same download.")
    try:
        read = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}).") from error
    if not isinstance(read, dict):
        raise ValueError(f"{file} holds a {type(read).__name__}, no fields.")
    return read


def _files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The shards of a folder, and what its index says of keys."""
    for end in ("safetensors", "bin"):
        for index in sorted(folder.glob(f"*.{end}.index.json")):
            where = read_config(folder, index.name).get("weight_map", {})
            names = sorted({str(name) for name in where.values()})
            for name in names:
                if Path(name).name != name:
                    raise ValueError(f"{index} names {name!r}: shards lie beside their index.")
                if not (folder / name).is_file():
                    raise ValueError(
                        f"{index} names {name}, which is not there: download it, {len(names)} shards are needed."
                    )
            if names:
                return [folder / name for name in names], where
        shards = sorted(each for each in folder.glob(f"*-of-*.{end}"))
        if shards:
            wanted = int(shards[0].stem.rpartition("-of-")[2])
            if len(shards) != wanted:
                there = ", ".join(each.name for each in shards)
                raise ValueError(f"{folder} holds {len(shards)} of {wanted} shards ({there}): download the others.")
            return shards, {}
        for stem in ("model", "pytorch_model"):
            if (folder / f"{stem}.{end}").is_file():
                return [folder / f"{stem}.{end}"], {}
    have = sorted(each.name for each in folder.iterdir())[:6]
    cure = f"it holds {', '.join(have)}." if have else "it is empty."
    if (folder / "adapter_config.json").is_file():
        cure = "it is a LoRA adapter, which has to be merged into the model that it was trained on first."
    elif parts := adapters(folder):
        cure = f"it holds {', '.join(parts)} alone, which goes into the folder of the model that it was trained on."
    raise ValueError(f"{folder} holds no checkpoint (model.safetensors, pytorch_model.bin, or shards of them): {cure}")


def _kind(file: Path) -> str:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file}: a checkpoint ends in {', '.join(SUFFIXES)}.")
    return SUFFIXES[file.suffix]


def _headers(file: Path, inside: Sequence[str]) -> dict[str, Header]:
    """What a file says of its tensors."""
    with file.open("rb") as opened:
        if opened.read(23) == b"version https://git-lfs":
            raise ValueError(
                f"{file} is a pointer of Git LFS, not the file it stands for: run `git lfs pull` there, or download "
                "with `hf download`."
            )
    if _kind(file) == "safetensors":
        found = _safetensors(file)
    else:
        tensors = _tensors(file, inside)
        found = {key: Header(tuple(each.shape), each.dtype, file) for key, each in tensors.items()}
    for key, header in found.items():
        if header.dtype not in DTYPES.values():
            raise ValueError(
                f"{file}: {key} is {str(header.dtype).removeprefix('torch.')}: a quantised checkpoint cannot be "
                "converted. Take the one in bfloat16, float16 or float32 that it was made of."
            )
        if 0 in header.shape:
            raise ValueError(
                f"{file}: {key} is empty, {list(header.shape)}: it was saved under ZeRO-3 without gathering. Save it "
                "again, or run zero_to_fp32.py of its checkpoint."
            )
    return found


def _safetensors(file: Path) -> dict[str, Header]:
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(opened.read(length))
        entries = {key: each for key, each in header.items() if key != "__metadata__"}
        end = 8 + length + max((each["data_offsets"][1] for each in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{file} is no safetensors file, or is cut short within its header ({error}).") from error
    if end != size:
        raise ValueError(
            f"{file} is {'cut short' if size < end else 'too long'}: its header promises {end} bytes, it has {size}. "
            "Download it again."
        )
    unknown = [key for key, each in entries.items() if each["dtype"] not in DTYPES]
    if unknown:
        raise ValueError(
            f"{file}: {unknown[0]} is {entries[unknown[0]]['dtype']}: a quantised checkpoint cannot be converted. Take "
            "the one in BF16, F16 or F32 that it was made of."
        )
    found = {
        key: Header(tuple(each["shape"]), DTYPES[each["dtype"]], file, 8 + length + each["data_offsets"][0])
        for key, each in entries.items()
    }
    for key, (first, last) in ((key, each["data_offsets"]) for key, each in entries.items()):
        if found[key].nbytes != last - first:
            raise ValueError(f"{file}: its header promises {last - first} bytes for {key}, which is {entries[key]}.")
    return found


def _tensors(file: Path, inside: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a pickle, mapped and not read where the file allows it."""
    found = unpickle(file, mapped=True)
    while isinstance(found, Mapping) and (inner := [found[name] for name in inside if name in found]):
        found = inner[0]
    if not isinstance(found, Mapping) or not any(isinstance(each, Tensor) for each in found.values()):
        has = list(found)[:3] if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{file} holds no names with tensors, it has {has}.")
    return {str(key): each.detach() for key, each in found.items() if isinstance(each, Tensor)}
