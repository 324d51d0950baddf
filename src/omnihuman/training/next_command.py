"""The commands that a finished run advises."""

import shlex
from collections.abc import Collection
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from omnihuman.data.plan.planned import Plan
from omnihuman.data.record import Record
from omnihuman.modality import strip_tags
from omnihuman.source.root import read_records_folder


def build_next_command(config: DictConfig, record: Record) -> str:
    """Return the commands that follow a finished run, one a line: a question, the test split, and the next stage."""
    size = "" if config.size == "nano" else f" size={config.size}"
    run = f"run={config.name}{size}"
    if config.variant or config.runs != "runs":
        run = shlex.quote(f"run={Path(config.runs, config.size, config.name, config.variant or '')}")
    commands = [f"omnihuman generate {run} {build_question(record)}"]
    path = config.data.get("path")
    if path and (test := read_records_folder(path).test):
        commands.append(f"omnihuman evaluate {run} benchmark=records benchmark.path={shlex.quote(str(test))}")
    if config.next:
        usual = {"size": "nano", "runs": "runs", "base": None}
        options = [f"{key}={config[key]}" for key, value in usual.items() if config[key] != value]
        commands.append(shlex.join(["omnihuman", "train", f"+experiment={config.next}", *options]))
    return "\n".join(commands)


def find_record(plan: Plan, tasks: Collection[str]) -> Record:
    """Return the first record of one of the tasks, the first of all if there is none."""
    codes = [code for code, name in enumerate(plan.tasks.names) if name in tasks]
    matches = np.flatnonzero(np.isin(plan.tasks.codes, codes))
    return plan[int(matches[0]) if len(matches) else 0].record


def build_question(record: Record) -> str:
    """Return the arguments of ``generate`` that ask the question of a record."""
    text = strip_tags(record.messages[0][1])
    arguments = [f"instruction={' '.join(text.split())}"]
    if record.kind != "text":
        arguments.insert(0, f"{record.kind}={_shorten(record.file)}")
    for name, second in (("start", record.start), ("end", record.end)):
        if second:
            arguments.append(f"{name}={second:g}")
    return shlex.join(arguments)


def _shorten(file: str | Path) -> Path:
    """Return a path from the working folder, if the file is in it."""
    path = Path(file)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
