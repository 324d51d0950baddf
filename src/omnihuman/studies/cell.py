"""One cell of a study with one seed: trained unless it is finished, evaluated, and its outcome written."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from omnihuman.build import compose_config
from omnihuman.overrides import quote, quote_argument, select_keys, without_keys
from omnihuman.source.root import expand_data_paths
from omnihuman.studies.config import build_evaluations, list_seeds, read_cells
from omnihuman.studies.outcome import Outcome, locate_results, name_outcome, read_outcome, write_outcome
from omnihuman.training.chain import Chain, resolve_variant
from omnihuman.training.naming import build_folder_name
from omnihuman.verb import PATH_KEYS

log = logging.getLogger(__name__)

OWN_KEYS = {
    "seed": "seeds=[1,2,3] is its list of seeds",
    "parent_seed": "parent_seeds=own trains parents of each seed",
    "size": "write it before --",
    "runs": "write it before --",
    "variant": "a folder is named after study and cell",
    "overwrite": "overwrite=true before -- replaces runs of another config",
    "dry_run": "dry_run=true before -- prints the commands",
}
"""Keys of ``train`` that a study sets -> what to write instead."""

DTYPES = {"bf16": "bfloat16", "bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""Precision of a training -> dtype of the weights in its evaluations; others are evaluated as saved."""

FOLDER_LINE = re.compile(r"^written to (.+)$", re.MULTILINE)
"""The last line that ``omnihuman evaluate`` prints for each benchmark."""


def run_cell(config: DictConfig) -> Outcome:
    """Train and evaluate one cell with one seed as far as it is not finished; write and return its outcome.

    A failure is an outcome as well, so that the other cells are still run.
    """
    folder = locate_results(config)
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(_name_outcome(config), "running")
    try:
        chain = build_chain(config, config.cell, config.cell_seed)
        evaluations = list_evaluations(config, config.cell, chain)
        digest = hashlib.sha256(json.dumps([chain.run.digest, evaluations], sort_keys=True).encode()).hexdigest()[:16]
        previous = read_outcome(folder, outcome.cell)
        if previous is not None and previous.is_current(digest) and chain.run.is_finished():
            log.info("%s: already finished", outcome.cell)
            return previous
        outcome = replace(outcome, digest=digest, command=" ".join(chain.command), run=str(chain.run.folder))
        if config.halving and not survives_halving(config, folder, str(config.cell)):
            outcome.status = "halved"
        else:
            write_outcome(folder, outcome)
            _train_and_evaluate(config, outcome, chain, evaluations)
            outcome.status = "finished"
    except Exception as error:  # any error is this cell's outcome, which the table reports
        outcome.status, outcome.error = "failed", str(error)
        log.error("%s failed: %s", outcome.cell, error)
    write_outcome(folder, outcome)
    return outcome


def _name_outcome(config: DictConfig) -> str:
    """Return ``cell,seed=1``, or ``cell,seed=1@steps`` at a rung of successive halving."""
    name = name_outcome(config.cell, config.cell_seed)
    return name if config.rung is None else f"{name}@{config.halving.steps[config.rung]}"


def build_chain(config: DictConfig, cell: str, seed: int) -> Chain:
    """Return the run of a cell and a seed with its parents; cells that agree in a run share its folder.

    Raises:
        ValueError: the study has no such cell, or an override of its trainings changes what the study itself sets.
    """
    cells = read_cells(config)
    if cell not in cells:
        raise ValueError(f"cell={cell}: unknown cell of the study {config.study}; expected {', '.join(cells)}.")
    train = cells[cell].get("train", ())
    added = expand_data_paths(map(str, [*config.common, *config.extra_overrides, *train]))
    added = [quote_argument(override, (), PATH_KEYS) for override in added]  # base=runs/nano/x/seed=1
    for override in select_keys(added, *OWN_KEYS):
        raise ValueError(f"{override}: the study sets {override.key} itself; {OWN_KEYS[override.key]}.")
    runs = quote_argument(f"runs={config.runs}", (), ("runs",))
    overrides = [f"size={config.size}", runs, f"seed={seed}"]
    if config.parent_seeds == "shared" and seed != config.seed:
        overrides.append(f"parent_seed={config.seed}")
    overrides += added
    # a cell without overrides has a folder of the experiment: it may be a parent, or a cell of another study
    folder_name = None
    if train or select_keys(added, "base"):
        folder_name = build_folder_name([f"{config.study}.{_find_first_equal(cells, cell)}", f"seed={seed}"])
    if config.rung is not None:
        # cells are ranked by their validation loss
        overrides += [f"trainer.max_steps={config.halving.steps[config.rung]}"]
        folder_name = build_folder_name([f"{config.study}.{cell}", f"seed={seed}@{config.rung}"])
    experiment = cells[cell].get("experiment", config.experiment)
    return resolve_variant(str(experiment), overrides, folder_name)


def _find_first_equal(cells: Mapping[str, Mapping[str, Any]], cell: str) -> str:
    """Return the first cell that is trained like this one: they differ in their evaluations, and share a run."""
    trainings = {name: (options.get("train"), options.get("experiment")) for name, options in cells.items()}
    return next(name for name, training in trainings.items() if training == trainings[cell])


def list_evaluations(config: DictConfig, cell: str, chain: Chain) -> dict[str, list[str]]:
    """Return the evaluations of a cell, name -> overrides, in the narrow precision of its training if it has one."""
    evaluations = build_evaluations(config, cell)
    dtype = DTYPES.get(str(chain.config.trainer.precision))
    if dtype is None:
        return evaluations
    return {name: [f"dtype={dtype}", *overrides] for name, overrides in evaluations.items()}


def list_commands(config: DictConfig, cell: str, seed: int) -> list[list[str]]:
    """Return the commands of a cell with a seed: its training, with its missing parents, and its evaluations."""
    chain = build_chain(config, cell, seed)
    commands = [chain.command]
    for overrides in _build_command_lines(chain, list_evaluations(config, cell, chain)):
        commands.append(["python", "-m", "omnihuman.evaluate", *overrides])
    return commands


def _build_command_lines(chain: Chain, evaluations: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the command line of each evaluation; as many processes as devices have trained share the questions."""
    devices = chain.config.trainer.devices
    if isinstance(devices, ListConfig):
        devices = len(devices)
    shared = []
    if devices != 1:
        shared = [f"processes={'auto' if devices == -1 else devices}"]
    run = locate_run(chain)
    return [[*run, f"tag={tag}", *shared, *overrides] for tag, overrides in evaluations.items()]


def survives_halving(config: DictConfig, folder: Path, cell: str) -> bool:
    """Return whether a cell is among the best of the previous rung by validation loss; before the first, all are.

    The rungs train with the first seed only.

    Raises:
        ValueError: no cell of the previous rung is finished.
    """
    rung = config.rung
    if rung is None:
        rung = len(config.halving.steps)
    if rung == 0:
        return True
    steps = config.halving.steps[rung - 1]
    names = list(read_cells(config))
    ranking = []
    for name in names:
        outcome = read_outcome(folder, f"{name_outcome(name, list_seeds(config)[0])}@{steps}")
        if outcome is not None and outcome.status == "finished" and outcome.loss is not None:
            ranking.append((outcome.loss, name))
    if not ranking:
        raise ValueError(f"{folder}: no cell is finished at {steps} steps; run rung={rung - 1} first.")
    num_survivors = max(1, round(len(names) * config.halving.fraction**rung))
    return cell in [name for _, name in sorted(ranking)[:num_survivors]]


def _train_and_evaluate(
    config: DictConfig, outcome: Outcome, chain: Chain, evaluations: Mapping[str, Sequence[str]]
) -> None:
    """Run the commands of a cell and fill in its outcome."""
    log.info("%s: %s", outcome.cell, outcome.command)
    log_file = locate_results(config) / f"{outcome.cell}.log"
    _run_python(chain.command[1:], log_file, config.threads)
    if config.rung is None:
        lines = [json.dumps(overrides) for overrides in _build_command_lines(chain, evaluations)]
        output = _run_python(["-m", "omnihuman.studies.evaluate", *lines], log_file, config.threads)
        outcome.evaluations |= dict(zip(evaluations, FOLDER_LINE.findall(output), strict=True))
    _compute_costs(outcome, chain)


def locate_run(chain: Chain) -> list[str]:
    """Return the overrides of ``omnihuman evaluate`` that name the run of a chain."""
    runs, size = str(chain.config.runs), str(chain.config.size)
    name, *variant = chain.run.folder.relative_to(Path(runs, size)).parts
    quoted = quote_argument(f"runs={runs}", (), ("runs",))
    return [f"run={name}", *(f"variant={quote(part)}" for part in variant), f"size={size}", quoted]


def _run_python(arguments: Sequence[str], log_file: Path, threads: int | None) -> str:
    """Return the output of a Python process; in a process of its own, so that a crash ends this cell alone.

    Raises:
        RuntimeError: the process failed.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    process = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )
    with log_file.open("a") as lines:
        lines.write(f"$ python {' '.join(arguments)}\n{process.stdout}\n")
    if process.returncode == 0:
        return process.stdout
    reason = f"exit status {process.returncode}"
    if process.returncode < 0:
        reason = f"killed by signal {-process.returncode}"
    last_line = ""
    for line in process.stdout.splitlines():
        if line.strip() and "HYDRA_FULL_ERROR" not in line:  # Hydra's hint after the error itself
            last_line = line.strip()
    raise RuntimeError(f"{reason}: {last_line}\ncommand: python {' '.join(arguments)}\noutput: {log_file}")


def _compute_costs(outcome: Outcome, chain: Chain) -> None:
    """Fill in the costs of a cell, from the ledgers of its chain and the forecast of its last stage."""
    import transformers

    from omnihuman.cost.forecast import Forecaster
    from omnihuman.training.base import rebase

    transformers.utils.logging.set_verbosity_error()
    # two parents may share a parent, whose time counts once
    ledgers = {run: json.loads((run / "ledger.json").read_text()) for run in _list_run_folders(chain)}
    ledger = ledgers[chain.run.folder]
    total = 0.0
    for stage in ledgers.values():
        total += stage["seconds"]
    outcome.seconds = (ledger["seconds"], total)
    outcome.loss = ledger["best"].get("val/loss")
    outcome.order_digest = ledger.get("order", "")
    overrides = without_keys(chain.overrides, "variant")
    forecast = Forecaster()(rebase(compose_config(overrides, "plan"), overrides))
    outcome.flops, outcome.num_trainable = forecast.training * ledger["trained"], forecast.trained


def _list_run_folders(chain: Chain) -> list[Path]:
    """Return the folders of the runs that were trained; a base was not."""
    folders = [chain.run.folder] if chain.overrides else []
    for parent in chain.parents:
        folders += _list_run_folders(parent)
    return folders
