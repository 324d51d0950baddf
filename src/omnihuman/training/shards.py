"""The files of weights: one safetensors file, or shards with an index in its place, as on the hub."""

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path


def index_file(file: Path) -> Path:
    """Return the index that stands for a weights file which is written as shards."""
    return file.with_name(f"{file.name}.index.json")


def name_shard(file: Path, number: int, num_shards: int) -> Path:
    """Return a shard of a weights file.

    >>> name_shard(Path("weights.safetensors"), 1, 12).name
    'weights-00001-of-00012.safetensors'
    """
    return file.with_name(f"{file.stem}-{number:05d}-of-{num_shards:05d}{file.suffix}")


def has_weights(file: Path) -> bool:
    """Return true if a weights file is there, or the index of its shards."""
    return file.is_file() or index_file(file).is_file()


def find_shards(file: Path) -> list[Path]:
    """Return a weights file, or the shards that its index names.

    Raises:
        ValueError: there is neither the file nor an index, the index is invalid, or a shard is missing.
    """
    if file.is_file():
        return [file]
    index = index_file(file)
    if not index.is_file():
        raise ValueError(f"{file}: there is no such weights file, nor {index.name}.")
    try:
        names = sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of shards ({error}); copy it again.") from error
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} names {name!r}: shards must be in the folder of their index.")
        if not (file.parent / name).is_file():
            raise ValueError(f"{index} names {name}, which is missing: copy it, all of {len(names)} shards are needed.")
    return [file.parent / name for name in names]


def delete_weights(file: Path, spare: Collection[Path] = ()) -> None:
    """Delete a weights file and its shards, the index first, so that the rest does not pass for weights.

    Args:
        file: which need not be there.
        spare: files that stay.
    """
    shards = sorted(file.parent.glob(f"{file.stem}-?????-of-?????{file.suffix}"))
    for path in (index_file(file), file, *shards):
        if path not in spare:
            path.unlink(missing_ok=True)


def write_index(file: Path, weight_map: dict[str, str], total_size: int) -> None:
    """Write the index of a weights file; it is created complete or not at all."""
    index = index_file(file)
    partial = index.with_name(f"{index.name}.partial")
    text = json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}, indent=2)
    with partial.open("w") as stream:
        stream.write(f"{text}\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(index)


def copy_weights(source: Path, target: Path) -> None:
    """Copy weights, without another copy on the disk where it allows that; the target is complete or not there.

    Raises:
        ValueError: the source is incomplete.
    """
    shards = find_shards(source)
    if shards == [source]:
        copy_file(source, target)
        delete_weights(target, spare=[target])
        return
    delete_weights(target)
    index = json.loads(index_file(source).read_text())
    names = {}
    for number, shard in enumerate(shards, start=1):
        copy = name_shard(target, number, len(shards))
        copy_file(shard, copy)
        names[shard.name] = copy.name
    weight_map = {key: names[name] for key, name in index["weight_map"].items()}
    write_index(target, weight_map, index["metadata"]["total_size"])


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, without another copy on the disk where it allows that; the target is complete or not there."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        partial.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, partial)
    partial.replace(target)
    partial.unlink(missing_ok=True)  # where both are the same file already, replace does nothing
