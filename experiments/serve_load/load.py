"""Many requests at once, each with a question and a clip of its own, to a server on loopback: which answers come back?

python experiments/serve_load/load.py runs/nano/humanomni_stage3 --requests 64
"""

import argparse
import base64
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI

WORDS = ("happy", "sad", "angry", "surprised", "calm", "afraid", "tired", "proud")
ASKS = ("Does this person look {}?", "Why would one be {} here?", "Who is {}?", "Describe what is {} in the clip.")


def questions(count: int, root: Path) -> list[tuple[Path, str]]:
    """Pairs that all differ; clips of several lengths, questions of several lengths."""
    clips = sorted(root.glob("test_*.mp4"))
    return [(clips[n % len(clips)], f"{n}. " + ASKS[n % 4].format(WORDS[n // 4 % 8])) for n in range(count)]


def unserved(folder: Path, asked: list[tuple[Path, str]], tokens: int, device: str) -> list[str]:
    """The answers of the model without a server, one by one."""
    from omnihuman.data.messages import record_of
    from omnihuman.evaluation.answerer import Answerer

    answerer, answers = Answerer.of_run(folder, device=device), []
    for clip, words in asked:
        content = [{"type": "video", "url": str(clip)}, {"type": "text", "text": words}]
        record = record_of([{"role": "user", "content": content}], "load", "load", clip.parent)
        answers.append(answerer.ask([answerer.prompt(record)], max_new_tokens=tokens)[0].text)
    return answers


@contextmanager
def server(folder: Path, clips: Path, *more: str) -> Iterator[tuple[str, int]]:
    """Its address and the id of its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "omnihuman.serve", f"run={folder.absolute()}", f"port={port}", f"allow=[{clips}]"]
    process = subprocess.Popen([*command, *more], start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def memory(root: int) -> dict[str, int]:
    """MiB of the processes of a server, each page shared by n counted as 1/n."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = [root]
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    found = {"all": 0, "worker": 0}
    for one in family:
        try:
            size = int(re.search(r"^Pss: +(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.M).group(1)) >> 10
            found["all"] += size
            if "spawn_main" in Path(f"/proc/{one}/cmdline").read_text():
                found["worker"] = max(found["worker"], size)
        except (OSError, AttributeError):
            continue
    return found


def load(address: str, model: str, asked: list[tuple[Path, str]], tokens: int, send: str, stream: bool) -> list[Any]:
    """(answer, seconds, size of its batch) of every request, all sent at once."""
    client = OpenAI(base_url=address, api_key="none", max_retries=0, timeout=600)

    def url(clip: Path) -> str:
        return str(clip) if send == "path" else "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()

    bodies = [
        [{"type": "video_url", "video_url": {"url": url(clip)}}, {"type": "text", "text": words}]
        for clip, words in asked
    ]
    barrier = threading.Barrier(len(bodies))

    def ask(content: list[Any]) -> tuple[str, float, int]:
        barrier.wait()
        started = time.perf_counter()
        given: Any = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
        if stream:
            pieces = list(client.chat.completions.create(**given, stream=True))
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
            return text, time.perf_counter() - started, pieces[-1].omnihuman["batch"]
        reply = client.chat.completions.create(**given)
        return reply.choices[0].message.content, time.perf_counter() - started, reply.omnihuman["batch"]

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(ask, bodies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a model")
    parser.add_argument("--clips", type=Path, default=Path("data/sample/media").absolute())
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16, help="most of an answer")
    parser.add_argument("--accelerator", default="cpu")
    arguments = parser.parse_args()
    device = "cuda" if arguments.accelerator == "cuda" else "cpu"
    asked = questions(arguments.requests, arguments.clips)
    started = time.perf_counter()
    truth = unserved(arguments.folder, asked, arguments.tokens, device)
    alone = time.perf_counter() - started
    print(f"{len(set(truth))} different answers to {len(truth)} questions; {alone:.1f} s unserved, loading included")
    rows = []
    for batch, send, stream in ((16, "data", False), (16, "path", False), (1, "data", False), (16, "data", True)):
        options = (f"accelerator={arguments.accelerator}", f"batch_size={batch}")
        with server(arguments.folder, arguments.clips, *options) as (address, process):
            load(
                address, arguments.folder.name, asked[:2], arguments.tokens, send, stream
            )  # what is only slow at first
            most, done = Counter(memory(process)), threading.Event()

            def watch(most: Counter = most, process: int = process, done: threading.Event = done) -> None:
                while not done.wait(0.2):
                    most |= Counter(memory(process))

            watcher = threading.Thread(target=watch)
            watcher.start()
            started = time.perf_counter()
            got = load(address, arguments.folder.name, asked, arguments.tokens, send, stream)
            seconds = time.perf_counter() - started
            done.set()
            watcher.join()
        times = sorted(one[1] for one in got)
        sizes = Counter(one[2] for one in got)
        rows.append({
            "batch_size": batch, "sent as": send, "stream": stream,
            "lost": len(asked) - len(got), "wrong": sum(a != b[0] for a, b in zip(truth, got, strict=True)),
            "requests/s": round(len(got) / seconds, 2), "p50 s": round(statistics.median(times), 2),
            "p95 s": round(times[int(0.95 * (len(times) - 1))], 2),
            "batches": {size: count // size for size, count in sorted(sizes.items())},
            "MiB worker": most["worker"], "MiB all": most["all"],
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    columns = list(rows[0])
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        cells = (
            ", ".join(f"{n} of {k}" for k, n in v.items()) if isinstance(v, dict) else str(v) for v in row.values()
        )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
