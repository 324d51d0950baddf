"""Write the built-in corpus: ``omnihuman sample out=data/sample``."""

import time

from omegaconf import DictConfig

from omnihuman.corpus.write import is_complete, write_corpus
from omnihuman.verb import verb


@verb("sample", "out")
def main(config: DictConfig) -> None:
    """Write the corpus and print its folder.

    Raises:
        ValueError: the seed or the number of workers is invalid, or ``out`` holds other files.
    """
    _check_integer("seed", config.seed, least=0)
    if config.workers is not None:
        _check_integer("workers", config.workers, least=1)
    if is_complete(config.out, config.seed):
        print(f"{config.out}: already complete")
        return
    start = time.perf_counter()
    folder = write_corpus(config.out, config.seed, config.workers)
    print(f"{folder}: written in {time.perf_counter() - start:.0f} s")


def _check_integer(key: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}={value} is invalid; expected a whole number of at least {least}.")


if __name__ == "__main__":
    main()
