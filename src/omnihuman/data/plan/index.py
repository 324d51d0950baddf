"""Plans that are made once: tables beside the runs, found by what decides them, and shared by all ranks."""

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from omnihuman.data.machine import sync
from omnihuman.data.notices import Notices
from omnihuman.data.plan.fingerprint import hash_values
from omnihuman.data.plan.headers import MACHINE_REASONS
from omnihuman.data.plan.tables import PlanTable, TableWriter

log = logging.getLogger(__name__)

Key = Mapping[str, Any]
"""Plain values that decide a plan."""


class Index:
    """Tables of planned samples in a folder that several runs use; safe to delete while none does.

    The tables of one plan are in ``<hash of its key>/<hash of the plan and the times of the media>``.

    Args:
        folder: created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
            partial = parent / f"{uuid.uuid4().hex}.partial"
            try:
                make(TableWriter(partial))
                files = PlanTable(partial).read_files()
                target = parent / hash_values([json.loads((partial / "plan.json").read_text()), files])
                if target.exists():
                    shutil.rmtree(target)
                partial.rename(target)
                sync(parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return PlanTable(target, quarantine_file)

    def find(self, key: Key, quarantine_file: Path | None = None) -> PlanTable | None:
        """Return the newest plan of a key whose media are unchanged and that no state of the machine has decided."""
        parent = self.folder / hash_values(key)
        folders = [folder for folder in parent.glob("*") if folder.suffix != ".partial"]
        for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime):
            try:
                table = PlanTable(folder, quarantine_file)
            except ValueError as error:
                log.warning("%s", error)
                continue
            is_passing = any(skipped["reason"] in MACHINE_REASONS for skipped in table.report.skipped)
            if not is_passing and table.find_changed_file() is None:
                return table
        return None


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
