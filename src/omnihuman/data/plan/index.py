"""Plans that are made once: tables beside the runs, found by what decides them, and shared by all ranks."""

import json
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from omnihuman.data.machine import sync
from omnihuman.data.plan.fingerprint import hash_values
from omnihuman.data.plan.headers import MACHINE_REASONS
from omnihuman.data.plan.tables import PlanTable, TableWriter

log = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two signs of life of the process that makes a plan."""

PATIENCE = 1800.0
"""Seconds without a sign of life after which other processes give up."""

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

    The other processes wait by reading a file again and again, not within a collective call, which would end after its
    timeout.

    Args:
        file: in the folder of the run, which names the plans.
        start: of the run, equal for all its processes and another one for every start.
        is_main: this process makes the plans.
        is_resumed: the run goes on: its plans are those that the file names.
    """

    def __init__(self, file: Path, start: str, *, is_main: bool, is_resumed: bool) -> None:
        self.file, self.start, self.is_main = file, start, is_main
        self.beat_file = file.with_suffix(".beat")
        content = _read(file) if is_resumed and is_main else {}
        self.earlier: Mapping[str, str] = content.get("earlier", {}) | content.get("plans", {})
        self.plans: dict[str, str] = {}

    def get(self, name: str, make: Callable[[PlanTable | None], PlanTable], quarantine_file: Path | None) -> PlanTable:
        """Return a plan.

        Args:
            name: of the plan in the run.
            make: finds or makes it in the main process; called with the plan of the run's first start if it goes on.
            quarantine_file: list that a bad file of a sample is added to.

        Raises:
            TimeoutError: the main process has given no sign of life.
            ValueError: the plan is not where the main process has written it.
        """
        if not self.is_main:
            return self._open(self.wait(name), quarantine_file)
        with self.guard(), self._signs_of_life():
            table = make(self._find_earlier(name, quarantine_file))
        self.publish(name, table.folder)
        return table

    def publish(self, name: str, place: Path) -> None:
        """Tell the other processes of a folder or a file that they wait for."""
        self.plans[name] = str(place.resolve())
        self._write()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Tell the other processes of an error of the main one, so that they do not wait for it."""
        try:
            yield
        except BaseException as error:
            if self.is_main:
                self._write(error=f"{type(error).__name__}: {error}")
            raise

    def _write(self, **more: str) -> None:
        _replace(self.file, json.dumps({"start": self.start, "plans": self.plans, "earlier": self.earlier, **more}))

    def _find_earlier(self, name: str, quarantine_file: Path | None) -> PlanTable | None:
        if name not in self.earlier:
            return None
        try:
            return PlanTable(Path(self.earlier[name]), quarantine_file)
        except ValueError:
            return None  # it was deleted: the samples are planned again, and compared with those of the checkpoint

    def _open(self, folder: Path, quarantine_file: Path | None) -> PlanTable:
        try:
            return PlanTable(folder, quarantine_file)
        except ValueError as error:
            raise ValueError(
                f"{error} The main process has written it: all nodes need the same folder (data.index_folder=)."
            ) from error

    def wait(self, name: str) -> Path:
        """Return a folder or a file as soon as the main process has published it.

        Raises:
            ChildProcessError: the main process has ended with an error.
            TimeoutError: the main process has given no sign of life.
        """
        beat, last, pause = "", time.monotonic(), 0.05
        while True:
            content = _read(self.file)
            if content.get("start") == self.start and name in content["plans"]:
                return Path(content["plans"][name])
            if content.get("start") == self.start and "error" in content:
                raise ChildProcessError(f"the main process has ended: {content['error']}")
            new = self.beat_file.read_text() if self.beat_file.is_file() else ""
            if new != beat:
                beat, last = new, time.monotonic()
            if time.monotonic() - last > PATIENCE:
                raise TimeoutError(
                    f"{self.file}: no sign of the main process, which plans, for {PATIENCE / 60:g} minutes: it has "
                    "ended, or its node has another disk; all nodes need the same folder (runs=)."
                )
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)

    @contextmanager
    def _signs_of_life(self) -> Iterator[None]:
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT):
                _replace(self.beat_file, uuid.uuid4().hex)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.beat_file.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):  # not there yet
        return {}
    return content


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.replace(file)
