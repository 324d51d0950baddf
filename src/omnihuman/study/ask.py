"""Ask several things in one process: ``python -m omnihuman.study.ask '[["run=…", "benchmark=sample"], …]'``."""

import json
import sys

from omnihuman.build import compose_config
from omnihuman.evaluation.run import evaluate


def main(command_lines: str) -> None:
    """What ``omnihuman.evaluate`` does with each command line; importing takes longer than many a question.

    Args:
        command_lines: JSON, a list of lists of overrides.
    """
    for overrides in json.loads(command_lines):
        evaluate(compose_config(overrides, "evaluate"), overrides)


if __name__ == "__main__":
    main(sys.argv[1])
