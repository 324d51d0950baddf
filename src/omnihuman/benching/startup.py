"""CPU seconds until a command has done its first work, beside those of ``import torch`` in the same run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from omnihuman.benching.input import iterate_videos
from omnihuman.benching.table import Table
from omnihuman.benching.turns import measure_in_turns, take_medians
from omnihuman.overrides import quote

EXPERIMENT = "humanomni_stage1_face"
"""A stage without parents."""

REFERENCE = "python -c 'import torch'"


def measure(config: DictConfig, overrides: Sequence[str]) -> Iterator[Table]:
    """Yield a table with a row for every command.

    ``train`` takes one step, without validation, and writes its weights; ``generate`` answers a question with them.

    Raises:
        ValueError: a command fails in another way than it should.
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = list_commands(config, Path(folder))
        calls = {name: partial(run_command, *command) for name, command in commands.items()}
        seconds = take_medians(measure_in_turns(calls, int(config.repeats), clock=read_children))
    table = Table("CPU seconds of a command, user and system, warm", ("command", "s", f"command / {REFERENCE}"))
    for name, value in seconds.items():
        table.rows.append((name, value, value / seconds[REFERENCE]))
    yield table


def list_commands(config: DictConfig, folder: Path) -> Mapping[str, tuple[Sequence[str], int]]:
    """Return the arguments of Python and the exit code of every command, by its name.

    Args:
        config: with the data of the training.
        folder: of the run; ``generate`` follows ``train``, whose run it needs.
    """
    root = Path(str(config.data.root)).expanduser().resolve()
    runs, video = folder / "runs", next(iterate_videos(config)).resolve()
    verb = ["-m", "omnihuman"]
    train = [*verb, "train", f"+experiment={EXPERIMENT}", f"runs={quote(str(runs))}"]
    train += ["data.val_records=null", "data.features=null", "data.num_workers=0", "overwrite=true"]
    train += ["trainer.max_steps=1", "validate_first=false", "validation.views=[]"]
    generate = [*verb, "generate", f"run={runs / 'nano' / EXPERIMENT}", f"video={video}", "instruction=What happens?"]
    return {
        REFERENCE: (["-c", "import torch"], 0),
        "omnihuman --help": ([*verb, "--help"], 0),
        "omnihuman train --help": ([*verb, "train", "--help"], 0),
        "omnihuman train +experiment=<unknown>": ([*verb, "train", "+experiment=humanomni_stage"], 1),
        "omnihuman train, one step": ([*train, f"data.root={quote(str(root))}"], 0),
        "omnihuman generate, one answer": (generate, 0),
    }


def run_command(arguments: Sequence[str], exit_code: int) -> None:
    """Run Python with these arguments.

    Raises:
        ValueError: it ends with another code.
    """
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if process.returncode != exit_code:
        last = [*process.stderr.strip().splitlines(), "no message"][-1]
        raise ValueError(f"python {' '.join(arguments)} ends with {process.returncode}: {last}")


def read_children() -> float:
    """Return the CPU seconds of the processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system
