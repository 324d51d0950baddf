"""A dry run: the chain, parts, tokens and steps of a stage, printed without loading weights."""

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from omnihuman.build import build
from omnihuman.cost.forecast import build_meta_model
from omnihuman.data.ceiling import summarize_reasons
from omnihuman.data.media import SAMPLE_RATE
from omnihuman.data.module import OmniData
from omnihuman.data.packing import measure_packing
from omnihuman.data.tasks import TASK_NOT_LISTED, count_tasks
from omnihuman.model.omni import OmniModel
from omnihuman.model.trainable import Group, effective_table, set_trainable
from omnihuman.training.assembly import read_trainable
from omnihuman.training.chain import Chain
from omnihuman.training.parents import check_parents

RANKS = (1, 8, 64, 512)
"""Numbers of ranks for which a dry run packs steps."""


def print_dry_run(config: DictConfig, chain: Chain, console: Console) -> None:
    """Print the chain, the parts, the tokens and the steps of a run, without loading weights.

    Models of the hub are built without memory, and the package's own tokenizer counts the text.
    """
    for parent in chain.parents:
        status = "there" if not parent.overrides or parent.run.can_be_parent() else "missing"
        console.print(f"starts from {parent.run.weights} ({status})")
    if config.chain:
        check_parents(chain, console)
    model = build_meta_model(config)
    print_parts(model, set_trainable(model, read_trainable(config)), console)
    for title, amounts in (
        (f"{config.frames} frames, 10 s of audio", {"frames": config.frames, "waveform": 10 * SAMPLE_RATE}),
        ("1 frame", {"frames": 1}),
        ("30 s of audio", {"waveform": 30 * SAMPLE_RATE}),
    ):
        counts = model.count_tokens(amounts)
        console.print(f"{title}: {counts['video']} video tokens, {counts['audio']} audio tokens")
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
    samples = data.train_samples
    print_tasks(data, console)
    skipped = [*samples.skipped, *data.tasks.unlisted]
    console.print(
        f"{len(samples)} samples, {sum(samples.lengths)} tokens, {len(skipped)} skipped "
        f"({summarize_reasons(skipped) or 'none'}); an epoch has {data.steps_per_epoch} steps of {data.batch_size}"
    )
    print_packing(data, console)
    console.print(f"the run would be written to {chain.run.folder}")


def print_parts(model: OmniModel, groups: Sequence[Group], console: Console) -> None:
    """Print the parts of a model with their parameters and learning rates."""
    table = Table(title="parts", title_justify="left")
    for column in ("part", "class", "parameters", "trainable", "lr"):
        table.add_column(column, justify="left" if column in ("part", "class") else "right")
    for row in effective_table(model, groups):
        style = "bold" if row.num_trainable else "dim"
        numbers = (f"{row.num_parameters:,}", f"{row.num_trainable:,}")
        table.add_row(row.part, row.class_name, *numbers, row.rate, style=style)
    console.print(table)


def print_packing(data: OmniData, console: Console) -> None:
    """Print how full micro-batches are, and how long ranks wait for the fullest one, for several numbers of ranks."""
    table = Table(title=f"micro-batches of {data.max_tokens} tokens", title_justify="left")
    for column in ("ranks", "in a step", "full", "work of a rank by the longest"):
        table.add_column(column, justify="right")
    for world in RANKS:
        packing = measure_packing(data.plan_epoch(world, 0, 0))
        shares = (f"{packing.fill:.0%}", f"{packing.balance:.0%}")
        table.add_row(str(world), f"{packing.micro_batches:.1f}", *shares)
    console.print(table)


def print_tasks(data: OmniData, console: Console) -> None:
    """Print the files and tasks of the training data, and how often each sample is used in an epoch."""
    table = Table(title="data of an epoch", title_justify="left")
    for column in ("file", "task", "samples", "each used", "uses"):
        table.add_column(column, justify="left" if column in ("file", "task") else "right", overflow="fold")
    for part in data.mixture:
        numbers = (f"{len(part.indices):,}", f"{part.weight:g} x", f"{part.num_used:,}")
        table.add_row(part.location, part.task or "no task", *numbers, style="bold" if part.weight else "dim")
    for location, entries in data.tasks.skipped["train"].items():
        for task, count in count_tasks(entries).items():
            table.add_row(location, task, f"{count:,} records", TASK_NOT_LISTED, "0", style="dim")
    console.print(table)
    for line in data.describe_tasks():
        console.print(line)
