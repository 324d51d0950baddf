"""A preflight: all records of all splits, checked in processes; report, page and list of quarantine."""

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omnihuman.data.exclusion import FILE_REASONS, Exclusions, Identity, quarantine
from omnihuman.data.module import OmniData
from omnihuman.data.record import Entry, Record
from omnihuman.preflight.check import Checker, Job, Problem, Verdict, group_jobs, hash_file
from omnihuman.preflight.page import write_page
from omnihuman.preflight.pictures import build_card
from omnihuman.preflight.pool import Failure, Pool
from omnihuman.preflight.summary import Item, Report, summarize

MARGIN_SECONDS = 60.0
"""Added to the timeouts of the files of a job before its process is ended, as for the workers of a loader."""

QUARANTINED = FILE_REASONS | {"crash"}
"""Reasons that lie in a file; a crash would end the training."""

Entries = Iterable[tuple[str, Entry]]
"""The entries of a split, each with the location of its source."""


class Preflight:
    """Checks every record of all splits.

    Args:
        data: connected to a model; its views, limits and readers decide.
        splits: name -> entries.
        workers: processes; ``None`` for one per core.
    """

    def __init__(self, data: OmniData, splits: Mapping[str, Entries], workers: int | None = None) -> None:
        self.data = data
        self.workers = count_cores() if workers is None else workers
        self.items: list[Item] = []
        for split, entries in splits.items():
            self.items += [Item(split, source, entry) for source, entry in entries]
        self.begin = time.monotonic()

    def check(self) -> None:
        """Check the records, with progress on the terminal. After an interruption, the rest has no verdict.

        Raises:
            KeyboardInterrupt: by Ctrl-C.
        """
        records = []
        for number, item in enumerate(self.items):
            if isinstance(item.entry, Record):
                records.append((number, item.entry))
            else:
                name, bad = item.entry
                problem = Problem(name, "", bad.reason, str(bad))
                self.items[number] = replace(item, verdict=Verdict(problems=(problem,)))
        jobs = group_jobs(records)
        pool = Pool[Job, list[Verdict]](Checker(self.data), Job.split, self._limit, self.workers)
        progress = Progress(len(records))
        for job, result in pool.run(jobs):
            verdicts = fail(job, result) if isinstance(result, Failure) else result
            for number, verdict in zip(job.numbers, verdicts, strict=True):
                self.items[number] = replace(self.items[number], verdict=verdict)
            progress.add(verdicts)
        progress.end()

    def _limit(self, job: Job) -> float:
        """Return the seconds after which a job has failed: every file is read for its header, and for each view."""
        num_reads = sum(len(record.files) for record in job.records) * (1 + len(self.data.views))
        return MARGIN_SECONDS + float(self.data.options["timeout"]) * num_reads

    def hash_files(self) -> dict[Path, str]:
        """Return hashes of the files that have the size of another file."""
        by_size: dict[int, list[Path]] = {}
        files = {item.entry.file: None for item in self.items if isinstance(item.entry, Record)}
        for file in files:
            if file.is_file():
                by_size.setdefault(file.stat().st_size, []).append(file)
        hashes = {}
        for size, equal in by_size.items():
            if size and len(equal) > 1:
                hashes.update({file: hash_file(file) for file in equal})
        return hashes

    def summarize(self, settings: Mapping[str, Any], person: str | None = None) -> Report:
        """Return the report.

        Args:
            settings: that the verdicts depend on.
            person: key of the records that names the person.
        """
        report = summarize(self.items, settings, self.hash_files(), person)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = time.process_time() + usage.ru_utime + usage.ru_stime
        files = {item.entry.file for item in self.items if item.verdict and isinstance(item.entry, Record)}
        report.cost = {
            "wall_seconds": round(time.monotonic() - self.begin, 1),
            "processes": self.workers,
            "cpu_seconds": round(cpu_seconds, 1),
            "cpu_ms_per_file": round(1000 * cpu_seconds / max(1, len(files)), 1),
        }
        return report

    def write(self, report: Report, folder: Path, num_cards: int = 12) -> None:
        """Write ``report.json`` and ``report.html``.

        Args:
            report: see ``summarize``.
            folder: of the files.
            num_cards: records of each split that the page shows.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        cards = []
        for split in report.splits:
            usable = [item for item in self.items if item.split == split and item.verdict and item.verdict.lengths]
            stride = max(1, len(usable) // max(1, num_cards))
            cards += [build_card(item, self.data) for item in usable[::stride][:num_cards]]
        write_page(folder / "report.html", report, cards)


def count_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fail(job: Job, failure: Failure) -> list[Verdict]:
    """Return the verdict on a record that crashed its process, or did not end."""
    verdicts = []
    for record in job.records:
        message = f"{record.location} ({record.id}): {record.file}: {failure.message}"
        verdicts.append(Verdict(problems=(Problem(record.id, str(record.file), failure.reason, message),)))
    return verdicts


class Progress:
    """A line on the terminal with the share that is done and the time that is left; elsewhere a line now and then.

    Args:
        total: number of records.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.bad = total, 0, 0
        self.begin = self.last = time.monotonic()
        self.is_terminal = sys.stderr.isatty()

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Count checked records."""
        self.done += len(verdicts)
        self.bad += sum(bool(verdict.problems) for verdict in verdicts)
        now = time.monotonic()
        if now - self.last < (0.2 if self.is_terminal else 30):
            return
        self.last = now
        rate = self.done / (now - self.begin)
        left = round((self.total - self.done) / rate)
        speed = f"{rate:.0f}/s, {left // 60}:{left % 60:02} left"
        line = f"{self.done:,} of {self.total:,} records, {self.bad:,} bad, {speed}"
        if self.is_terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove the line."""
        if self.is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def quarantine_files(items: Iterable[Item], exclusions: Exclusions) -> Counter[Path]:
    """Add the bad files to the lists that training honours with ``data.on_bad_sample=quarantine``.

    Args:
        items: that were checked.
        exclusions: has the list of each source.

    Returns:
        The number of new lines of each list.
    """
    counts = Counter[Path]()
    known: dict[str, set[Identity]] = {}
    for item in items:
        file = exclusions.find_list(item.source)
        for problem in item.verdict.problems if item.verdict else ():
            if file is None or problem.reason not in QUARANTINED:
                continue
            identities = known.setdefault(item.source, set(exclusions.read(item.source)))
            if (problem.id, problem.file) not in identities:
                identities.add((problem.id, problem.file))
                quarantine(file, asdict(problem))
                counts[file] += 1
    return counts
