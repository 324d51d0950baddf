"""Run several evaluations: ``python -m omnihuman.studies.evaluate '["run=…", "benchmark=sample"]' …``."""

import json
from collections.abc import Sequence

from omnihuman.build import compose_config
from omnihuman.verb import program


@program("evaluate")
def main(command_lines: Sequence[str]) -> None:
    """Run ``omnihuman evaluate`` for each command line; the imports take longer than many an evaluation.

    Args:
        command_lines: the overrides of each as a list in JSON.
    """
    from omnihuman.evaluation.run import evaluate

    for command_line in command_lines:
        overrides = json.loads(command_line)
        evaluate(compose_config(overrides, "evaluate"), overrides)


if __name__ == "__main__":
    main()
