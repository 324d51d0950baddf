"""Makes the nano foundation: ``python experiments/nano_foundation/make.py all seed=0`` (or names of parts)."""

from __future__ import annotations

import sys
from importlib import import_module

import torch

VERBS = ("tokenizer", "llm", "siglip", "whisper", "bert", "facexformer", "umt", "mistral")


def main() -> None:
    """Verbs and ``seed=``, ``minutes=`` from the command line; makes what they name, one after the other."""
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    names = [word for word in sys.argv[1:] if "=" not in word]
    if not names or set(names) - {*VERBS, "all"} or set(options) - {"seed", "minutes", "threads", "on"}:
        raise SystemExit(f"{__doc__}\nnot understood: {' '.join(sys.argv[1:])!r}")
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(int(options.get("threads", 1)))
    more = {"minutes": float(options["minutes"])} if "minutes" in options else {}
    more |= {"on": options["on"] == "true"} if "on" in options else {}
    for name in VERBS if "all" in names else names:
        import_module(name).make(int(options.get("seed", 0)), **(more if name != "tokenizer" else {}))


if __name__ == "__main__":
    main()
