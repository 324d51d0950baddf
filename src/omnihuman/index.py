"""Check records and probe their media once for all runs: ``omnihuman index records=a.jsonl root=media out=index``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from omnihuman.build import build
from omnihuman.source.root import VALIDATION_INDEX, read_records_folder
from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.data.plan.pack_shards import ShardWriter
    from omnihuman.data.plan.record_tables import Packing
    from omnihuman.data.plan.stored_frames import StoredFrames


@verb("index", "root", "out")
def main(config: DictConfig) -> None:
    """Write the tables of each data file, the list of bad rows and the manifest, and print what they hold.

    Raises:
        ValueError: a key is wrong, ``out`` holds something else, or no record can be used.
    """
    from omnihuman.data.plan.write_index import describe, describe_bad, write_index

    for name in ("timeout", "processes"):
        if config[name] is not None and not config[name] > 0:
            raise ValueError(f"{name}={config[name]}: expected a number above 0.")
    out = Path(config.out).expanduser()
    check_out(out)
    paths = list(config.records) if isinstance(config.records, ListConfig) else [config.records]
    splits = {out: paths}
    val = find_validation(paths)
    if val is not None:
        splits[out / VALIDATION_INDEX] = [val]
    factory = build(config.source)
    num_processes = config.processes or len(os.sched_getaffinity(0))
    packing = open_packing(config, out)
    for folder, names in splits.items():
        sources = [factory(name, config.root) for name in names]
        tables = write_index(sources, folder, num_processes, float(config.timeout), packing)
        print(f"{folder}: {describe(tables)}; {describe_bad(tables)}")
    more = "" if val else " data.val_records=<index of the validation>"
    print(f"Next: omnihuman train +experiment=finetune base=<folder> data=index data.index={out}{more}")


def find_validation(paths: Sequence[Any]) -> Path | None:
    """Return the file of the validation records, if the only path is a folder of ``omnihuman records`` that has one."""
    if len(paths) != 1 or not Path(paths[0]).is_dir():
        return None
    return read_records_folder(paths[0]).val


def check_out(out: Path) -> None:
    """Check that a folder is an index, begun or finished, or empty.

    Raises:
        ValueError: it is not.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file; expected a folder.")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if names and not names & {"index.json", "records", "shards"}:
        raise ValueError(f"out={out} holds other files ({sorted(names)[0]} ...); choose a new folder.")


def open_shards(config: DictConfig, out: Path) -> "ShardWriter | None":
    """Return what packs the media, ``None`` where they stay where they are.

    Raises:
        ValueError: an option is invalid.
    """
    from omnihuman.data.plan.pack_shards import ShardWriter

    if not config.shard_gb > 0:
        raise ValueError(f"shard_gb={config.shard_gb}: expected a number above 0.")
    if config.shards is None:
        if config.shards_url is not None:
            raise ValueError("shards_url: without shards= nothing is packed; say where to write them.")
        return None
    target, url = (str(name).rstrip("/") for name in (config.shards, config.shards_url or config.shards))
    target, url = (name if "://" in name else str(Path(name).expanduser().resolve()) for name in (target, url))
    return ShardWriter(target, url, out / "shards", round(config.shard_gb * 1e9))


def open_packing(config: DictConfig, out: Path) -> "Packing | None":
    """Return how media are packed, ``None`` where they stay as and where they are.

    Raises:
        ValueError: an option is invalid.
    """
    from omnihuman.data.plan.record_tables import Packing

    shards, frames = open_shards(config, out), read_frames(config)
    if shards is None:
        if frames is not None:
            raise ValueError("media=frames: say where to write them: shards=<folder or URL>.")
        return None
    return Packing(shards, frames, float(config.timeout))


def read_frames(config: DictConfig) -> "StoredFrames | None":
    """Return what is stored of each video for training, ``None`` for the files themselves.

    Raises:
        ValueError: an option is invalid.
    """
    from omnihuman.data.plan.stored_frames import parse_frames

    if config.media not in ("files", "frames"):
        raise ValueError(f"media={config.media}: choose files, or frames for clips as training reads them.")
    if config.media == "files":
        return None
    return parse_frames(**config.frames)


if __name__ == "__main__":
    main()
