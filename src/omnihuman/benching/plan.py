"""Time and memory of a plan by the number of records, beside those of reading the same file as JSON."""

import json
import math
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig

from omnihuman.benching.table import Table, divide
from omnihuman.build import build, compose_config
from omnihuman.cost.forecast import build_meta_model
from omnihuman.data import media
from omnihuman.data.decode.header import Header, Track

PER_CLIP = 6
"""Instructions of a clip, as in HumanOmni's data."""

VIDEO, AUDIO = Track(num_frames=162), Track((0.0, 6.5))
HEADER = Header(True, (0.0, 6.5), num_frames=162, videos=(VIDEO,), audios=(AUDIO,))
"""Of every clip: a probe depends on the disk and the clips."""

WORDS = "the woman in the middle smiles and looks at the man who talks about what happened before".split()  # noqa: SIM905
TASKS = ("emotion", "caption", "speech")
NUM_LOOKED_UP = 1000

READ, FIRST, AGAIN = "JSON of the records", "a plan that is new", "a plan that is there"
EPOCH, STEPS = "order of an epoch", "all steps of an epoch"
LOOKUP, MEMORY = f"{NUM_LOOKED_UP} samples, looked up", "private MiB of the plan"
SAMPLES = "samples: a record for each view"


def measure(config: DictConfig, overrides: Sequence[str]) -> Iterator[Table]:
    """Yield a table for every number of records, and the exponents with which their times grow."""
    numbers = sorted(map(int, config.num_records))
    results = dict[int, dict[str, float]]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work = folder if config.work is None else Path(config.work).expanduser()
        for number in numbers:
            records = write_records(work, number)
            rounds = []
            for repeat in range(int(config.repeats) + (not results)):
                rounds.append(measure_plan(records, overrides, folder / f"{number}_{repeat}"))
            if not results:  # the first one imports and warms up
                del rounds[0]
            results[number] = {name: median(map(itemgetter(name), rounds)) for name in rounds[0]}
            yield build_table(number, results[number])
    if len(numbers) > 1:
        yield build_growth(numbers[0], numbers[-1], results)


def build_table(number: int, figures: Mapping[str, float]) -> Table:
    """Return the figures of a number of records, with the ratio of each time to that of reading the file."""
    table = Table(
        f"{number:,} records, {figures[SAMPLES]:,.0f} samples, CPU", ("step", "s", "us a record", f"step / {READ}")
    )
    for name, value in figures.items():
        if name not in (MEMORY, SAMPLES):
            table.rows.append((name, value, value / number * 1e6, divide(value, figures[READ])))
    table.rows.append((MEMORY, figures[MEMORY], None, None))
    return table


def build_growth(least: int, most: int, results: Mapping[int, Mapping[str, float]]) -> Table:
    """Return the exponent e of every figure: it is n ** e times as much for n times as many records."""
    table = Table(f"from {least:,} to {most:,} records", ("step", "exponent"))
    for name in (READ, FIRST, AGAIN, EPOCH, STEPS):
        value = results[most][name]
        ratio = divide(value, results[least][name])
        exponent = math.log(ratio) / math.log(most / least) if ratio else None
        table.rows.append((name, exponent))
    return table


def write_records(folder: Path, num: int) -> Path:
    """Write the records and the clips that they name, empty files, unless they are there."""
    file = folder / f"{num}.jsonl"
    if file.is_file():
        return file
    rng = random.Random(0)
    for number in range(-(-num // PER_CLIP)):
        clip = folder / "media" / f"{number // 1000}" / f"{number}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.touch()
    with file.open("w") as lines:
        for number in range(num):
            clip_name = f"{number // PER_CLIP // 1000}/{number // PER_CLIP}.mp4"
            question = "<video>\n<audio>\n" + " ".join(rng.choices(WORDS, k=rng.randint(5, 20))) + f" {number}?"
            answer = " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            record = {"id": str(number), "video": clip_name, "conversations": turns, "task": TASKS[number % len(TASKS)]}
            lines.write(json.dumps(record) + "\n")
    return file


def measure_plan(records: Path, overrides: Sequence[str], index: Path) -> dict[str, float]:
    """Return CPU seconds of reading the file, of a new plan, of the same plan again, and of an epoch of it.

    Args:
        records: their file.
        overrides: of the command line.
        index: folder of the plan's tables, which does not exist.
    """
    paths = {"records": records, "root": records.parent / "media", "index_folder": index}
    options = [f"data.{key}='{path}'" for key, path in paths.items()]
    config = compose_config([*overrides, "data=jsonl", *options, "data.tasks=null"], "bench")
    model = build_meta_model(config)
    figures, before = dict[str, float](), read_private_memory()
    figures[READ] = measure_call(partial(read_json, records))
    with replaced_probe():
        data = build(config.data)
        data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
        figures[FIRST] = measure_apart(partial(getattr, data, "train_samples"))
        figures[AGAIN] = measure_call(partial(getattr, data, "train_samples"))
        figures[MEMORY] = read_private_memory() - before
        figures[EPOCH] = measure_call(partial(data.order, 0))
        figures[STEPS] = measure_call(lambda: list(data.plan_epoch(8, 0, 0)))
        planned = data.train_samples.planned
        figures[SAMPLES] = len(planned)
        chosen = random.Random(0).choices(range(len(planned)), k=NUM_LOOKED_UP)
        figures[LOOKUP] = measure_call(lambda: [planned[number] for number in chosen])
    return figures


def read_json(file: Path) -> int:
    """Return the number of records of a file, each of which is parsed."""
    with file.open() as lines:
        return sum(1 for line in lines if json.loads(line))


@contextmanager
def replaced_probe() -> Iterator[None]:
    """Let every file have the same header."""
    probe = media.probe
    media.probe = lambda *args: HEADER
    try:
        yield
    finally:
        media.probe = probe


def measure_call(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_apart(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call in a process of its own, whose memory goes with it, and of those that it starts.

    Raises:
        ChildProcessError: the call has failed.
    """
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = multiprocessing.get_context("fork").Process(target=call)
    process.start()
    process.join()
    if process.exitcode:
        raise ChildProcessError("bench plan: the plan cannot be made; the error is above.")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def read_private_memory() -> float:
    """Return the MiB that no other process shares."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise ValueError("bench plan reads the memory of its process from /proc, which this system does not have.")
