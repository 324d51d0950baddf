"""The program ``omnihuman``: ``omnihuman <verb>`` is ``python -m omnihuman.<verb>``."""

import ast
import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from omnihuman import __doc__ as summary
from omnihuman import __version__

USAGE = """omnihuman {version}: {summary}

usage: omnihuman <verb> [key=value ...]
       omnihuman <verb> --help     the keys of a verb

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
    """Run a verb, or print the version or the verbs; return 2 for an unknown verb."""
    name, *rest = arguments or sys.argv[1:] or ["--help"]
    verbs = find_verbs()
    if name in ("-h", "--help"):
        print(USAGE.format(version=__version__, summary=summary), end="")
        width = max(map(len, verbs))
        for verb, line in verbs.items():
            print(f"  {verb:{width}}  {line}")
    elif name == "--version":
        print(f"omnihuman {__version__}")
    elif name not in verbs:
        near = get_close_matches(name, verbs) or verbs
        print(f"error: {name}: unknown verb; did you mean {', '.join(near)}?", file=sys.stderr)
        return 2
    else:
        sys.argv[1:] = rest
        # as python -m does, so that processes that a verb starts find the same program
        runpy.run_module(f"omnihuman.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
