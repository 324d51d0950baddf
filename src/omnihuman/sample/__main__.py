"""Write the built-in corpus: ``python -m omnihuman.sample out=FOLDER [seed=0] [workers=2]``."""

from __future__ import annotations

import sys
import time

from omegaconf import OmegaConf

from omnihuman.sample.write import is_complete, write_corpus

KEYS = ("out", "seed", "workers")


def main(arguments: list[str]) -> None:
    """Write the corpus for arguments such as ``out=data``, and print its folder.

    Raises:
        ValueError: an argument is unknown, missing or invalid.
    """
    options = dict(OmegaConf.from_cli(arguments))
    unknown = sorted(set(map(str, options)) - set(KEYS))
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)}; expected {', '.join(KEYS)}.")
    out, seed, workers = options.get("out"), options.get("seed", 0), options.get("workers")
    if not isinstance(out, str) or not out:
        raise ValueError("out is missing; name the folder of the corpus, for example out=data/sample.")
    _check_integer("seed", seed, least=0)
    if workers is not None:
        _check_integer("workers", workers, least=1)
    if is_complete(out, seed):
        print(f"{out}: already complete")
        return
    start = time.perf_counter()
    folder = write_corpus(out, seed, workers)
    print(f"{folder}: written in {time.perf_counter() - start:.0f} s")


def _check_integer(key: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}={value} is invalid; expected a whole number of at least {least}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
