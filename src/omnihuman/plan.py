"""Predict what runs would cost: ``python -m omnihuman.plan +experiment=humanomni_stage3 size=7b [-m frames=8,16]``."""

import argparse
import itertools
import json
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from omnihuman.build import compose_config, config_dir, register_resolvers

if TYPE_CHECKING:
    from omnihuman.training.forecast import Forecast

IMPOSSIBLE = (ValueError, RuntimeError, HydraException, OmegaConfBaseException)
"""What a config raises that cannot run."""
FEW = 8
"""Cells for which no processes are started."""
FOOTNOTE = """FLOPs: 2 a multiplication with its addition; causal attention is half. Training: products of a frozen part
2 x, with gradients passing through 4 x, trained 6 x the multiplications; attention 2 x or 6 x; checkpointed blocks once
more. Activations are those of a full packed row, half in bf16-mixed, attention scores never held; bf16 copies are what
autocast makes of weights. No data is read: one sample stands for all."""


def cells_of(overrides: Sequence[str], sweep: bool) -> list[list[str]]:
    """Every combination of the choices in Hydra overrides: ``a=1,2 b=range(3)`` are six cells.

    Raises:
        ValueError: an override has several values where no sweep is asked for, or a range of real numbers.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    choices = []
    for override in parser.parse_overrides(list(overrides)):
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif not sweep or not override.is_discrete_sweep():
            cure = "give values, choices or a range" if sweep else "add -m"
            raise ValueError(f"{override.input_line} is more than one cell: {cure}.")
        else:
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    return [list(cell) for cell in itertools.product(*choices)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Forecast one cell in full or every cell of a sweep as a table; 1 where none is possible."""
    parser = argparse.ArgumentParser(prog="python -m omnihuman.plan", description=f"{__doc__} Options: conf/plan.yaml.")
    parser.add_argument("-m", "--multirun", action="store_true", help="every cell of the sweep a=x,y b=1,2 ...")
    parser.add_argument("overrides", nargs="*", help="as of omnihuman.train, and those of conf/plan.yaml")
    given = parser.parse_intermixed_args(arguments)
    register_resolvers()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cells = cells_of(given.overrides, given.multirun)
        forecasts = forecasts_of(cells)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    if len(cells) == 1 and not isinstance(forecasts[0], str):
        print_cell(forecasts[0], console)
    else:
        print_cells(cells, forecasts, console)
    console.print(FOOTNOTE, style="dim")
    if file := next((each.partition("=")[2] for each in given.overrides if each.startswith("json=")), None):
        Path(file).write_text(json.dumps(numbers(cells, forecasts), indent=2) + "\n")
    return int(all(isinstance(forecast, str) for forecast in forecasts))


def forecasts_of(cells: Sequence[Sequence[str]]) -> "list[Forecast | str]":
    """For every cell the forecast, or the reason why there can be none; Hydra is initialized."""
    if len(cells) < FEW or "fork" not in multiprocessing.get_all_start_methods():
        return _forecasts(map(_compose, cells))
    # Hydra takes as long for a cell as its forecast, and needs no torch: it runs ahead, also while torch is imported
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        return _forecasts(pool.map(_compose, cells, chunksize=2))


def _compose(cell: Sequence[str]) -> DictConfig | str:
    from omnihuman.training.finished import rebase

    try:
        config = compose_config(cell, "plan")
        rebase(config, cell)
        return config
    except IMPOSSIBLE as error:
        return reason(error)


def _forecasts(configs: Iterable[DictConfig | str]) -> "list[Forecast | str]":
    import transformers

    from omnihuman.training.forecast import Forecaster

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    forecaster, made = Forecaster(), []
    for config in configs:
        try:
            made.append(config if isinstance(config, str) else forecaster(config))
        except IMPOSSIBLE as error:
            made.append(reason(error))
    return made


def reason(error: BaseException) -> str:
    """The first line of what was said first."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, ValueError | HydraException) else f"{type(error).__name__}: {said}"


def numbers(cells: Sequence[Sequence[str]], forecasts: "Sequence[Forecast | str]") -> list[dict[str, object]]:
    """Every cell with its numbers or the reason why it has none."""
    return [
        {"overrides": list(cell)} | ({"impossible": each} if isinstance(each, str) else each.numbers())
        for cell, each in zip(cells, forecasts, strict=True)
    ]


def print_cell(forecast: "Forecast", console: Console) -> None:
    """One cell in full: parts, memory, hours."""
    columns = ("part", "class", "million", "trained", "stream", "shape", "tokens", "TFLOPs", "training", "keeps GiB")
    table = _table("one sample, part by part", columns, left=("part", "class", "stream"))
    for part in forecast.parts:
        table.add_row(
            part.name, part.kind, f"{part.parameters / 1e6:,.2f}", f"{part.trained / 1e6:,.2f}", part.makes,
            " ".join(map(str, part.shape)), f"{part.tokens:,}", f"{part.forward / 1e12:.3g}",
            f"{part.training / 1e12:.3g}", f"{part.activations / 2**30:.3g}", style="bold" if part.trained else "dim",
        )  # fmt: skip
    console.print(table)
    memory = _table("GiB on each device", ("for", "GiB"), left=("for",))
    for name, size in [*forecast.memory.items(), ("all", forecast.gib * 2**30)]:
        memory.add_row(name, f"{size / 2**30:.2f}")
    console.print(memory)
    slots = ", ".join(f"{count} {slot} tokens" for slot, count in forecast.slots.items())
    console.print(f"a sample: {slots}, {forecast.length} positions; {forecast.packed} in a packed row")
    console.print(f"training: {forecast.training / 1e12:.4g} TFLOPs a sample, {forecast.hours:.4g} {forecast.reckoned}")


def print_cells(cells: Sequence[Sequence[str]], forecasts: "Sequence[Forecast | str]", console: Console) -> None:
    """A line for every cell of a sweep, and below those that cannot be, by their reasons."""
    varies = [len(set(values)) > 1 or len(cells) == 1 for values in zip(*cells, strict=True)]
    keys = [
        each.partition("=")[0].rpartition("model.")[2] for each, swept in zip(cells[0], varies, strict=True) if swept
    ]
    shown = [tuple(each.partition("=")[2] for each, swept in zip(cell, varies, strict=True) if swept) for cell in cells]
    there = [(name, each) for name, each in zip(shown, forecasts, strict=True) if not isinstance(each, str)]
    if there:
        common = " ".join(each for each, swept in zip(cells[0], varies, strict=True) if not swept)
        columns = (*keys, "video", "audio", "million", "trained", "TFLOPs", "GiB", "hours")
        table = _table(common, columns, left=keys)
        for name, each in there:
            table.add_row(
                *name, f"{each.slots['video']:,}", f"{each.slots['audio']:,}", f"{each.parameters / 1e6:,.2f}",
                f"{each.trained / 1e6:,.2f}", f"{each.training / 1e12:.4g}", f"{each.gib:.2f}", f"{each.hours:.3g}",
            )  # fmt: skip
        console.print(table)
        console.print(f"{len(there)} of {len(cells)} cells are possible; {there[0][1].reckoned}")
    lost: dict[str, list[str]] = {}
    for name, forecast in zip(shown, forecasts, strict=True):
        if isinstance(forecast, str):
            lost.setdefault(forecast, []).append(", ".join(f"{k}={v}" for k, v in zip(keys, name, strict=True)))
    for why, names in lost.items():
        console.print("\nimpossible:", why, style="bold", markup=False, highlight=False)
        for cell in names:
            console.print("  ", cell, markup=False, highlight=False)


def _table(title: str, columns: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table


if __name__ == "__main__":
    sys.exit(main())
