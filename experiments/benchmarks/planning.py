"""Time and memory of a plan, by the number of instructions: made, found again, and an epoch of it.

    python experiments/benchmarks/planning.py num=100000 work=planning

Six instructions a clip, as in HumanOmni's data. Clips are empty files whose headers are given, so that the probes are
left out, which depend on the disk and the clips. Seconds are of the CPU.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from omnihuman.build import build, compose_config
from omnihuman.data import media
from omnihuman.data.decode.header import Header, Track

PER_CLIP = 6
TRACKS = {"videos": (Track(num_frames=162),), "audios": (Track((0.0, 6.5)),)}
HEADER = Header(True, (0.0, 6.5), num_frames=162, **TRACKS)
WORDS = tuple(
    [
        "the",
        "woman",
        "in",
        "the",
        "middle",
        "smiles",
        "and",
        "looks",
        "at",
        "the",
        "man",
        "who",
        "talks",
        "about",
        "what",
        "happened",
        "before",
    ]
)


def write_records(folder: Path, num: int) -> Path:
    """Write the records and the clips that they name, unless they are there."""
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
            clip = f"{number // PER_CLIP // 1000}/{number // PER_CLIP}.mp4"
            question = "<video>\n<audio>\n" + " ".join(rng.choices(WORDS, k=rng.randint(5, 20))) + f" {number}?"
            answer = " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            task = ("emotion", "caption", "speech")[number % 3]
            lines.write(json.dumps({"id": str(number), "video": clip, "conversations": turns, "task": task}) + "\n")
    return file


def read_private_memory() -> float:
    """Return the MiB that no other process shares."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon")


def measure(figures: dict[str, float], name: str, act: Callable[[], Any]) -> Any:
    """Call a function, and note its seconds."""
    start = time.process_time()
    result = act()
    figures[name] = round(time.process_time() - start, 2)
    return result


def main(num: int, work: Path) -> None:
    """Print a line of figures."""
    records = write_records(work, num)
    options = ["+experiment=humanomni_stage1", "data=jsonl", f"data.records={records}", f"data.root={work / 'media'}"]
    config = compose_config([*options, f"data.index_folder={work / 'index'}", "data.tasks=null"])
    model = build(config.model)
    media.probe = lambda *args: HEADER
    figures, before = dict[str, float](instructions=num), read_private_memory()
    measure(figures, "pyarrow", lambda: import_module("pyarrow"))
    for name in ("made", "found"):
        data = build(config.data)
        data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
        measure(figures, name, partial(getattr, data, "train_samples"))
    figures["private_mib"] = round(read_private_memory() - before)
    measure(figures, "order", partial(data.order, 0))
    steps = measure(figures, "epoch", partial(data.plan_epoch, 8, 0, 0))
    measure(figures, "all_steps", partial(list, steps))
    chosen = random.Random(0).choices(range(len(data.train_samples)), k=1000)
    measure(figures, "1000_samples", lambda: [data.train_samples.planned[index] for index in chosen])
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))


if __name__ == "__main__":
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(int(arguments["num"]), Path(arguments["work"]))
