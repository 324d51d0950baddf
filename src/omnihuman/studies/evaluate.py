"""Run several evaluations: ``python -m omnihuman.studies.evaluate '[["run=…", "benchmark=sample"], …]'``."""

import json
import sys

from omnihuman.build import compose_config
from omnihuman.evaluation.run import evaluate


def main(command_lines: str) -> None:
    """Run ``omnihuman.evaluate`` for each command line; the imports take longer than many an evaluation.

    Args:
        command_lines: JSON, a list of lists of overrides.
    """
    for overrides in json.loads(command_lines):
        evaluate(compose_config(overrides, "evaluate"), overrides)


if __name__ == "__main__":
    main(sys.argv[1])
