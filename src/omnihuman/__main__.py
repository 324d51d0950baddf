"""The program ``omnihuman``: ``omnihuman <verb>`` is ``python -m omnihuman.<verb>``."""

import ast
import os
import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from omnihuman import __doc__ as summary
from omnihuman import __version__
from omnihuman.completion import SCRIPTS, complete
from omnihuman.usage import HELP, format_usage

USAGE = """omnihuman {version}: {summary}

usage: omnihuman <verb> [key=value ...]
       omnihuman <verb> --help     the keys of a verb
       eval "$(omnihuman --completion bash)"    completes verbs, keys and choices by Tab; also zsh, fish

"""


def find_verbs() -> dict[str, str]:
    """Return the summary of every verb: the modules of the package that are programs, and their first lines."""
    package = Path(__file__).parent
    verbs = {}
    for path in package.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.samefile(__file__) or 'if __name__ == "__main__":' not in source:
            continue
        docstring = ast.get_docstring(ast.parse(source)) or ""
        verbs[path.stem] = docstring.partition("\n")[0].replace("``", "").removesuffix(".")
    return dict(sorted(verbs.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb, or print the version, the verbs or a help; return 2 for an unknown verb."""
    try:
        return _run(*(arguments or sys.argv[1:] or ["--help"]))
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(name: str, *rest: str) -> int:
    verbs = find_verbs()
    if name in ("-h", "--help"):
        print(USAGE.format(version=__version__, summary=summary), end="")
        width = max(map(len, verbs))
        for verb, line in verbs.items():
            print(f"  {verb:{width}}  {line}")
    elif name == "--complete":
        line, breaks, *_ = [*rest, "", ""]
        print(*complete(line, list(verbs), breaks), sep="\n")
    elif name == "--completion" and rest and rest[0] in SCRIPTS:
        print(SCRIPTS[rest[0]])
    elif name == "--completion":
        print(f"error: --completion: choose {', '.join(SCRIPTS)}", file=sys.stderr)
        return 2
    elif name == "--version":
        print(f"omnihuman {__version__}")
    elif name not in verbs:
        near = get_close_matches(name, verbs) or verbs
        print(f"error: {name}: unknown verb; did you mean {', '.join(near)}?", file=sys.stderr)
        return 2
    elif set(HELP).intersection(rest):
        print(format_usage(name, verbs[name], rest))
    else:
        sys.argv[1:] = list(rest)
        # as python -m does, so that processes that a verb starts find the same program
        runpy.run_module(f"omnihuman.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
