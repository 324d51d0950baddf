"""Make training data of clips by a pipeline: ``omnihuman curate pipeline=clips source=folder path=... out=...``."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from omnihuman.config_files import list_choices
from omnihuman.verb import program, verb

if TYPE_CHECKING:
    from omnihuman.curation.listing import Listing
    from omnihuman.curation.pipeline import Pipeline

CAPTIONERS = ("captioner", "brief_captioner", "second_captioner")
"""Keys of judges: the first one takes the place of the others where they are not named."""

ACTIONS = ("status", "retry", "gc")
"""First words that ask for something else than a run."""

SAMPLE = {"size": "nano", "review": "skip"}
"""Keys of the built-in corpus: its clips are small, and its truth is known."""


@verb("curate", "path", "out", "root", word="action")
def run(config: DictConfig) -> None:
    """Run a pipeline, or look after the folder of one.

    Raises:
        ValueError: a key is wrong, or the pipeline cannot go on.
    """
    from omnihuman.curation.account import print_account
    from omnihuman.curation.folder import read_state, remove_old, retry

    out = Path(config.out).expanduser()
    if config.action == "run":
        run_curation(config, out)
    elif config.action == "status":
        print_account(out)
    elif config.action == "gc":
        removed = remove_old(out)
        print("\n".join([*removed, f"{out}: {len(removed)} folders of earlier runs removed"]))
    elif config.action == "retry":
        if config.why is None:
            raise ValueError(f"why has no value: add why=timeout, a reason of omnihuman curate status out={out}.")
        num_rows = retry(out, str(config.why))
        command = " ".join(read_state(out).command)
        print(f"{num_rows} rows failed so; they are worked on again by: omnihuman curate {command}")
    else:
        raise ValueError(f"action={config.action}: choose run, {', '.join(ACTIONS)}.")


def run_curation(config: DictConfig, out: Path) -> None:
    """Run the partitions of this slice that are missing, and print the account.

    Raises:
        ValueError: see ``run``.
    """
    from omnihuman.curation.account import print_account, write_account
    from omnihuman.curation.backend import run_pipeline
    from omnihuman.curation.card import is_finished, write_card
    from omnihuman.curation.folder import check_out, write_state
    from omnihuman.curation.listing import Listing
    from omnihuman.curation.plan import print_plan
    from omnihuman.curation.prices import Prices

    number, num_slices = parse_slice(config.slice)
    num_workers = read_workers(config.workers)
    pipeline = prepare(config, out)
    listing = pipeline.levels[0].operator
    assert isinstance(listing, Listing)
    check_out(out, pipeline.name)
    if config.dry_run:
        prices: Any = OmegaConf.to_container(config.prices, resolve=True)
        print_plan(pipeline, Prices(**prices), listing.num_rows)
        return
    write_state(pipeline, HydraConfig.get().overrides.task)
    try:
        parts = range(number, pipeline.num_parts, num_slices)
        run_pipeline(pipeline, parts, num_workers, float(config.wait), str(config.backend))
    finally:
        write_account(out)
    print_account(out)
    if is_finished(pipeline):
        write_card(pipeline, config.licence)


def prepare(config: DictConfig, out: Path) -> "Pipeline":
    """Return the pipeline of a config, with its source listed and its columns checked.

    Raises:
        ValueError: a key is wrong, the source is empty, or nobody writes a column that an operator reads.
    """
    from omnihuman.build import build
    from omnihuman.curation.listing import list_source
    from omnihuman.curation.pipeline import build_pipeline, select_operators

    if config.get("pipeline") is None:
        raise ValueError(
            f"pipeline has no value: add pipeline=clips, or another of {', '.join(list_choices('pipeline'))}."
        )
    for key in ("partition_size", "batch_size"):
        if config[key] < 1:
            raise ValueError(f"{key}={config[key]}: expected a whole number of at least 1.")
    for key in CAPTIONERS:
        if config.get(key) is not None:
            with open_dict(config):
                config[key]["_partial_"] = True  # built by the workers
    nodes = select_operators(config.pipeline)
    path, root = (None if value is None else Path(value).expanduser() for value in (config.path, config.root))
    if config.clips is None:
        listing = list_source(build(config.source), path, root, config.partition_size)
    else:
        listing = imagine(config)
    options = {"batch_size": config.batch_size, "max_failed": float(config.max_failed)}
    return build_pipeline(config.pipeline.name, nodes, listing, out, **options)


def imagine(config: DictConfig) -> "Listing":
    """Return the listing of ``clips=`` clips of a source that is not there.

    Raises:
        ValueError: it is no number of clips, or the pipeline would run on them.
    """
    from omnihuman.curation.listing import Listing

    if not config.dry_run or not config.clips >= 1:
        raise ValueError(f"clips={config.clips}: a number of clips of which dry_run=true tells the cost; leave it out.")
    listing = Listing(Path(), (), config.partition_size)
    listing.num_rows = round(config.clips)
    return listing


def parse_slice(text: str | None) -> tuple[int, int]:
    """Return the index of a slice, from 0, and the number of slices.

    Raises:
        ValueError: it is no slice.

    >>> parse_slice("3/8")
    (2, 8)
    """
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", str(text))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"slice={text}: expected the number of a share and of all, from 1/8 to 8/8.")
    return int(match[1]) - 1, int(match[2])


def read_workers(value: int | None) -> int | None:
    """Return the number of worker processes, ``None`` where the backend decides it.

    Raises:
        ValueError: it is no whole number.
    """
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"workers={value}: expected a whole number; 0 does the work in this process.")
    return value


def complete_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the groups that its keys stand for, and with the keys of the built-in corpus.

    ``captioner=`` is the judge of this name; ``+pipeline=`` is ``pipeline=``, as it reads like ``+experiment=``.

    >>> complete_arguments(["+pipeline=clips"]), complete_arguments(["source=sample", "captioner=scripted"])
    (['pipeline=clips'], ['source=sample', 'judge@captioner=scripted', 'size=nano', 'review=skip'])
    >>> complete_arguments(["second_captioner=endpoint"])
    ['+judge@second_captioner=endpoint']
    """
    completed = []
    for argument in arguments:
        name = argument.removeprefix("+") if argument.startswith("+pipeline=") else argument
        key = name.partition("=")[0]
        if key in CAPTIONERS:
            name = f"judge@{name}" if key == CAPTIONERS[0] else f"+judge@{name}"
        completed.append(name)
    keys = {argument.partition("=")[0] for argument in completed}
    if "source=sample" in completed:
        completed += [f"{key}={value}" for key, value in SAMPLE.items() if key not in keys]
    return completed


@program("curate")
def main(arguments: Sequence[str]) -> int:
    """Run a pipeline, or show, repair or tidy the folder of one."""
    run(complete_arguments(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
