"""Parents that are to be trained: each has data of its own."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from omnihuman.build import build, compose_config
from omnihuman.data.module import OmniData
from omnihuman.data.record import Record
from omnihuman.data.tasks import check_tasks
from omnihuman.training.chain import Chain
from omnihuman.training.stage_data import select_stage_data

SAME_DATA = "same_data"
"""Value of ``chain`` that trains the parents on the files of their child."""


def check_parents(chain: Chain, console: Console | None = None) -> None:
    """Check that every parent that is to be trained has data of its own.

    It has where ``data.records`` names its files, or where all records of the child's files carry a task and some carry
    one of the parent's. ``chain=same_data`` allows any.

    Args:
        chain: of the run.
        console: prints each of these parents with its command, files and number of records; ``None``: nothing.

    Raises:
        ValueError: a parent would be trained on data of another stage.
    """
    counts = dict[str, Counter[str | None]]()
    for parent in _list_missing(chain.parents):
        config = parent.config
        plain: Any = OmegaConf.to_container(config.data, resolve=True)
        key = str([plain.get(name) for name in ("records", "root", "source")])
        if key not in counts:
            counts[key] = _count_tasks(build(config.data))
        used, untagged = _count_records(counts[key], check_tasks(plain["tasks"]))
        if console is not None:
            console.print(f"missing: {' '.join(parent.command)}")
            console.print(f"    {used.total():,} records of {_describe_files(plain['records'])} ({_format(used)})")
        if not _has_own_files(parent, chain) and (untagged or not used) and chain.config.chain != SAME_DATA:
            raise _explain(parent, chain, untagged)


def _has_own_files(parent: Chain, child: Chain) -> bool:
    """Return true if the config of a parent names its files, and not those of its child."""
    composed = compose_config(parent.overrides)
    is_mapped = select_stage_data(composed) is not composed
    return is_mapped or _read_records(parent.config) != _read_records(child.config)


def _list_missing(parents: Sequence[Chain]) -> Iterator[Chain]:
    """Yield the runs that are to be trained, parents first, each once."""
    folders = set[str]()
    for parent in parents:
        if not parent.overrides or parent.run.can_be_parent():
            continue
        for run in (*_list_missing(parent.parents), parent):
            if str(run.run.folder) not in folders:
                folders.add(str(run.run.folder))
                yield run


def _count_tasks(data: OmniData) -> Counter[str | None]:
    """Return the number of valid records of every task."""
    counts = Counter[str | None]()
    for entry in data.sources:
        counts.update(record.task for record in entry.source.records() if isinstance(record, Record))
    return counts


def _count_records(counts: Mapping[str | None, int], tasks: Any) -> tuple[Counter[str], int]:
    """Return the numbers of records of listed tasks, and of records without a task.

    >>> _count_records({"emotion": 3, "face": 2, None: 1}, ["face"])
    (Counter({'face': 2}), 1)
    """
    used = Counter[str]()
    for task, count in counts.items():
        if task is not None and (tasks is None or task in tasks):
            used[task] = count
    return used, counts.get(None, 0)


def _read_records(config: DictConfig) -> Any:
    return OmegaConf.to_container(config.data, resolve=True)["records"]  # type: ignore[call-overload, index]


def _explain(parent: Chain, chain: Chain, untagged: int) -> ValueError:
    name, child = parent.config.name, chain.config.name
    tasks = ", ".join(parent.config.data.tasks or ["any"])
    content = f"no record of its tasks ({tasks})"
    if untagged:
        content = f"{untagged:,} records without a task"
    cure = f"data.records={{{name}: <file>, {child}: <file>}}; or train all on the same: chain={SAME_DATA}"
    return ValueError(
        f"{name} is not trained yet, and data.records names no files for it; those of {child} have {content}. Give "
        f"every stage its files: {cure}."
    )


def _describe_files(records: Any) -> str:
    """Return the names of data files.

    >>> _describe_files([{"path": "a.json", "weight": 2}, "b.json"])
    'a.json, b.json'
    """
    entries = records if isinstance(records, list) else [records]
    names = [str(entry.get("path", "a source")) if isinstance(entry, dict) else str(entry) for entry in entries]
    return ", ".join(names)


def _format(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {task}" for task, count in counts.most_common()) or "none"
