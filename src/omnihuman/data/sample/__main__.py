"""Writes the built-in corpus: ``python -m omnihuman.data.sample out=FOLDER [seed=0] [workers=2]``."""

from __future__ import annotations

import sys
import time

from omegaconf import OmegaConf

from omnihuman.data.sample.write import is_complete, write


def main(arguments: list[str]) -> None:
    """Words such as ``out=data``; writes the corpus and prints where it is."""
    given = OmegaConf.to_container(OmegaConf.from_cli(arguments))
    known = {"out", "seed", "workers"}
    if not isinstance(given, dict) or (unknown := sorted(set(map(str, given)) - known)):
        raise ValueError(f"unknown key {', '.join(unknown)}: this command knows {', '.join(sorted(known))}")
    out, seed, workers = given.get("out"), given.get("seed", 0), given.get("workers")
    if not isinstance(out, str) or not out:
        raise ValueError("out is missing: say where the corpus shall stand, for example out=data/sample")
    for key, value in (("seed", seed), ("workers", 1 if workers is None else workers)):
        if not isinstance(value, int) or isinstance(value, bool) or value < (key == "workers"):
            raise ValueError(f"{key}={value} is not a whole number {'above' if key == 'workers' else 'from'} 0")
    start, was_there = time.perf_counter(), is_complete(out, seed)
    folder = write(out, seed, workers)
    print(f"{folder}: {'already complete' if was_there else f'written in {time.perf_counter() - start:.0f} s'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
