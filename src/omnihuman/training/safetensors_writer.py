"""Writing safetensors files tensor by tensor: only one tensor is in memory, whatever the size of the file."""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from omnihuman.nn.finite import is_finite
from omnihuman.training.shards import delete_weights, name_shard, write_index

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "BOOL": torch.bool,
}
"""Supported dtypes by their safetensors names. Weights are floats; the others are positions, masks and counters."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_SHARD_SIZE = 5_000_000_000
"""Bytes of one shard, as in transformers."""


class Header(NamedTuple):
    """Shape, dtype and place of a tensor, known before it is read or written; its data begins at ``start``."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path = Path()
    start: int = 0

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_safetensors(
    file: Path,
    headers: Mapping[str, Header],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write one file from headers and a function that reads a tensor; the file is created complete or not at all.

    Tensors are read in the order of ``headers``, which should be the order of their files, and cast to their dtype.

    Args:
        file: to write.
        headers: of all tensors.
        read: returns the tensor of a name; called once for each.
        metadata: of the file's header.

    Returns:
        sha256 of the file.

    Raises:
        ValueError: a tensor has another shape than its header, or is not finite in its dtype.
    """
    order = _order(headers)
    partial = file.with_name(f"{file.name}.partial")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as stream:
            _write(stream, digest, _encode_header(order, headers, metadata or {}))
            for name in order:
                _write(stream, digest, _encode_tensor(name, read(name), headers[name]))
            stream.flush()
            os.fsync(stream.fileno())  # the file is complete before its name exists
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()


def write_sharded(
    file: Path,
    headers: Mapping[str, Header],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
) -> str:
    """Write one file, or shards with an index in its place where it would be larger than a shard.

    What was there is deleted before the first shard has its name, and the index is written last: an interrupted call
    leaves the old weights or none.

    Args:
        file: to write, such as ``model.safetensors``; a shard is ``model-00001-of-00002.safetensors``.
        headers: of all tensors.
        read: returns the tensor of a name; called once for each, in the order of ``order_reads``.
        metadata: of every file's header.
        max_shard_size: bytes of tensors in a file; a larger tensor has a shard of its own.

    Returns:
        sha256 of the file, or of those of the shards.

    Raises:
        ValueError: a tensor has another shape than its header, or is not finite in its dtype.
    """
    shards = _split(headers, max_shard_size)
    if len(shards) == 1:
        digest = write_safetensors(file, shards[0], read, metadata)
        delete_weights(file, spare=[file])
        return digest
    delete_weights(file)
    digests = hashlib.sha256()
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        path = name_shard(file, number, len(shards))
        digests.update(write_safetensors(path, shard, read, metadata).encode())
        weight_map |= dict.fromkeys(shard, path.name)
    write_index(file, weight_map, sum(header.nbytes for header in headers.values()))
    return digests.hexdigest()


def order_reads(headers: Mapping[str, Header], max_shard_size: int = MAX_SHARD_SIZE) -> list[str]:
    """Return the names in the order in which ``write_sharded`` reads them."""
    names = []
    for shard in _split(headers, max_shard_size):
        names += _order(shard)
    return names


def apply_umask(folder: Path) -> None:
    """Give the safetensors files below a folder the mode of new files; their library writes for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o666 & ~umask)


def _order(headers: Mapping[str, Header]) -> list[str]:
    return sorted(headers, key=lambda name: -headers[name].dtype.itemsize)  # wide dtypes first: all stay aligned


def _split(headers: Mapping[str, Header], max_shard_size: int) -> list[dict[str, Header]]:
    """Split headers into shards, in their order; a tensor above the limit gets a shard of its own."""
    shards: list[dict[str, Header]] = [{}]
    size = 0
    for name, header in headers.items():
        if size and size + header.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = header
        size += header.nbytes
    return shards


def _encode_header(order: list[str], headers: Mapping[str, Header], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {}
    if metadata:
        entries["__metadata__"] = dict(metadata)
    start = 0
    for name in order:
        header = headers[name]
        end = start + header.nbytes
        entries[name] = {"dtype": DTYPE_NAMES[header.dtype], "shape": header.shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _encode_tensor(name: str, tensor: Tensor, header: Header) -> bytes | memoryview:
    if tuple(tensor.shape) != header.shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, its header has {header.shape}.")
    flat = tensor.detach().cpu().to(header.dtype).contiguous().reshape(-1)
    if not is_finite(flat):
        dtype = str(header.dtype).removeprefix("torch.")
        raise ValueError(f"{name} is not finite in {dtype} (NaN or infinity): the file is not written.")
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data


def _write(stream: BinaryIO, digest: "hashlib._Hash", data: bytes | memoryview) -> None:
    stream.write(data)
    digest.update(data)
