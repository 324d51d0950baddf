"""Let people judge rows on a page: ``omnihuman review out=curated/omni_emotion``."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from omnihuman.verb import verb

if TYPE_CHECKING:
    from omnihuman.reviewing.queue import Queue

ACTIONS = ("page", "status", "export", "import")


@verb("review", "out", "file", "prefix", extra="serve", word="action")
def main(config: DictConfig) -> None:
    """Serve the page, or exchange rows and verdicts with Label Studio.

    Raises:
        ValueError: a key is wrong, no row waits, or somebody serves them already.
    """
    from omnihuman.reviewing.queue import Queue, load_waiting

    if config.action not in ACTIONS:
        raise ValueError(f"action={config.action}: choose {', '.join(ACTIONS)}.")
    if config.action in ("export", "import") and config.file is None:
        raise ValueError(f"file has no value: add file=tasks.json, the file of Label Studio to {config.action}.")
    out = Path(config.out).expanduser()
    queue = Queue(load_waiting(out, config.operator))
    for problem in queue.problems:
        print(f"warning: {problem}")
    if config.action == "status":
        print(describe(queue))
    elif config.action == "export":
        export_tasks(queue, Path(config.file).expanduser(), str(config.prefix))
    else:
        with lock_file(queue.file):
            if config.action == "import":
                import_annotations(queue, Path(config.file).expanduser())
            else:
                serve_page(queue, str(config.host), int(config.port))


def serve_page(queue: "Queue", host: str, port: int) -> None:
    """Serve the page until interrupted, and print what people have done.

    Raises:
        ValueError: the port is in use.
    """
    import uvicorn

    from omnihuman.reviewing.page import Page
    from omnihuman.serving.process import LOOPBACK, check_port

    check_port(host, port)
    token = secrets.token_urlsafe(24)
    app = Page(queue).build(token, local=host in LOOPBACK)
    if host not in LOOPBACK:
        print(f"warning: host={host}: the token and the clips go over the network unencrypted; prefer ssh -L {port}")
    if queue.waiting.num_missing:
        print(f"warning: {queue.waiting.num_missing} partitions have not come to {queue.waiting.review.name} yet")
    print(f"{describe(queue)}\nhttp://{host}:{port}/?token={token}", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False, ws="none")
    print(describe(queue))


def describe(queue: "Queue") -> str:
    """Return how far people are, and how far they agree."""
    progress, summary = queue.count(), queue.summarize()
    ends = ", ".join(f"{summary[end]} {end}" for end in ("accepted", "edited", "rejected", "unsure", "disputed"))
    lines = [f"{queue.file}: {progress['done']} of {progress['rows']} rows judged: {ends}"]
    if summary["people"]:
        lines.append("by " + ", ".join(f"{name} ({number})" for name, number in summary["people"].items()))
    if summary["judged_twice"]:
        kappa = "not defined" if summary["kappa"] is None else f"{summary['kappa']:.3f}"
        lines.append(f"{summary['judged_twice']} rows judged by two people: Cohen's kappa {kappa}")
    if progress["second"]:
        lines.append(f"{progress['second']} rows wait for a second person")
    return "\n".join(lines)


def export_tasks(queue: "Queue", file: Path, prefix: str) -> None:
    """Write the rows that wait as tasks of Label Studio, and its labelling interface beside them."""
    from omnihuman.reviewing.label_studio import build_form, build_tasks

    tasks = build_tasks(queue, prefix)
    file.write_text(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    form = file.with_suffix(".xml")
    form.write_text(build_form(queue), encoding="utf-8")
    print(f"{file}: {len(tasks)} tasks; {form}: their labelling interface")


def import_annotations(queue: "Queue", file: Path) -> None:
    """Append the verdicts of an export of Label Studio.

    Raises:
        ValueError: there is no such file, or it is no export.
    """
    from omnihuman.reviewing.label_studio import read_annotations

    if not file.is_file():
        raise ValueError(f"file={file}: there is no such file.")
    verdicts, passed = read_annotations(queue, file)
    queue.add(verdicts)
    print(f"{len(verdicts)} verdicts imported")
    for reason, number in sorted(passed.items()):
        print(f"{number} annotations passed over: {reason}")
    print(describe(queue))


@contextmanager
def lock_file(file: Path) -> Iterator[Any]:
    """Keep other processes from the verdicts, which each has in memory.

    Raises:
        ValueError: another process has them.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{file}: another omnihuman review has these rows; open its page, or end it.") from error
        yield descriptor
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
