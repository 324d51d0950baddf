"""Forecast the cost of runs: ``omnihuman plan +experiment=humanomni_stage3 size=7b [-m frames=8,16]``."""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from omnihuman.build import compose_config, config_dir, register_resolvers
from omnihuman.keys import check_keys
from omnihuman.mistake import explain
from omnihuman.overrides import expand_sweep, parse_overrides, select_keys
from omnihuman.training.base import rebase
from omnihuman.values import check_types
from omnihuman.verb import program

if TYPE_CHECKING:
    from omnihuman.cost.forecast import Forecast, Forecaster

CONFIG_ERRORS = (ValueError, RuntimeError, HydraException, OmegaConfBaseException)
"""Errors of a config that cannot run."""
MIN_CELLS_FOR_PROCESSES = 8
FOOTNOTE = """FLOPs: 2 for a multiplication with its addition; causal attention counts half. Training: the products of a
frozen part cost 2 x, with gradients passing through 4 x, trained 6 x the multiplications; attention 2 x or 6 x;
checkpointed blocks once more. Activations are those of a full packed sequence, half with operations in 16 bits, and
without attention scores; 16-bit copies are those that autocast makes of float32 weights; gathered and reduced are the
parameters and the gradients of the units of a sharded model. No data is read: one sample represents all."""


@program("plan")
def main(arguments: Sequence[str]) -> int:
    """Print the forecast of one cell in full, or of every cell of a sweep as a table; return 1 if none is possible."""
    parser = argparse.ArgumentParser(prog="omnihuman plan", description=f"{__doc__} Options: conf/plan.yaml.")
    parser.add_argument("-m", "--multirun", action="store_true", help="every cell of the sweep a=x,y b=1,2 ...")
    parser.add_argument("overrides", nargs="*", help="those of omnihuman train and of conf/plan.yaml")
    options = parser.parse_intermixed_args(arguments)
    register_resolvers()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cells = expand_sweep(options.overrides, options.multirun)
        forecasts = forecast_cells(cells)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    first = forecasts[0]
    if len(cells) == 1 and isinstance(first, str):
        raise ValueError(first)
    if len(cells) == 1 and not isinstance(first, str):
        print_cell(first, console)
    else:
        print_cells(cells, forecasts, console)
    console.print(FOOTNOTE, style="dim")
    for override in select_keys(options.overrides, "json"):
        Path(override.choices[0]).write_text(json.dumps(to_json(cells, forecasts), indent=2) + "\n")
    return int(all(isinstance(forecast, str) for forecast in forecasts))


def forecast_cells(cells: Sequence[Sequence[str]]) -> "list[Forecast | str]":
    """Return the forecast of every cell, or the reason why it is impossible; Hydra must be initialized."""
    if len(cells) < MIN_CELLS_FOR_PROCESSES or "fork" not in multiprocessing.get_all_start_methods():
        return _forecast_configs(map(_compose, cells))
    # Composing a cell takes as long as its forecast and needs no torch: it runs ahead, also while torch is imported.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        return _forecast_configs(pool.map(_compose, cells, chunksize=2))


def _compose(cell: Sequence[str]) -> DictConfig | str:
    try:
        config = compose_config(cell, "plan")
        check_keys(cell, config, "plan")
        check_types(cell, "plan")
        return rebase(config, cell)
    except CONFIG_ERRORS as error:
        return explain(error, cell, "plan") or format_error(error)


def _forecast_configs(configs: Iterable[DictConfig | str]) -> "list[Forecast | str]":
    forecaster: Forecaster | None = None
    forecasts: list[Forecast | str] = []
    for config in configs:
        if isinstance(config, str):
            forecasts.append(config)
            continue
        forecaster = forecaster or _build_forecaster()
        try:
            forecasts.append(forecaster(config))
        except CONFIG_ERRORS as error:
            forecasts.append(format_error(error))
    return forecasts


def _build_forecaster() -> "Forecaster":
    # Imports torch: a config that cannot be composed is refused before.
    import transformers

    from omnihuman.cost.forecast import Forecaster

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return Forecaster()


def format_error(error: BaseException) -> str:
    """Return the first line of an error."""
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, ValueError | HydraException):
        return message
    return f"{type(error).__name__}: {message}"


def to_json(cells: Sequence[Sequence[str]], forecasts: "Sequence[Forecast | str]") -> list[dict[str, object]]:
    """Return every cell with the numbers of its forecast, or with the reason why it is impossible."""
    rows = []
    for cell, forecast in zip(cells, forecasts, strict=True):
        row: dict[str, object] = {"overrides": list(cell)}
        if isinstance(forecast, str):
            row["impossible"] = forecast
        else:
            row.update(forecast.to_json())
        rows.append(row)
    return rows


def print_cell(forecast: "Forecast", console: Console) -> None:
    """Print one cell in full: parts, memory, hours."""
    columns = ("part", "class", "million", "trained", "stream", "shape", "tokens", "TFLOPs", "training", "saved GiB")
    table = _build_table("one sample, part by part", columns, left=("part", "class", "stream"))
    for part in forecast.parts:
        table.add_row(
            part.name,
            part.class_name,
            f"{part.parameters / 1e6:,.2f}",
            f"{part.trained / 1e6:,.2f}",
            part.stream,
            " ".join(map(str, part.shape)),
            f"{part.tokens:,}",
            f"{part.forward / 1e12:.3g}",
            f"{part.training / 1e12:.3g}",
            f"{part.activations / 2**30:.3g}",
            style="bold" if part.trained else "dim",
        )
    console.print(table)
    memory = _build_table("GiB on each device", ("for", "GiB"), left=("for",))
    for name, size in forecast.memory.items():
        memory.add_row(name, f"{size / 2**30:.2f}")
    memory.add_row("all", f"{forecast.gib:.2f}")
    console.print(memory)
    slots = ", ".join(f"{count} {slot} tokens" for slot, count in forecast.slots.items())
    console.print(f"a sample: {slots}, {forecast.length} positions; {forecast.packed} in a packed sequence")
    console.print(f"training: {forecast.training / 1e12:.4g} TFLOPs a sample, {forecast.hours:.4g} {forecast.basis}")


def print_cells(cells: Sequence[Sequence[str]], forecasts: "Sequence[Forecast | str]", console: Console) -> None:
    """Print one line for every possible cell of a sweep, and below them the impossible cells by reason."""
    common = set[str]()
    if len(cells) > 1:
        common = set(cells[0]).intersection(*cells)
    title = " ".join(text for text in cells[0] if text in common)
    keys: list[str] = []
    names = []
    for cell in cells:
        swept = parse_overrides(text for text in cell if text not in common)
        keys = [override.key.removeprefix("model.") for override in swept]
        names.append([override.value for override in swept])
    _print_possible(title, keys, names, forecasts, console)
    impossible: dict[str, list[str]] = {}
    for values, forecast in zip(names, forecasts, strict=True):
        if isinstance(forecast, str):
            cell = ", ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
            impossible.setdefault(forecast, []).append(cell)
    for reason, lines in impossible.items():
        console.print("\nimpossible:", reason, style="bold", markup=False, highlight=False)
        for line in lines:
            console.print("  ", line, markup=False, highlight=False)


def _print_possible(
    title: str,
    keys: Sequence[str],
    names: Sequence[Sequence[str]],
    forecasts: "Sequence[Forecast | str]",
    console: Console,
) -> None:
    columns = (*keys, "video", "audio", "million", "trained", "TFLOPs", "GiB", "hours")
    table = _build_table(title, columns, left=keys)
    basis = ""
    for values, forecast in zip(names, forecasts, strict=True):
        if isinstance(forecast, str):
            continue
        basis = basis or forecast.basis
        table.add_row(
            *values,
            f"{forecast.slots['video']:,}",
            f"{forecast.slots['audio']:,}",
            f"{forecast.parameters / 1e6:,.2f}",
            f"{forecast.trained / 1e6:,.2f}",
            f"{forecast.training / 1e12:.4g}",
            f"{forecast.gib:.2f}",
            f"{forecast.hours:.3g}",
        )
    if table.row_count:
        console.print(table)
        console.print(f"{table.row_count} of {len(forecasts)} cells are possible; {basis}")


def _build_table(title: str, columns: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table


if __name__ == "__main__":
    sys.exit(main())
