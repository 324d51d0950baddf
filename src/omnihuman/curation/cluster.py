"""The backend of a cluster: Ray Data moves the numbers of partitions through pools of actors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from omnihuman.curation.backend import Backend, Worker, list_missing
from omnihuman.curation.pipeline import Level, Pipeline

SHARE_OF_CORES = 0.5
"""Of the cluster that one actor of each operator may hold: with all cores in waiting actors, none could start."""


class Actor:
    """An actor of Ray that runs partitions through levels.

    Args:
        pipeline: of the levels.
        numbers: of the levels.
    """

    def __init__(self, pipeline: Pipeline, numbers: Sequence[int]) -> None:
        self.worker, self.numbers = Worker(pipeline), numbers

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Run the partition with the number in ``row``, and pass it on, with the message of a mistake.

        An exception would reach the program as a text of many lines, with the traces of Ray.
        """
        if not row["error"]:
            try:
                self.worker.run(self.numbers, int(row["part"]))
            except ValueError as error:
                return row | {"error": str(error)}
        return row


@contextmanager
def open_ray(pipeline: Pipeline, num_workers: int | None) -> Iterator[Backend]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one on this machine.

    Rows never enter Ray: a partition is read from and written to the folder that all nodes share, so that resuming,
    counting and failing are those of the embedded backend.

    Args:
        pipeline: to run.
        num_workers: actors of a pool; ``None``: as many as Ray has room for.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: a partition cannot be run, see ``run_partition``.
    """
    import ray
    import ray.data

    is_running = ray.is_initialized()
    if not is_running:
        ray.init(logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    resources = ray.cluster_resources()

    def run(levels: Sequence[Level], parts: Sequence[int]) -> None:
        numbers = [{"part": part, "error": ""} for part in parts if list_missing(levels, part)]
        if not numbers:
            return
        rows = ray.data.from_items(numbers, override_num_blocks=len(numbers))
        most = len(numbers) if num_workers is None else max(1, num_workers)
        groups = [list(group) for _, group in groupby(levels, lambda level: level.operator.wants)]
        for group in groups:  # neighbours with equal wants share their actors
            rows = rows.map(
                Actor,
                fn_constructor_args=(pipeline, [level.number for level in group]),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
                **share_resources(group[0], resources, len(groups)),
            )
        for row in rows.iter_rows():
            _raise(row["error"])

    def decide(level: Level) -> None:
        task = ray.remote(**share_resources(level, resources, 1))(_decide)
        _raise(ray.get(task.remote(pipeline, level.number)))

    try:
        yield Backend(run, decide)
    finally:
        if not is_running:
            ray.shutdown()


def share_resources(level: Level, resources: dict[str, float], num_pools: int) -> dict[str, float]:
    """Return the cores and GPUs of an actor: those that its operator wants, as far as the cluster has them.

    Args:
        level: of the actor.
        resources: of the cluster.
        num_pools: of actors that run at once.
    """
    wants = level.operator.wants
    cores = min(wants.cpus, SHARE_OF_CORES * resources.get("CPU", 1.0) / num_pools)
    return {"num_cpus": cores, "num_gpus": min(wants.gpus, resources.get("GPU", 0.0))}


def _raise(message: str) -> None:
    if message:
        raise ValueError(message)


def _decide(pipeline: Pipeline, number: int) -> str:
    """Write the decision of a global operator, and return the message of a mistake."""
    try:
        Worker(pipeline).decide(number)
    except ValueError as error:
        return str(error)
    return ""
