"""Send many requests at once to a server on loopback, and check that every request gets its own answer.

python experiments/serve_load/load.py runs/nano/humanomni_stage3 --requests 64
python experiments/serve_load/load.py runs/nano/humanomni_stage3 --requests 320 --clients 16 --text
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
from typing import Any, NamedTuple

from openai import OpenAI

ADJECTIVES = ("happy", "sad", "angry", "surprised", "calm", "afraid", "tired", "proud")
TEMPLATES = ("Does this person look {}?", "Why would one be {} here?", "Who is {}?", "Describe what is {} in the clip.")
CLIP_SETTINGS = ((16, "data", False), (16, "path", False), (1, "data", False), (16, "data", True))
TEXT_SETTINGS = ((16, "text", False), (1, "text", False), (16, "text", True))


class Question(NamedTuple):
    """A question about a clip."""

    clip: Path
    text: str


class Reply(NamedTuple):
    """An answer, the seconds that it took, and the size of its batch."""

    text: str
    seconds: float
    batch: int


class Setting(NamedTuple):
    """A setting of the server and of the requests: clips as ``data`` URLs or by ``path``, or ``text`` alone."""

    batch_size: int
    sent_as: str
    stream: bool


def build_questions(count: int, root: Path) -> list[Question]:
    """Build questions that all differ, about clips of several lengths."""
    clips = sorted(root.glob("test_*.mp4"))
    questions: list[Question] = []
    for number in range(count):
        text = TEMPLATES[number % 4].format(ADJECTIVES[number // 4 % 8])
        questions.append(Question(clips[number % len(clips)], f"{number}. {text}"))
    return questions


def answer_directly(folder: Path, questions: list[Question], tokens: int, device: str, with_clips: bool) -> list[str]:
    """Return the answers of the model without a server, one by one."""
    from omnihuman.data.messages import build_record
    from omnihuman.inference.answerer import Answerer

    answerer = Answerer.load(folder, device=device)
    answers: list[str] = []
    for question in questions:
        content = [{"type": "text", "text": question.text}]
        if with_clips:
            content.insert(0, {"type": "video", "url": str(question.clip)})
        record = build_record([{"role": "user", "content": content}], "load", "load", question.clip.parent)
        answers.append(answerer.answer_prompts([answerer.build_prompt(record)], max_new_tokens=tokens)[0].text)
    return answers


@contextmanager
def start_server(folder: Path, clips: Path, *overrides: str) -> Iterator[tuple[str, int]]:
    """Start a server, and yield its address and the id of its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "omnihuman.serve", f"run={folder.absolute()}", f"port={port}", f"allow=[{clips}]"]
    process = subprocess.Popen([*command, *overrides], start_new_session=True)
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


def list_processes(root: int) -> list[int]:
    """List a process and all its descendants."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = [root]
    for process in family:  # grows while it is read
        family += [child for child, parent in parents.items() if parent == process]
    return family


def measure_memory(root: int) -> Counter[str]:
    """Return the MiB of a server's processes; a page that n processes share counts as 1/n for each."""
    sizes = Counter({"all": 0, "worker": 0})
    for process in list_processes(root):
        folder = Path(f"/proc/{process}")
        try:
            match = re.search(r"^Pss: +(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE)
            is_worker = "spawn_main" in (folder / "cmdline").read_text()
        except OSError:
            continue
        if match:
            size = int(match.group(1)) >> 10
            sizes["all"] += size
            if is_worker:
                sizes["worker"] = max(sizes["worker"], size)
    return sizes


def measure_cpu(root: int) -> float:
    """Return the CPU seconds that a server's processes have used: other programs change them less than the times."""
    ticks = 0
    for process in list_processes(root):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def watch_memory(root: int) -> Iterator[Counter[str]]:
    """Yield the largest memory of a server's processes, updated five times a second."""
    largest, done = measure_memory(root), threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            for name, size in measure_memory(root).items():
                largest[name] = max(largest[name], size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield largest
    finally:
        done.set()
        watcher.join()


def build_content(question: Question, sent_as: str) -> list[dict[str, Any]]:
    """Build the content of a request's message."""
    if sent_as == "text":
        return [{"type": "text", "text": question.text}]
    url = str(question.clip)
    if sent_as == "data":
        url = "data:video/mp4;base64," + base64.b64encode(question.clip.read_bytes()).decode()
    return [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question.text}]


def send_requests(
    address: str, model: str, questions: list[Question], tokens: int, setting: Setting, num_clients: int
) -> list[Reply]:
    """Send requests from clients that each send the next one when they have an answer, and return all replies."""
    client = OpenAI(base_url=address, api_key="none", max_retries=0, timeout=600)
    contents = [build_content(question, setting.sent_as) for question in questions]

    def ask(content: list[dict[str, Any]]) -> Reply:
        start = time.perf_counter()
        body: Any = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
        if setting.stream:
            pieces = list(client.chat.completions.create(**body, stream=True))
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
            return Reply(text, time.perf_counter() - start, pieces[-1].omnihuman["batch"])
        reply = client.chat.completions.create(**body)
        return Reply(reply.choices[0].message.content, time.perf_counter() - start, reply.omnihuman["batch"])

    with ThreadPoolExecutor(num_clients) as pool:
        return list(pool.map(ask, contents))


def measure(
    arguments: argparse.Namespace, setting: Setting, questions: list[Question], references: list[str]
) -> dict[str, Any]:
    """Start a server with a setting, send all requests, and return a row of the table."""
    overrides = (f"accelerator={arguments.accelerator}", f"batch_size={setting.batch_size}")
    model = arguments.folder.name
    with start_server(arguments.folder, arguments.clips, *overrides) as (address, process):
        num_clients = arguments.clients or len(questions)
        send_requests(address, model, questions[:2], arguments.tokens, setting, 2)  # warm-up
        with watch_memory(process) as memory:
            start, cpu_start = time.perf_counter(), measure_cpu(process)
            replies = send_requests(address, model, questions, arguments.tokens, setting, num_clients)
            seconds, cpu_seconds = time.perf_counter() - start, measure_cpu(process) - cpu_start
    times = sorted(reply.seconds for reply in replies)
    sizes = Counter(reply.batch for reply in replies)
    batches = [f"{count // size} of {size}" for size, count in sorted(sizes.items())]
    mixed_up = [reply.text != reference for reply, reference in zip(replies, references, strict=True)]
    return {
        "batch_size": setting.batch_size,
        "sent as": setting.sent_as,
        "streamed": setting.stream,
        "lost": len(questions) - len(replies),
        "mixed up": sum(mixed_up),
        "requests/s": round(len(replies) / seconds, 2),
        "p50 s": round(statistics.median(times), 2),
        "p95 s": round(times[int(0.95 * (len(times) - 1))], 2),
        "CPU ms/request": round(1000 * cpu_seconds / len(replies)),
        "batches": ", ".join(batches),
        "MiB worker": memory["worker"],
        "MiB all": memory["all"],
    }


def main() -> None:
    """Measure all settings and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a model")
    parser.add_argument("--clips", type=Path, default=Path("data/sample/media").absolute())
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--clients", type=int, help="requests at the same time; default: all")
    parser.add_argument("--text", action="store_true", help="questions without clips")
    parser.add_argument("--tokens", type=int, default=16, help="largest number of new tokens of an answer")
    parser.add_argument("--accelerator", default="cpu")
    arguments = parser.parse_args()
    device = "cuda" if arguments.accelerator == "cuda" else "cpu"
    questions = build_questions(arguments.requests, arguments.clips)
    start = time.perf_counter()
    references = answer_directly(arguments.folder, questions, arguments.tokens, device, not arguments.text)
    seconds = time.perf_counter() - start
    num_different = len(set(references))
    print(f"{num_different} different answers to {len(references)} questions; {seconds:.1f} s without a server")
    rows: list[dict[str, Any]] = []
    for values in TEXT_SETTINGS if arguments.text else CLIP_SETTINGS:
        rows.append(measure(arguments, Setting(*values), questions, references))
        print(json.dumps(rows[-1]), flush=True)
    columns = list(rows[0])
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
