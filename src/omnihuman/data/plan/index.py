"""Plans that are made once: tables beside the runs, found by what decides them, and shared by all ranks."""

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from omnihuman.data.machine import sync
from omnihuman.data.notices import Notices
from omnihuman.data.plan.fingerprint import hash_values
from omnihuman.data.plan.headers import MACHINE_REASONS
from omnihuman.data.plan.stat import stat_file
from omnihuman.data.plan.table_writer import MANIFEST, TableWriter
from omnihuman.data.plan.tables import PlanTable

log = logging.getLogger(__name__)

Key = Mapping[str, Any]
"""Plain values that decide a plan."""


class Index:
    """Tables of planned samples in a folder that several runs use; safe to delete while none does.

    The tables of one plan are in ``<hash of its key>/<hash of the plan and the times of the media>``.

    Args:
        folder: created on the first write.
        max_days: plans that nothing has opened for so long are deleted when another one is made; ``None``: never.
    """

    def __init__(self, folder: Path, max_days: float | None = None) -> None:
        self.folder, self.max_days = folder, max_days

    @property
    def headers(self) -> Path:
        """Folder of the headers of media files."""
        return self.folder / "headers"

    def get(self, key: Key, make: Callable[[TableWriter], None], quarantine_file: Path | None = None) -> PlanTable:
        """Return the plan of a key; it is made if there is none, or if media have changed since.

        Args:
            key: what decides the plan.
            make: writes the plan; it calls ``finish`` of the writer.
            quarantine_file: list that a bad file of a sample is added to.
        """
        parent = self.folder / hash_values(key)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{parent}.lock"):  # several runs that need it make it once
            table = self.find(key, quarantine_file)
            if table is not None:
                log.info("plan of %d samples in %s", len(table), table.folder)
                return table
            self.clean()
            partial = parent / f"{uuid.uuid4().hex}.partial"
            try:
                make(TableWriter(partial))
                files = PlanTable(partial).read_files()
                target = parent / hash_values([json.loads((partial / MANIFEST).read_text()), files])
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
                sync(parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return PlanTable(target, quarantine_file)

    def clean(self) -> None:
        """Delete plans that nothing has opened for ``max_days``, and what interrupted processes have left."""
        if self.max_days is None:
            return
        oldest = time.time() - self.max_days * 86400
        for folder in self.folder.glob("*/*/"):
            manifest = folder / MANIFEST
            if not manifest.is_file() and folder.suffix != ".partial":
                continue
            with suppress(FileNotFoundError):  # another process deletes it, too
                newest = max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))
                if newest < oldest:
                    log.info("%s: nothing has opened it for %g days: deleted", folder, self.max_days)
                    manifest.unlink(missing_ok=True)  # first, so that nothing takes the rest for a plan
                    shutil.rmtree(folder, ignore_errors=True)

    def find(self, key: Key, quarantine_file: Path | None = None) -> PlanTable | None:
        """Return the newest plan of a key whose media are unchanged and that no passing state of the disk decides."""
        parent = self.folder / hash_values(key)
        folders = [folder for folder in parent.glob("*") if folder.suffix != ".partial"]
        for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime):
            try:
                table = PlanTable(folder, quarantine_file)
            except ValueError as error:
                log.warning("%s", error)
                continue
            has_passed = any(map(_may_have_passed, table.report.skipped))
            if not has_passed and table.find_changed_file() is None:
                mark_use(table)
                return table
        return None


def mark_use(table: PlanTable) -> None:
    """Note that a plan is in use, see ``Index.clean``."""
    with suppress(OSError):  # in a folder that may only be read
        os.utime(table.folder / MANIFEST)


def _may_have_passed(skipped: Mapping[str, Any]) -> bool:
    """Return true if the reason of a skipped sample may have passed: a file is missing until its state changes."""
    if skipped["reason"] not in MACHINE_REASONS:
        return False
    state = skipped.get("state")
    return not state or any(stat_file(file) != tuple(stat) for file, *stat in state)


class SharedPlans:
    """The plans of a run: its main process finds or makes them, the others open the same ones.

    Args:
        file: in the folder of the run, which names its plans for later starts.
        notices: by which the main process tells the others.
        is_resumed: the run goes on: its plans are those that the file names.
    """

    def __init__(self, file: Path, notices: Notices, *, is_resumed: bool) -> None:
        self.file, self.notices = file, notices
        self.plans: dict[str, str] = _read(file) if is_resumed and notices.is_main else {}

    def get(self, name: str, make: Callable[[PlanTable | None], PlanTable], quarantine_file: Path | None) -> PlanTable:
        """Return a plan.

        Args:
            name: of the plan in the run.
            make: finds or makes it in the main process; called with the plan of the run's first start if it goes on.
            quarantine_file: list that a bad file of a sample is added to.

        Raises:
            ChildProcessError: the main process has ended.
            TimeoutError: the main process has given no sign of life.
            ValueError: the plan is not where the main process has written it.
        """
        notice = f"plan {name}"
        if not self.notices.is_main:
            return self._open(Path(self.notices.wait(notice)), quarantine_file)
        with self.notices.signs_of_life():  # a validation may need a plan that its training did not
            table = make(self._find_earlier(name, quarantine_file))
        folder = str(table.folder.resolve())
        self.plans[name] = folder
        _replace(self.file, json.dumps(self.plans))
        self.notices.publish(notice, folder)
        return table

    def _find_earlier(self, name: str, quarantine_file: Path | None) -> PlanTable | None:
        if name not in self.plans:
            return None
        try:
            return PlanTable(Path(self.plans[name]), quarantine_file)
        except ValueError:
            return None  # it was deleted: the samples are planned again, and compared with those of the checkpoint

    def _open(self, folder: Path, quarantine_file: Path | None) -> PlanTable:
        try:
            return PlanTable(folder, quarantine_file)
        except ValueError as error:
            raise ValueError(
                f"{error} The main process has written it: all nodes need the same folder (data.index_folder=)."
            ) from error


def _read(file: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(file.read_text())
    except (OSError, ValueError):  # it was deleted
        return {}
    return content


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.replace(file)
