"""The outcome of a cell: a JSON file in the study's results folder."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omegaconf import DictConfig


@dataclass
class Outcome:
    """The outcome of a cell with a seed: ``runs/<size>/studies/<study>/<cell>,seed=<seed>.json``.

    Attributes:
        cell: name of the outcome: of cell, seed and rung.
        status: ``finished``, ``failed``, ``running`` (or killed), ``halved`` (dropped by successive halving).
        digest: of its run and its evaluations: an outcome with another digest is out of date.
        command: that trains it.
        run: folder of the run.
        evaluations: name -> folder.
        seconds: training time of this cell, and of this cell with its parents.
        flops: of its training: the forecast for a sample times the number of samples.
        num_trainable: trainable parameters of its last stage.
        order_digest: hash of the order of the training samples.
        loss: best validation loss.
        error: last line of the failed command's output.
    """

    cell: str
    status: str
    digest: str = ""
    command: str = ""
    run: str = ""
    evaluations: dict[str, str] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    flops: float = 0.0
    num_trainable: int = 0
    order_digest: str = ""
    loss: float | None = None
    error: str = ""

    def is_current(self, digest: str) -> bool:
        """Return whether the cell is finished with the same run and evaluations."""
        return self.status == "finished" and self.digest == digest


def name_outcome(cell: str, seed: int) -> str:
    """Return the name of the outcome of a cell with a seed."""
    return f"{cell},seed={seed}"


def locate_results(config: DictConfig) -> Path:
    """Return the folder of a study's outcomes, tables and charts."""
    return Path(str(config.runs), str(config.size), "studies", str(config.study))


def read_outcome(folder: Path, cell: str) -> Outcome | None:
    """Return the outcome of a cell, ``None`` where there is none yet.

    Raises:
        ValueError: the file is no outcome.
    """
    file = folder / f"{cell}.json"
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text())
        values.pop("written", None)
        values["seconds"] = tuple(values["seconds"])
        return Outcome(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: invalid outcome of a cell ({error}); remove the file.") from error


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the outcome of a cell in one step, so that a reader never gets half a file."""
    content = {**asdict(outcome), "written": time.strftime("%Y-%m-%dT%H:%M:%S")}
    temporary = folder / f"{outcome.cell}.json.{os.getpid()}"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(folder / f"{outcome.cell}.json")
