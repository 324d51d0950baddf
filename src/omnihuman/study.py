"""Run a study: ``omnihuman study favchat_ablation [cell=full] [hydra/launcher=joblib] [-- frames=4]``.

A study is one of the package, a folder with a ``sweep.yaml``, or the path of that file. Overrides after ``--`` apply to
the training of all cells.
"""

import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from omnihuman.build import select_model_of_base
from omnihuman.overrides import quote, select_keys
from omnihuman.studies.config import (
    build_arguments,
    compose_study,
    drop_null_evaluations,
    find_studies,
    list_seeds,
    read_cells,
    register_axes,
    store_study,
)
from omnihuman.studies.outcome import name_outcome
from omnihuman.verb import program, verb

register_axes()


@verb("study", extra="eval")
def run(config: DictConfig) -> float | None:
    """Run one cell; return its validation loss, which a sweeper such as Optuna's minimises."""
    from omnihuman.studies.cell import run_cell

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    return run_cell(drop_null_evaluations(config)).loss


def quote_extra_overrides(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the overrides after ``--`` as one override of the study.

    >>> quote_extra_overrides(["favchat_ablation", "threads=1", "--", "frames=4", "trainer=fsdp"])
    ['favchat_ablation', 'threads=1', "extra_overrides=['frames=4','trainer=fsdp']"]
    """
    if "--" not in arguments:
        return list(arguments)
    separator = list(arguments).index("--")
    quoted = ",".join(map(quote, arguments[separator + 1 :]))
    return [*arguments[:separator], f"extra_overrides=[{quoted}]"]


def check_axes(config: DictConfig, overrides: Sequence[str]) -> None:
    """Check that ``cell=full,without_moe`` and ``cell_seed=1`` name cells and seeds of the study.

    Raises:
        ValueError: the study has no such cell or seed.
    """
    axes = {"cell": list(read_cells(config)), "cell_seed": list(map(str, list_seeds(config)))}
    for key, names in axes.items():
        unknown = []
        for override in select_keys(overrides, key):
            unknown += [name for name in override.choices if name not in names]
        if unknown:
            known = ", ".join(names)
            raise ValueError(f"{key}={','.join(unknown)}: unknown in the study {config.study}; expected {known}.")


def select_axes(config: DictConfig, overrides: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the cells and the seeds that the command line selects, or all."""
    axes: dict[str, Sequence[str]] = {"cell": list(read_cells(config)), "cell_seed": list(map(str, list_seeds(config)))}
    for key in axes:
        for override in select_keys(overrides, key):
            axes[key] = override.choices
    return axes


def quote_for_shell(argument: str) -> str:
    """Quote an argument for a shell where it is necessary, in double quotes where it has single ones of Hydra.

    >>> print(quote_for_shell("size=7b"), quote_for_shell("validation.views=[]"), quote_for_shell("variant='a,seed=1'"))
    size=7b 'validation.views=[]' "variant='a,seed=1'"
    """
    if "'" in argument and not set(argument) & set('"$`\\!'):
        return f'"{argument}"'
    return shlex.quote(argument)


def print_commands(config: DictConfig, overrides: Sequence[str]) -> None:
    """Print the commands of the selected cells and seeds: the training, which trains its parents, and the evaluations.

    Raises:
        ValueError: the first mistake in the names or the overrides of the study.
    """
    from omnihuman.studies.cell import list_commands
    from omnihuman.studies.check import check_names

    check_names(config)
    names = select_axes(config, overrides)
    for cell in names["cell"]:
        for seed in names["cell_seed"]:
            print(f"# {name_outcome(cell, int(seed))}")
            for command in list_commands(config, cell, int(seed)):
                print(" ".join(map(quote_for_shell, command)))


def add_size(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a study with the size of ``base``, if it trains the model of ``base`` and none is typed.

    Raises:
        ValueError: the base does not name its model.
    """
    command_line = [f"+experiment={config.experiment}", *map(str, config.extra_overrides)]
    if select_keys([*overrides, *command_line], "size"):
        return list(overrides)
    return [*overrides, *map(str, select_keys(select_model_of_base(command_line), "size"))]


@program("study")
def main(arguments: Sequence[str]) -> int:
    """Run the selected cells and write the table; return 1 where one of them failed."""
    if not arguments or arguments[0].startswith("-"):
        usage = str(__doc__).replace("``", "")
        print(f"{usage}\nStudies: {', '.join(find_studies())}. Keys of a study: conf/study.yaml.")
        return int(not arguments)
    arguments = quote_extra_overrides(arguments)
    study, *overrides = arguments
    overrides = add_size(compose_study(study, overrides), overrides)
    config = compose_study(study, overrides)
    check_axes(config, overrides)
    if config.dry_run:
        print_commands(config, overrides)
        return 0
    is_rung = bool(select_keys(overrides, "rung"))
    if not is_rung:
        from omnihuman.studies.check import check_study

        check_study(config)
        store_study(config)
    if config.halving and not is_rung:
        for rung in range(len(config.halving.steps)):
            # Hydra sweeps only once per process
            subprocess.run([sys.executable, "-m", "omnihuman.study", *arguments, f"rung={rung}"], check=True)
    run(build_arguments(study, overrides))
    if is_rung:
        return 0
    from omnihuman.studies.report import report_study

    results, selected = report_study(config), select_axes(config, overrides)
    seeds = list(map(int, selected["cell_seed"]))
    return int(not all(results[cell].is_complete(seeds) for cell in selected["cell"]))


if __name__ == "__main__":
    sys.exit(main())
