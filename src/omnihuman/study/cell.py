"""One cell of a study: train it where it is not trained, ask it what the study asks, write down how it went."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import compose_config
from omnihuman.study.config import cells_of
from omnihuman.training.chain import Link, in_sweep

log = logging.getLogger(__name__)

WRITTEN = re.compile(r"^written to (.+)$", re.MULTILINE)
"""What ``omnihuman.evaluate`` says last of each benchmark."""


@dataclass
class Outcome:
    """What became of a cell: ``runs/<size>/studies/<study>/<cell>.json``.

    Attributes:
        cell: its name.
        status: ``finished``, ``failed``, ``running`` (or killed), ``halved`` (left behind by successive halving).
        digest: of its run and its questions: an outcome of another digest is out of date.
        command: that trains it.
        run: folder of the run.
        evaluations: name -> folder.
        seconds: training of this cell, and of all that it stands on.
        flops: of training it, a forecast times the samples.
        trained: parameters that train in its last stage.
        order: hash of the samples in their order.
        loss: best validation loss.
        error: the end of what the failed command said.
    """

    cell: str
    status: str
    digest: str = ""
    command: str = ""
    run: str = ""
    evaluations: dict[str, str] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    flops: float = 0.0
    trained: int = 0
    order: str = ""
    loss: float | None = None
    error: str = ""


def folder_of(config: DictConfig) -> Path:
    """Where a study keeps its outcomes, tables and pictures."""
    return Path(str(config.runs), str(config.size), "studies", str(config.study))


def read_outcome(folder: Path, cell: str) -> Outcome | None:
    """The outcome of a cell, ``None`` where there is none yet.

    Raises:
        ValueError: the file holds something else.
    """
    file = folder / f"{cell}.json"
    if not file.is_file():
        return None
    try:
        said = {key: value for key, value in json.loads(file.read_text()).items() if key != "written"}
        return Outcome(**{**said, "seconds": tuple(said["seconds"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: this is no outcome of a cell ({error}); remove it.") from error


def link_of(config: DictConfig, cell: str) -> Link:
    """The chain of a cell; parents (and whole cells) that other cells share lie in one place.

    Raises:
        ValueError: the study has no such cell.
    """
    cells = cells_of(config)
    if cell not in cells:
        raise ValueError(f"cell={cell}: the study {config.study} has {', '.join(cells)}.")
    said = cells[cell]
    own = [f"size={config.size}", f"runs={config.runs}", f"seed={config.seed}", *config.common, *config.also]
    own += said.get("train", ())
    # a cell that changes nothing is also the parent of others, or a cell of another study
    name = f"{config.study}.{cell}" if said.get("train") else None
    if config.rung is not None:
        own += [f"trainer.max_steps={config.halving.steps[config.rung]}", "validate_last=true"]  # to be ranked by it
        name = f"{config.study}.{cell}@{config.rung}"
    return in_sweep(str(said.get("experiment", config.experiment)), [str(each) for each in own], name)


def run_cell(config: DictConfig) -> Outcome:
    """Do what is missing of one cell. A failure is an outcome, so that the other cells go on."""
    folder = folder_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(
        str(config.cell if config.rung is None else f"{config.cell}@{config.halving.steps[config.rung]}"), "running"
    )
    try:
        chain, asked = link_of(config, config.cell), questions_of(config, config.cell)
        digest = hashlib.sha256(json.dumps([chain.run.digest, asked], sort_keys=True).encode()).hexdigest()[:16]
        old = read_outcome(folder, outcome.cell)
        if old is not None and old.status == "finished" and old.digest == digest and chain.run.finished():
            log.info("%s: finished already", outcome.cell)
            return old
        outcome = replace(outcome, digest=digest, command=" ".join(chain.command), run=str(chain.run.folder))
        if config.halving and not survives(config, folder, str(config.cell)):
            outcome.status = "halved"
        else:
            _write(folder, outcome)
            _do(config, outcome, chain, asked, folder)
            outcome.status = "finished"
    except Exception as error:  # whatever it was: it is this cell's, and the table will say it
        outcome.status, outcome.error = "failed", str(error)
        log.error("%s failed: %s", outcome.cell, error)
    return _write(folder, outcome)


def _do(config: DictConfig, outcome: Outcome, chain: Link, asked: dict[str, list[str]], folder: Path) -> None:
    """Train and ask; fills in the outcome."""
    log.info("%s: %s", outcome.cell, outcome.command)
    log_file = folder / f"{outcome.cell}.log"
    _call(chain.command[1:], log_file, config.threads)
    if config.rung is None:
        trained = chain.run.folder.relative_to(Path(config.runs) / config.size).parts[0]
        variant = [each for each in chain.overrides if each.startswith("variant=")]
        where = [f"run={trained}", *variant, f"size={config.size}", f"runs={config.runs}"]
        lines = [[*where, f"tag={what}", *overrides] for what, overrides in asked.items()]
        said = _call(["-m", "omnihuman.study.ask", json.dumps(lines)], log_file, config.threads)
        outcome.evaluations |= dict(zip(asked, WRITTEN.findall(said), strict=True))
    _account(outcome, chain)


def questions_of(config: DictConfig, cell: str) -> dict[str, list[str]]:
    """What a cell is asked: the study's overrides of ``omnihuman.evaluate`` with the cell's own behind them."""
    own = [str(each) for each in cells_of(config)[cell].get("ask", ())]
    said: Any = OmegaConf.to_container(config.evaluate, resolve=True)
    return {name: [*map(str, overrides), *own] for name, overrides in said.items()}


def survives(config: DictConfig, folder: Path, cell: str) -> bool:
    """Whether a cell is among the best of the rung before, by validation loss; before the first all are.

    Raises:
        ValueError: no cell of the rung before is finished.
    """
    rung = len(config.halving.steps) if config.rung is None else config.rung
    if rung == 0:
        return True
    steps = config.halving.steps[rung - 1]
    before = {name: read_outcome(folder, f"{name}@{steps}") for name in cells_of(config)}
    ranked = sorted(
        (one.loss, name) for name, one in before.items() if one and one.status == "finished" and one.loss is not None
    )
    if not ranked:
        raise ValueError(f"{folder}: no cell is finished at {steps} steps; run rung={rung - 1} first.")
    left = max(1, round(len(before) * config.halving.keep**rung))
    return cell in {name for _, name in ranked[:left]}


def _call(arguments: Sequence[str], log_file: Path, threads: int | None) -> str:
    """Run a verb in a process of its own, so that what kills it kills nothing else; what it said.

    Raises:
        RuntimeError: it failed.
    """
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        check=False,
    )  # fmt: skip
    with log_file.open("a") as lines:
        lines.write(f"$ python {' '.join(arguments)}\n{done.stdout}\n")
    if done.returncode:
        how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        said = [line.strip() for line in done.stdout.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
        raise RuntimeError(f"{how}: {' '.join(said[-1:])}\nof: python {' '.join(arguments)}\nall of it: {log_file}")
    return done.stdout


def _account(outcome: Outcome, chain: Link) -> None:
    """What a cell cost, from the ledgers of its chain and the forecast of its last stage."""
    import transformers

    from omnihuman.training.forecast import Forecaster

    transformers.utils.logging.set_verbosity_error()
    ledgers = {link.run.folder: json.loads((link.run.folder / "ledger.json").read_text()) for link in _all(chain)}
    own = ledgers[chain.run.folder]
    outcome.seconds = (own["seconds"], sum(ledger["seconds"] for ledger in ledgers.values()))
    outcome.loss = own["best"].get("val/loss")
    outcome.order = own.get("order", "")
    plain = [each for each in chain.overrides if not each.startswith("variant=")]
    forecast = Forecaster()(compose_config(plain, "plan"))
    outcome.flops, outcome.trained = forecast.training * own["trained"], forecast.trained


def _all(chain: Link) -> list[Link]:
    return [chain, *(link for parent in chain.parents for link in _all(parent))]


def _write(folder: Path, outcome: Outcome) -> Outcome:
    new = folder / f"{outcome.cell}.json.{os.getpid()}"
    new.write_text(json.dumps({**asdict(outcome), "written": time.strftime("%Y-%m-%dT%H:%M:%S")}, indent=2) + "\n")
    new.replace(folder / f"{outcome.cell}.json")
    return outcome
