"""Train the nano foundation: ``python experiments/nano_foundation/make.py all seed=0`` (or names of parts)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import torch

PARTS = ("tokenizer", "llm", "siglip", "whisper", "bert", "facexformer", "umt", "mistral")
OPTIONS = ("seed", "minutes", "threads", "resume")


def main() -> None:
    """Train the parts that the command line names, one after the other."""
    words = sys.argv[1:]
    names = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if not names or set(names) - {*PARTS, "all"} or set(options) - set(OPTIONS):
        raise SystemExit(f"{__doc__}\nunknown arguments: {' '.join(words)!r}; options: {', '.join(OPTIONS)}")
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(int(options.get("threads", 1)))
    seed = int(options.get("seed", 0))
    kwargs: dict[str, Any] = {}
    if "minutes" in options:
        kwargs["minutes"] = float(options["minutes"])
    if "resume" in options:
        kwargs["resume"] = options["resume"] == "true"
    for name in PARTS if "all" in names else names:
        part = import_module(name)
        if name == "tokenizer":
            part.run(seed)
        else:
            part.run(seed, **kwargs)


if __name__ == "__main__":
    main()
