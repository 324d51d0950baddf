"""A pipeline: operators in order, their columns checked, and the folder of each by what decides its rows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build
from omnihuman.curation.listing import Listing
from omnihuman.operator.base import IDENTITY, SPAN, Global, Operator
from omnihuman.verb import find_missing_extra

DECISION = "decision"
"""Suffix of the folder of a global operator's decision, which follows that of the columns it decides by."""


@dataclass(frozen=True)
class Level:
    """An operator at its place in a pipeline, with the folder of its partitions.

    Attributes:
        number: of the place, from 0, the listing of the source.
        name: in the pipeline; rows that end here name it.
        operator: built, not set up.
        folder: ``out/03-scenes-1f3a2b4c5d6e``.
        is_decision: the rows get the decision of a global operator.
    """

    number: int
    name: str
    operator: Operator
    folder: Path
    is_decision: bool = False

    def file(self, part: int) -> Path:
        """Return the file of a partition."""
        return self.folder / f"part-{part:05d}.parquet"

    @property
    def decision(self) -> Path:
        """The file of a global operator's decision on the rows of all partitions."""
        return self.folder / "decision.parquet"


@dataclass(frozen=True)
class Pipeline:
    """The levels of a pipeline for one source.

    Attributes:
        name: of the pipeline.
        levels: from the listing of the source on.
        root: folder of the media of the source.
        out: folder of the results.
        num_parts: partitions.
        batch_size: rows that an operator gets at once.
        max_failed: share of a partition's rows that may fail at one operator.
    """

    name: str
    levels: Sequence[Level]
    root: Path
    out: Path
    num_parts: int
    batch_size: int = 16
    max_failed: float = 0.1

    def files(self, number: int, part: int) -> list[Path]:
        """Return the files of a partition from the source down to a level."""
        return [level.file(part) for level in self.levels[: number + 1]]

    @property
    def segments(self) -> list[list[Level]]:
        """The levels in runs that a partition passes without waiting for other partitions."""
        segments: list[list[Level]] = [[]]
        for level in self.levels:
            if level.is_decision or level.operator.is_barrier:
                segments.append([])
            segments[-1].append(level)
        return segments


def select_operators(config: DictConfig) -> dict[str, dict[str, Any]]:
    """Return the configs of the operators of a pipeline's config, in its order.

    Args:
        config: with ``operators`` by name, and ``order``, their names, or the name of one of the lists in ``orders``.

    Raises:
        ValueError: there is no such order, or it names an operator that the pipeline has not.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    nodes, names = plain["operators"], plain["order"]
    if isinstance(names, str):
        orders = plain.get("orders", {})
        if names not in orders:
            raise ValueError(f"pipeline.order={names}: choose {', '.join([*orders, 'a list of operators'])}.")
        names = orders[names]
    if unknown := [name for name in names if name not in nodes]:
        raise ValueError(f"pipeline.order: {unknown[0]} is no operator of the pipeline; choose {', '.join(nodes)}.")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"pipeline.order: {min(repeated)} is there twice; give the second one a name of its own.")
    return {name: nodes[name] for name in names}


def build_pipeline(
    name: str, nodes: Mapping[str, Mapping[str, Any]], listing: Listing, out: Path, **settings: Any
) -> Pipeline:
    """Build the operators of a pipeline, check their columns, and name their folders.

    Args:
        name: of the pipeline.
        nodes: name -> config of each operator, in order.
        listing: of the source.
        out: folder of the results.
        settings: of ``Pipeline``.

    Raises:
        ValueError: an option is wrong, a package is missing, or nobody writes a column that an operator reads.
    """
    operators: dict[str, Operator] = build({"pipeline": {"operators": dict(nodes)}})["pipeline"]["operators"]
    check_modules(operators)
    check_columns(operators, listing)
    levels = [Level(0, "source", listing, out / f"00-source-{listing.fingerprint[:12]}")]
    fingerprint = listing.fingerprint
    for key, operator in operators.items():
        options = {option: value for option, value in nodes[key].items() if option not in operator.incidental}
        content = [key, options, operator.version, dict(operator.identity()), fingerprint]
        text = json.dumps(content, sort_keys=True, default=str)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        phases = ("", f"_{DECISION}") if isinstance(operator, Global) else ("",)
        for phase in phases:
            number = len(levels)
            folder = out / f"{number:02d}-{key}{phase}-{fingerprint[:12]}"
            levels.append(Level(number, key, operator, folder, is_decision=bool(phase)))
    return Pipeline(name, levels, listing.root, out, listing.num_parts, **settings)


def check_modules(operators: Mapping[str, Operator]) -> None:
    """Check that the packages of all operators are installed.

    Raises:
        ValueError: one is missing; the message has the command that installs it.
    """
    for key, operator in operators.items():
        for module in operator.modules.split():
            if find_spec(module) is None:
                cure = find_missing_extra(ModuleNotFoundError(name=module)) or f"pip install {module}"
                raise ValueError(f"pipeline.operators.{key}: {cure}")


def check_columns(operators: Mapping[str, Operator], listing: Listing) -> None:
    """Check over the whole pipeline that every column that an operator reads has been written, in its type.

    Raises:
        ValueError: nobody writes a column, it has another type, or two operators write it.
    """
    known: dict[str, Any] = {**IDENTITY, **listing.writes}
    writers = dict.fromkeys(known, "source")
    for key, operator in operators.items():
        place = f"pipeline.operators.{key}"
        for column, kind in operator.reads.items():
            if column not in known:
                raise ValueError(
                    f"{place} reads the column {column}, which no operator above it writes; "
                    f"there are {', '.join(sorted(known))}."
                )
            if kind is not None and kind != known[column]:
                raise ValueError(f"{place} reads {column} as {kind}, but {writers[column]} writes {known[column]}.")
        columns = dict(operator.writes)
        if isinstance(operator, Global):
            columns |= operator.decides
        for column, kind in columns.items():
            is_span = column in (*SPAN, "media", "split")
            if column in known and not is_span:
                raise ValueError(f"{place} writes {column}, which {writers[column]} has written; remove one of them.")
            known[column] = kind
            writers[column] = key
