"""Measure the operators of a pipeline on 1 and 8 shares of the built-in corpus, and decisions on many rows.

``python experiments/data_engine/speed.py`` runs in one process; clips per second, and milliseconds of CPU a clip.
"""

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from omegaconf import OmegaConf

from omnihuman.build import compose_part
from omnihuman.curation.account import Entry, count
from omnihuman.curation.backend import run_pipeline
from omnihuman.curation.folder import read_state, write_state
from omnihuman.curation.listing import list_source
from omnihuman.curation.pipeline import build_pipeline
from omnihuman.operator.dedupe import Dedupe
from omnihuman.operator.rows import TableRows
from omnihuman.operator.sample import Sample
from omnihuman.source.sample import SampleSource

CAPTIONER = {
    "_target_": "omnihuman.judge.scripted.ScriptedJudge",
    "_partial_": True,
    "replies": {"brief": {"caption": {"value": "A person."}}},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "faces": {"boxes": "truth"},
    "ask": {"captioner": CAPTIONER},
    "sample": {"size": 100},
    "trim": {"least_frames": 1},
    "dedupe": {"threshold": 1.0},
}
ORDER = ("probe", "motion", "scenes", "extract_frames", "faces", "dedupe", "ask", "sample", "trim", "write")
SHARES = (1, 8)
WIDTH = 256


def list_nodes() -> dict[str, dict[str, Any]]:
    nodes = {}
    for name in ORDER:
        node: Any = OmegaConf.to_container(compose_part("operator", name), resolve=True)
        nodes[name] = {**node, **OPTIONS.get(name, {})}
    return nodes


def run(corpus: Path, share: int, out: Path) -> tuple[list[Entry], float]:
    """Run the pipeline on eighths of the corpus, and return its account and the seconds of the clips."""
    listing = list_source(partial(SampleSource), corpus, None, 64)
    entries = listing.entries[:: SHARES[-1] // share]
    listing = type(listing)(listing.root, entries, 64)
    pipeline = build_pipeline("speed", list_nodes(), listing, out, max_failed=1.0)
    run_pipeline(pipeline, range(pipeline.num_parts), 0, 0.0)
    write_state(pipeline, [])
    return count(read_state(out)), 2.7 * len(entries)


def print_operators(corpus: Path) -> None:
    accounts = []
    for share in SHARES:
        with tempfile.TemporaryDirectory() as folder:
            accounts.append(run(corpus, share, Path(folder) / "out")[0])
    first, last = accounts
    print(f"| operator | {first[0].rows} clips: ms | {last[0].rows} clips: ms | times real time | growth |")
    print("|---|---|---|---|---|")
    for small, large in zip(first, last, strict=True):
        costs = [1000 * entry.cost["cpu_s"] / max(1, entry.reached) for entry in (small, large)]
        print(
            f"| {large.name} | {costs[0]:.2f} | {costs[1]:.2f} | {2700 / costs[1]:,.0f} | {costs[1] / costs[0]:.2f} |"
        )
    print(f"\nlargest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def print_decisions(num_rows: int) -> None:
    print("\n| decision | rows | seconds | microseconds a row |\n|---|---|---|---|")
    generator = np.random.default_rng(0)
    for share in SHARES:
        rows = share * num_rows
        vectors = generator.standard_normal((rows, WIDTH), dtype=np.float32)
        table = pa.table(
            {
                "id": [f"{number:020x}" for number in range(rows)],
                "source": [f"{number}.mp4" for number in range(rows)],
                "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), WIDTH).cast(pa.list_(pa.float32())),
                "width": [640] * rows,
                "height": [480] * rows,
                "seconds": [10.0] * rows,
            }
        )
        for operator in (Dedupe(partial(int)), Sample(100)):
            begin = time.process_time()
            operator.decide(TableRows(table, Path(), Path()))
            seconds = time.process_time() - begin
            print(f"| {type(operator).__name__.lower()} | {rows:,} | {seconds:.1f} | {1e6 * seconds / rows:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("data/sample"))
    parser.add_argument("--rows", type=int, default=5000, help="of a decision")
    options = parser.parse_args()
    print_operators(options.corpus)
    print_decisions(options.rows)


if __name__ == "__main__":
    main()
