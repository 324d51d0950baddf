"""Run a study: ``python -m omnihuman.study favchat_ablation [cell=full,without_moe] [hydra/launcher=joblib]``."""

import logging
import subprocess
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from omnihuman.build import config_dir, register_resolvers
from omnihuman.study.config import arguments_of, cells_of, compose_study, register_cells

register_resolvers()
register_cells()


@hydra.main(config_path=config_dir(), config_name="study", version_base="1.3")
def run(config: DictConfig) -> float | None:
    """One cell; its validation loss is what a sweeper such as Optuna's would minimise."""
    from omnihuman.study.cell import run_cell

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    return run_cell(config).loss


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
    study, *overrides = given
    try:
        config = compose_study(study, overrides)
        check_cells(config, overrides)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if config.halving and config.rung is None:
        for rung in range(len(config.halving.steps)):
            subprocess.run([sys.executable, "-m", "omnihuman.study", *given, f"rung={rung}"], check=True)
    sys.argv[1:] = arguments_of(study, overrides)
    run()
    if any(override.startswith("rung=") for override in overrides):
        return 0
    from omnihuman.study.report import report_study

    return int(not report_study(config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
