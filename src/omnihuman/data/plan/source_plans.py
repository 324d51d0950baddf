"""Plans of whole sources: from the tables that all runs share, or made in this process."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av

from omnihuman.data.ceiling import check_positive
from omnihuman.data.dataset import Samples
from omnihuman.data.exclusion import Description, Exclusions
from omnihuman.data.notices import Notices
from omnihuman.data.plan.blocks import Block, Read, map_blocks, read_blocks, split_items
from omnihuman.data.plan.fingerprint import (
    HEADER_CODE,
    PLANNING_CODE,
    hash_code,
    hash_entries,
    hash_layouts,
    hash_tokenizer,
    hash_values,
)
from omnihuman.data.plan.headers import HeaderStore
from omnihuman.data.plan.index import Index, Key, SharedPlans, mark_use
from omnihuman.data.plan.planned import PlanReport
from omnihuman.data.plan.stored_frames import check_stored
from omnihuman.data.plan.table_writer import SampleRow, TableWriter, encode_samples
from omnihuman.data.plan.tables import PlanTable
from omnihuman.data.record import Entry
from omnihuman.data.tasks import RecordSource, TaskSelection

BLOCK = 1024
"""Entries that a process plans at a time."""


class SourcePlans:
    """Plans the entries of sources, without those that are excluded.

    Args:
        folder: of the tables that all runs share; ``None`` plans in memory, in every process.
        exclusions: of each source.
        tasks: that are used.
        max_days: of a plan that nothing opens, see ``Index``.
        num_processes: that make a plan of all entries of a source.

    Attributes:
        shared: plans of a run of several processes; ``None`` where this process is the only one.

    Raises:
        ValueError: ``max_days`` or ``num_processes`` is not above 0.
    """

    def __init__(
        self,
        folder: str | None,
        exclusions: Exclusions,
        tasks: TaskSelection,
        max_days: float | None = None,
        num_processes: int = 1,
    ) -> None:
        check_positive(index_days=max_days, index_processes=num_processes)
        self.index = None if folder is None else Index(Path(folder), max_days)
        self.exclusions, self.tasks, self.num_processes = exclusions, tasks, num_processes
        self.shared: SharedPlans | None = None

    def share(self, file: Path, notices: Notices, *, is_resumed: bool) -> None:
        """Share the plans with the other processes of a run, unless they are in memory.

        Args:
            file: in the folder of the run, which names the plans for later starts.
            notices: by which the main process, which makes the plans, tells the others.
            is_resumed: the run goes on.
        """
        if self.index is not None:
            self.shared = SharedPlans(file, notices, is_resumed=is_resumed)

    def plan_split(
        self,
        name: str,
        source: RecordSource,
        split: str,
        build: Callable[..., Samples],
        limit: int | None = None,
    ) -> Samples:
        """Return the samples of the entries of a source whose tasks are used.

        Args:
            name: of the plan in the run.
            source: of the records.
            split: ``train`` or ``val``.
            build: entries and options of ``Samples`` -> samples.
            limit: number of entries, ``None`` for all.
        """
        choice = {"split": split, "tasks": self.tasks.tasks, "limit": limit}
        samples = self.plan(
            name, source, lambda: islice(self.tasks.select(source, split), limit), choice, build, split=split
        )
        if isinstance(samples.planned, PlanTable):
            self.tasks.skipped[split][source.location] = samples.planned.unlisted
        return samples

    def plan(
        self,
        name: str,
        source: RecordSource,
        select: Callable[[], Iterable[Entry]],
        choice: Mapping[str, Any],
        build: Callable[..., Samples],
        split: str | None = None,
    ) -> Samples:
        """Return the samples of selected entries of a source.

        Args:
            name: of the plan in the run.
            source: of the records.
            select: returns the entries.
            choice: plain values that decide which they are.
            build: entries and options of ``Samples`` -> samples.
            split: whose unlisted records are written with the plan.
        """
        excluded, quarantine_file = self.exclusions.read(source.location), self.exclusions.find_list(source.location)
        build = partial(build, excluded=excluded, quarantine_file=quarantine_file)
        samples = build(())
        check_stored(source, samples.readers["frames"].options, samples.transforms)
        if self.index is None:
            return build(select())
        index = self.index

        def make(earlier: PlanTable | None) -> PlanTable:
            key = {
                "source": describe_source(source),
                "choice": dict(choice),
                "samples": describe_samples(samples),
                "excluded": hash_values(sorted(map(str, excluded.items()))) if excluded else None,
            }
            if earlier is not None and _is_same(earlier.key, key) and earlier.find_changed_file() is None:
                mark_use(earlier)
                return earlier

            def write(writer: TableWriter) -> None:
                headers = open_headers(index.headers, source, samples)
                if split and choice["limit"] is None:
                    read, divide = partial(read_blocks, source, BLOCK), self.tasks.divide
                    report, unlisted = write_plan(writer, samples, read, headers, divide, self.num_processes)
                else:
                    report, _ = write_plan(writer, samples, lambda *_: split_items(select(), BLOCK), headers)
                    unlisted = list(self.tasks.skipped[split][source.location]) if split else []
                writer.finish(report, unlisted, key)

            return index.get(key, write, quarantine_file)

        if self.shared is None:
            samples.use(make(None))
        else:
            samples.use(self.shared.get(name, make, quarantine_file))
        return samples


def open_headers(folder: Path, source: RecordSource, samples: Samples) -> HeaderStore:
    """Return the headers of media files, those of a source that has some included.

    Args:
        folder: of all headers.
        source: an index has a folder ``headers`` of its own.
        samples: whose planner probes new files.
    """
    assert samples.planner is not None
    places = [place / name_headers() for place in (getattr(source, "headers", None),) if place is not None]
    return HeaderStore(folder / name_headers(), samples.planner.probe_files, places)


def name_headers() -> str:
    """Return the folder of headers as this code reads them."""
    return hash_values([hash_code(*HEADER_CODE), av.__version__])


def write_plan(
    writer: TableWriter,
    samples: Samples,
    read: Read,
    headers: HeaderStore,
    divide: Callable[[Block], tuple[Block, list[Description]]] = lambda block: (block, []),
    num_processes: int = 1,
) -> tuple[PlanReport, list[Description]]:
    """Plan entries, write their samples to tables, and return a report with descriptions of the unlisted entries.

    Args:
        writer: of the tables.
        samples: whose options count.
        read: yields blocks of the entries.
        headers: of the media files.
        divide: returns the entries of a block that are used, and descriptions of the others.
        num_processes: that plan.
    """
    planner = samples.planner
    assert planner is not None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would not survive the fork of a worker
    planner.probe_all = headers

    def plan(block: Block) -> tuple[list[SampleRow], PlanReport, list[Description]]:
        used, unlisted = divide(block)
        planner.report, planner.selection.num_dropped = PlanReport(), 0
        return encode_samples(planner(used)), planner.report, unlisted

    report, unlisted = PlanReport(), list[Description]()
    for rows, block_report, block_unlisted in map_blocks(read, plan, num_processes, headers.flush):
        writer.add(rows)
        report.add(block_report)
        unlisted += block_unlisted
    planner.forget()
    return report, unlisted


def describe_source(source: RecordSource) -> Any:
    """Return what decides the records of a source: the contents of its file, or the records themselves."""
    describe = getattr(source, "fingerprint", None)
    fingerprint = None if describe is None else describe()
    if fingerprint is None:
        fingerprint = {"records": hash_entries(source.records())}
    return {"class": f"{type(source).__module__}.{type(source).__qualname__}"} | dict(fingerprint)


def describe_samples(samples: Samples) -> Key:
    """Return what decides how records are planned: options, tokenizer, token counts and code."""
    planner = samples.planner
    assert planner is not None
    options, chat = planner.readers["frames"].options, planner.chat
    texts = [chat.template, chat.markers, chat.separator, chat.supervise_newline, chat.max_length]
    selection = planner.selection
    views = [list(map(str, selection.views)), list(selection.needs), selection.missing, selection.by_turn]
    return {
        "code": hash_code(*PLANNING_CODE),
        "media": hash_values(options),
        "fields": sorted(planner.fields),
        "texts": hash_values(texts),
        "views": hash_values(views),
        "policy": planner.policy,
        "prompts": planner.prompts,
        "timeout": planner.timeout,
        "tokenizer": hash_tokenizer(chat.tokenizer),
        "layouts": hash_layouts(planner.layouts, options.tiles),
    }


def _is_same(earlier: Key, key: Key) -> bool:
    """Return true if a plan of the run's first start holds: what was excluded or skipped then is so now."""
    return hash_values({**earlier, "excluded": None}) == hash_values({**key, "excluded": None})
