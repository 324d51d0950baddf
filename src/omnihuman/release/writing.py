"""Safetensors files written tensor by tensor: what is in memory is one tensor, whatever the file's size."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from omnihuman.release.shards import DTYPES, Header

NAMES = {dtype: name for name, dtype in DTYPES.items()}
LIMIT = 5_000_000_000
"""Bytes of one shard, as transformers cuts them."""


def write_safetensors(
    file: Path,
    headers: Mapping[str, Header],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Names with shapes and dtypes, and what reads a tensor -> one file, which appears whole or not at all.

    Tensors are read in the order of ``headers`` (so give them as their files hold them) and cast to their dtype there.

    Args:
        file: to write.
        headers: of all tensors.
        read: called once for each name.
        metadata: of the file's header.

    Returns:
        sha256 of the file.

    Raises:
        ValueError: what is read has another shape than its header says.
    """
    order = sorted(headers, key=lambda name: -headers[name].dtype.itemsize)  # wide types first: all stay aligned
    partial = file.with_name(f"{file.name}.partial")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as opened:
            _put(opened, digest, _header(order, headers, metadata or {}))
            for name in order:
                _put(opened, digest, _bytes(name, read(name), headers[name]))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()


def write_sharded(
    folder: Path, headers: Mapping[str, Header], read: Callable[[str], Tensor], limit: int = LIMIT
) -> list[Path]:
    """The same as transformers lays it out: ``model.safetensors``, or shards of ``limit`` bytes with their index."""
    shards: list[dict[str, Header]] = [{}]
    held = 0
    for name, header in headers.items():
        if held and held + header.nbytes > limit:
            shards.append({})
            held = 0
        shards[-1][name] = header
        held += header.nbytes
    files = [folder / f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [folder / "model.safetensors"]
    for file, shard in zip(files, shards, strict=True):
        write_safetensors(file, shard, read, {"format": "pt"})
    if len(shards) > 1:
        where = {name: file.name for file, shard in zip(files, shards, strict=True) for name in shard}
        size = {"total_size": sum(header.nbytes for header in headers.values())}
        index = json.dumps({"metadata": size, "weight_map": where}, indent=2)
        (folder / "model.safetensors.index.json").write_text(f"{index}\n")
    return files


def _header(order: list[str], headers: Mapping[str, Header], metadata: Mapping[str, str]) -> bytes:
    said: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name in order:
        shape, dtype, end = headers[name].shape, NAMES[headers[name].dtype], start + headers[name].nbytes
        said[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes(name: str, tensor: Tensor, header: Header) -> bytes | memoryview:
    if tuple(tensor.shape) != header.shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, it was announced as {header.shape}.")
    flat = tensor.detach().cpu().to(header.dtype).contiguous().reshape(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data


def _put(file: BinaryIO, digest: "hashlib._Hash", data: bytes | memoryview) -> None:
    file.write(data)
    digest.update(data)
