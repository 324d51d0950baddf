"""Run a study: ``python -m omnihuman.study favchat_ablation [cell=full] [hydra/launcher=joblib] [-- frames=4]``.

What stands behind ``--`` holds for the training of all cells.
"""

import logging
import subprocess
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from omnihuman.study.config import arguments_of, cells_of, compose_study, register_cells
from omnihuman.verb import verb

register_cells()


@verb("study")
def run(config: DictConfig) -> float | None:
    """One cell; its validation loss is what a sweeper such as Optuna's would minimise."""
    from omnihuman.study.cell import run_cell

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    return run_cell(config).loss


def with_also(given: Sequence[str]) -> list[str]:
    """The command line with what stands behind ``--`` as one override of the study.

    >>> with_also(["favchat_ablation", "threads=1", "--", "frames=4", "trainer=fsdp"])
    ['favchat_ablation', 'threads=1', "also=['frames=4','trainer=fsdp']"]
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    if "--" not in given:
        return list(given)
    place = list(given).index("--")
    quoted = [QuotedString(each, Quote.single).with_quotes() for each in given[place + 1 :]]
    return [*given[:place], f"also=[{','.join(quoted)}]"]


def check_cells(config: DictConfig, overrides: Sequence[str]) -> None:
    """Whether ``cell=full,without_moe`` names cells of the study.

    Raises:
        ValueError: it has no such cell.
    """
    named = [name for each in overrides if each.startswith("cell=") for name in each[len("cell=") :].split(",")]
    there = cells_of(config)
    if foreign := [name for name in named if name not in there]:
        raise ValueError(f"cell={','.join(foreign)}: the study {config.study} has {', '.join(there)}.")


def main(given: Sequence[str]) -> int:
    """All cells, then the table; 1 where a cell failed, 2 where the command line does not hold."""
    if not given or given[0].startswith("-"):
        print(f"{__doc__}\nStudies: experiments/*/sweep.yaml; what a study says: conf/study.yaml.")
        return int(not given)
    given = with_also(given)
    study, *overrides = given
    try:
        config = compose_study(study, overrides)
        check_cells(config, overrides)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    is_rung = any(override.startswith("rung=") for override in overrides)
    for rung in range(len(config.halving.steps)) if config.halving and not is_rung else ():
        # a process of its own: Hydra sweeps once
        subprocess.run([sys.executable, "-m", "omnihuman.study", *given, f"rung={rung}"], check=True)
    sys.argv[1:] = arguments_of(study, overrides)
    run()
    if is_rung:
        return 0
    from omnihuman.study.report import report_study

    return int(not report_study(config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
