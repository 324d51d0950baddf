"""Every stage of the three systems on 1, 2 and 4 processes: the same losses, what is sent, what a checkpoint costs.

``make scale`` trains what is missing in runs/scale and writes RESULTS.md beside this file.

python experiments/scale/measure.py [experiment ... | costs] [out=runs/scale]
"""

import csv
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ranks import train

from omnihuman.build import compose_config, config_dir
from omnihuman.corpus.world import build_scenes
from omnihuman.corpus.write import MARKER, VERSION, write_scene

SYSTEMS = ("humanomni", "omni_emotion", "favchat")
TRAINERS = (("ddp", 2), ("ddp", 4), ("fsdp", 2), ("fsdp", 4))
CONTROL = "rows"
"""One process again, with the rows of so many ranks: what sums in another order change."""

CONTROLS = ((CONTROL, 2), (CONTROL, 4))

LIMIT = 1e-5
"""Largest difference of losses in float32 that counts as none: from one process, or from one with the same rows.

Where those two differ by more themselves, the ranks may differ from the second one by half of that.
"""

TIMEOUT = 900
STEPS, LONG = 20, 200
FILE = Path(__file__).with_name("RESULTS.md")

SMALL = (
    "init_from=[]",
    "frames=2",
    "data=json",
    "data.num_workers=0",
    "data.val_limit=6",
    "recipe.batch_size=4",
    "recipe.max_tokens=400",
    "recipe.max_epochs=20",
    "recipe.checkpoint_every=1000",
    "validate_first=false",
    "logger=csv",
)
"""Few frames, few samples of a step, and no parents: their weights are those of the seed."""

ANSWERS = ("val_every=10", "validation.views=${data.views}", "validation.limit=3")
"""Validations in the training, each with answers to a few questions."""

LORA = "model.llm.lora={r: 4, lora_alpha: 8, lora_dropout: 0.0, target_modules: all-linear}"
FULL = "model.llm.lora=null"
TRAINED_ENCODERS = "recipe.encoder_lr=2e-4"
"""Of FaVChat's first two stages: the paper trains them, and the preset of nano leaves them frozen."""


@dataclass(frozen=True)
class Cell:
    """A training that runs once on each trainer and number of ranks.

    Attributes:
        name: row of the table.
        experiment: its name.
        overrides: beside ``SMALL``.
        steps: optimizer steps.
    """

    name: str
    experiment: str
    overrides: tuple[str, ...]
    steps: int = STEPS


SAVED = Cell(
    name="checkpoints",
    experiment="humanomni_stage1",
    overrides=("recipe.checkpoint_every=1", "trainer.limit_val_batches=0", "validation.views=[]"),
)
"""A training with a checkpoint after every step, written in both ways by turns: the load of a machine changes."""

SPLIT = Cell(
    name="",
    experiment="humanomni_stage1",
    overrides=("recipe.batch_size=8", "recipe.max_tokens=150", "trainer.limit_val_batches=0", "validation.views=[]"),
    steps=4,
)
"""A training whose steps have several micro-batches, ..."""

REDUCTIONS = {"after every micro-batch": "trainer.reduce_each=true", "after the last": "trainer.reduce_each=false"}
"""... after which gradients are reduced."""

COSTS = "costs"
"""Word of the command line for the trainings that measure nothing but costs."""


# ------------------------------------------------------------------------------------------------------------ trainings


def list_cells(corpus: Path) -> list[Cell]:
    """List every stage in full, again with LoRA where the LLM trains, and one with modalities that differ by rank."""
    cells = []
    for experiment in sorted(path.stem for path in Path(config_dir(), "experiment").glob("*.yaml")):
        if not experiment.startswith(SYSTEMS):
            continue
        config = compose_config([f"+experiment={experiment}"])
        more: tuple[str, ...] = ANSWERS
        if "encoders.*" in config.trainable:
            more = (*more, TRAINED_ENCODERS)
        cells.append(Cell(f"{experiment}, full", experiment, (*more, FULL)))
        if any(str(pattern).startswith("llm") for pattern in config.trainable):
            cells.append(Cell(f"{experiment}, LoRA", experiment, (*more, LORA)))
    pairs = f"data.records={corpus}/pairs.json"
    disjoint = (*ANSWERS[1:], "val_every=100", pairs, "recipe.batch_size=2", "recipe.max_epochs=200")
    cells.append(Cell("humanomni_stage3, ranks with other modalities", "humanomni_stage3", disjoint, LONG))
    return cells


def write_corpus(folder: Path) -> None:
    """Write a few scenes of the built-in corpus, and a pair of records without a common modality."""
    if (folder / MARKER).is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "media").mkdir(parents=True)
    scenes = build_scenes(0)
    splits: dict[str, list[Any]] = {"train": [], "val": []}
    for split, step in (("train", 25), ("val", 12)):
        for scene in [scene for scene in scenes if scene.split == split][::step]:
            splits[split] += write_scene(scene, str(folder), 0)
    records = splits["train"]
    silent = next(entry for entry in records if "video" in entry and "<audio>" not in _first_turn(entry))
    splits["pairs"] = [silent, next(entry for entry in records if "audio" in entry)]
    for name, entries in splits.items():
        (folder / f"{name}.json").write_text(json.dumps(entries))
    (folder / MARKER).write_text(json.dumps({"seed": 0, "version": VERSION, "files": {}}))


def _first_turn(record: dict[str, Any]) -> str:
    return str(record["conversations"][0]["value"])


def run(cell: Cell, strategy: str, num_ranks: int, out: Path) -> dict[str, Any]:
    """Train a cell and return its losses with what its ranks have measured; ``error`` if it fails."""
    corpus = out / "corpus"
    runs = out / re.sub(r"\W+", "_", cell.name) / f"{strategy}{num_ranks}"
    shutil.rmtree(runs, ignore_errors=True)
    overrides = [
        f"+experiment={cell.experiment}",
        *SMALL,
        f"data.records={corpus}/train.json",
        f"data.val_records={corpus}/val.json",
        f"data.root={corpus}",
        f"data.features={corpus}/features",
        *cell.overrides,
        f"runs={runs}",
        f"recipe.max_steps={cell.steps}",
        "trainer.accelerator=cpu",
    ]
    num_rows = num_ranks
    if strategy == CONTROL:
        num_ranks = 1
    elif strategy != "auto":
        overrides.append(f"trainer={strategy}")
    try:
        ranks = train([*overrides, f"trainer.devices={num_ranks}"], num_ranks, runs, TIMEOUT, num_rows)
    except RuntimeError as error:
        return {"error": str(error)}
    (table,) = runs.glob("nano/*/metrics.csv")
    result = {"losses": read_column(table, "train/loss"), "val": read_column(table, "val/loss"), "ranks": ranks}
    for file in runs.rglob("*.safetensors"):
        file.unlink()
    return result


def read_column(table: Path, name: str) -> list[float]:
    with table.open(newline="") as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row.get(name)]


def list_costs() -> list[tuple[Cell, tuple[str, int]]]:
    """List the trainings that measure checkpoints and reductions, with their trainers and ranks."""
    splits = [replace(SPLIT, name=name, overrides=(*SPLIT.overrides, option)) for name, option in REDUCTIONS.items()]
    return [*product([SAVED], (("auto", 1), ("ddp", 2), ("fsdp", 2))), *product(splits, (("fsdp", 2),))]


def measure(cells: Sequence[Cell], out: Path, *, with_costs: bool) -> dict[str, Any]:
    """Return the results of all cells by name and trainer; those of an earlier call are taken from its file."""
    file = out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    pairs = [*product(cells, (("auto", 1), *CONTROLS, *TRAINERS)), *(list_costs() if with_costs else ())]
    for cell, (strategy, num_ranks) in pairs:
        row, key = results.setdefault(cell.name, {}), f"{strategy}{num_ranks}"
        if "losses" not in row.get(key, {}):
            row[key] = run(cell, strategy, num_ranks, out)
            file.write_text(json.dumps(results))
            print(f"{cell.name}, {key}: {row[key].get('error') or describe(row, key)}", flush=True)
    return results


# --------------------------------------------------------------------------------------------------------------- report


def compare(row: dict[str, Any], key: str, base: str = "auto1") -> float:
    """Return the largest difference of the losses of training and validation from those of one process."""
    differences = []
    for name in ("losses", "val"):
        for value, expected in zip(row[key][name], row[base][name], strict=True):
            differences.append(abs(value - expected))
    return max(differences)


def is_trained(row: dict[str, Any], *keys: str) -> bool:
    return all("losses" in row.get(key, {}) for key in keys)


def is_equal(row: dict[str, Any], key: str, num_ranks: int) -> bool:
    """Return True if the losses are those of one process, or of one with the same rows: see ``LIMIT``."""
    control = f"{CONTROL}{num_ranks}"
    if not is_trained(row, "auto1", control, key):
        return False
    return compare(row, key) <= LIMIT or compare(row, key, control) <= max(LIMIT, compare(row, control) / 2)


def describe(row: dict[str, Any], key: str, base: str = "auto1") -> str:
    """Return a cell of the first table: a difference, or that there is none."""
    if not is_trained(row, base, key):
        return "fails" if "error" in row.get(key, {}) else ""
    return f"{compare(row, key, base):.0e}"


def format_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def format_losses(results: dict[str, Any], cells: Sequence[Cell]) -> list[str]:
    rows = []
    for cell in cells:
        if row := results.get(cell.name):
            num_losses = len(row["auto1"].get("losses", ()))
            texts = [describe(row, f"{name}{ranks}") for name, ranks in (*TRAINERS, *CONTROLS)]
            texts += [describe(row, f"{name}{ranks}", f"{CONTROL}{ranks}") for name, ranks in TRAINERS]
            rows.append([cell.name, num_losses, *texts])
    heads = [f"{name.upper()}, {ranks}" for name, ranks in TRAINERS]
    controls = [f"control, {ranks}" for _, ranks in CONTROLS]
    return format_table(["stage", "steps", *heads, *controls, *(f"{head} - control" for head in heads)], rows)


def format_collectives(results: dict[str, Any], cells: Sequence[Cell]) -> list[str]:
    rows = []
    for cell in cells:
        row = results.get(cell.name, {})
        if not is_trained(row, "ddp2", "fsdp2"):
            continue
        ddp, fsdp = row["ddp2"]["ranks"][0], row["fsdp2"]["ranks"][0]
        entries = [(ddp, "allreduce"), (fsdp, "allgather_base"), (fsdp, "reduce_scatter_base")]
        texts = [f"{rank['calls'].get(name, 0)}: {rank['bytes'].get(name, 0) / 1e6:.2f}" for rank, name in entries]
        rows.append([cell.name, *texts])
    return format_table(["stage", "DDP all-reduces: MB", "FSDP2 all-gathers: MB", "FSDP2 reduce-scatters: MB"], rows)


def find_largest(result: dict[str, Any]) -> int:
    """Return the bytes of the rank that has taken most memory."""
    return max(rank["memory"] for rank in result["ranks"])


def format_memory(results: dict[str, Any], cells: Sequence[Cell]) -> list[str]:
    keys = ("auto1", "fsdp2", "fsdp4")
    rows = []
    for cell in cells:
        row = results.get(cell.name, {})
        if is_trained(row, *keys):
            rows.append([cell.name, *(f"{find_largest(row[key]) / 2**20:.0f}" for key in keys)])
    return format_table(["stage", "1", "FSDP2, 2", "FSDP2, 4"], rows)


def format_stalls(results: dict[str, Any]) -> list[str]:
    rows = []
    for key, row in results.get(SAVED.name, {}).items():
        stalls = row["ranks"][0]["stalls"] if "ranks" in row else []
        if stalls:
            rows.append([key, *(f"{1000 * median(stalls[turn::2]):.0f} ({len(stalls[turn::2])})" for turn in (0, 1))])
    return format_table(["trainer and ranks", "asynchronous", "blocking"], rows)


def format_reductions(results: dict[str, Any]) -> list[str]:
    rows = []
    for name in REDUCTIONS:
        row = results.get(name, {}).get("fsdp2", {})
        if "ranks" not in row:
            continue
        rank = row["ranks"][0]
        texts = []
        for collective in ("allgather_base", "reduce_scatter_base"):
            texts.append(f"{rank['calls'].get(collective, 0)}: {rank['bytes'].get(collective, 0) / 1e6:.2f}")
        rows.append([name, rank["micro_batches"], *texts])
    return format_table(["gradients are reduced", "micro-batches", "all-gathers: MB", "reduce-scatters: MB"], rows)


def write_report(results: dict[str, Any], cells: Sequence[Cell]) -> None:
    lines = [
        "# The same losses on 1, 2 and 4 processes",
        "",
        f"Written by `make scale`. Each stage is trained at nano size in float32, {STEPS} steps of four samples, with "
        "two validations and their answers, by one process and by two and four (gloo, CPU). A cell is the largest "
        "difference of any loss, of training or validation, from that of one process. Full: what the paper trains, "
        "with LoRA replaced by the whole LLM. The last row: two records without a common modality in every step. A "
        "control is one process with the rows of two or four ranks; the last columns compare the ranks with theirs. "
        f"Where one process differs from a control by more than 1e-5, the reason is the order of sums, and the "
        "ranks may differ from the control by half of that.",
        "",
        *format_losses(results, cells),
        "",
        f"{sum(cell.name in results for cell in cells)} of {len(cells)} rows have been trained so far.",
        "",
        "## What a step sends",
        "",
        "Collectives of one step on two processes before the gradient is clipped, and the MB of the whole tensors.",
        "",
        *format_collectives(results, cells),
        "",
        "One step of humanomni_stage1 in full on two ranks of FSDP2, by `trainer.reduce_each`.",
        "",
        *format_reductions(results),
        "",
        "## What a checkpoint costs",
        "",
        "Milliseconds for which the training stands still, median (number of checkpoints), humanomni_stage1 in full.",
        "",
        *format_stalls(results),
        "",
        "## Memory of a rank",
        "",
        "MiB of memory of its own (RssAnon) that the largest rank has taken when its training begins: model and data.",
        "",
        *format_memory(results, cells),
    ]
    FILE.write_text("\n".join(lines) + "\n")


def main() -> int:
    """Train what the command line names, write the report, and return 1 if a difference is too large."""
    names = [word for word in sys.argv[1:] if "=" not in word]
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    out = Path(options.get("out", "runs/scale")).absolute()
    torch.set_num_threads(1)
    write_corpus(out / "corpus")
    cells = list_cells(out / "corpus")
    selected = [cell for cell in cells if not names or cell.experiment in names]
    results = measure(selected, out, with_costs=not names or COSTS in names)
    write_report(results, cells)
    failures = []
    for cell in selected:
        row = results[cell.name]
        for name, ranks in TRAINERS:
            key = f"{name}{ranks}"
            if not is_equal(row, key, ranks):
                failures.append(f"{cell.name}, {key}: {row[key].get('error') or compare(row, key)}")
    print("\n".join(failures) or f"{FILE}: all losses are those of one process, or of one with the same rows")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
