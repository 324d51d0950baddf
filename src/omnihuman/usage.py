"""Help of a verb: examples, keys and groups with the comments of the yaml files. Imports nothing heavy."""

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from omnihuman.config_files import Default, Entry, list_choices, list_defaults, list_studies, read_file

WIDTH = 100
COLUMN = 28
"""Columns of a line, and where comments begin."""

HELP = ("-h", "--help")

OPTIONS = {
    "-m": "run every value of a=1,2 b=x,y",
    "--cfg job": "print the composed config, and run nothing",
    "--info defaults-tree": "print which file each part comes from",
    "--help GROUP": "the choices of a group, and the keys of the selected one",
}


def format_usage(verb: str, summary: str, arguments: Sequence[str] = ()) -> str:
    """Return the help of a verb, or of the groups that the arguments name.

    Args:
        verb: name of its yaml file.
        summary: first line of its docstring.
        arguments: of the command line; choices among them are those that the help is about.
    """
    choices = read_choices(arguments)
    defaults = list_defaults(verb, choices)
    names = [argument for argument in arguments if not argument.startswith("-") and "=" not in argument]
    groups = {entry.group: entry for entry in defaults if {entry.key, entry.group}.intersection(names)}
    if groups:
        return "\n\n".join(map(_format_group, groups.values()))
    file = read_file(verb)
    lines = [" \\\n    ".join(wrap(command, WIDTH - 6)) for command in file.commands]
    lines += ["", f"{summary.partition(': ')[0].rstrip('.')}.", "", "Keys, with their values:"]
    lines += _format_entries(file.entries)
    for base in file.bases:
        lines.append(f"and the keys of omnihuman {base} (omnihuman {base} --help)")
    lines += ["", "Groups, with their choices:", *_format_defaults(defaults)]
    if "train" in (verb, *file.bases):
        lines += ["", "Experiments, +experiment=:"]
        for name in list_choices("experiment"):
            lines += _format_row(name, read_file(f"experiment/{name}").summary)
    if verb == "study":
        lines += ["", "Studies of the package:"]
        for name, path in list_studies().items():
            lines += _format_row(name, read_file(path).summary)
    lines += ["", "Options:"]
    for option, comment in OPTIONS.items():
        lines += _format_row(option, comment)
    return "\n".join(lines)


def read_choices(arguments: Iterable[str]) -> dict[str, str]:
    """Return the choices of groups on a command line, with those of its experiment.

    >>> read_choices(["+experiment=favchat_stage1", "size=7b"])
    {'model': 'favchat', 'recipe': 'favchat_stage1', 'mixture': 'favchat_stage1', 'size': '7b'}
    """
    choices = {}
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "experiment":
            for entry in read_file(f"experiment/{value}").defaults:
                choices[entry.group.removeprefix("/")] = entry.choice
        elif value:
            choices[key] = value
    return choices


def list_entries(name: str) -> list[Entry]:
    """Return the keys of a yaml file with those of the files that it extends, which it may replace."""
    entries: dict[str, Entry] = {}
    folder = name.rpartition("/")[0]
    for base in read_file(name).bases:
        entries |= {entry.key: entry for entry in list_entries(f"{folder}/{base}".lstrip("/"))}
    for entry in read_file(name).entries:
        extended = entries.get(entry.key)
        if extended is not None and not entry.comment:
            entry = Entry(entry.key, entry.value, extended.comment)
        entries[entry.key] = entry
    return list(entries.values())


def _format_group(default: Default) -> str:
    """Return the choices of a group with their summaries, and the keys of the selected one."""
    lines = [f"{default.key}=, one of:"]
    for choice in list_choices(default.group):
        lines += _format_row(choice, read_file(f"{default.group}/{choice}").summary)
    name = f"{default.group}/{default.choice}"
    if entries := list_entries(name):
        lines += ["", f"Keys of {default.key}={default.choice}:", *_format_entries(entries, f"{default.package}.")]
    return "\n".join(lines)


def _format_entries(entries: Iterable[Entry], prefix: str = "") -> Iterator[str]:
    title = ""
    for entry in entries:
        if entry.key.rpartition(".")[2].startswith("_"):
            continue
        if entry.title and entry.title != title:
            yield f"  {entry.title}:"
        title = entry.title
        sign = "=" if entry.value else ""
        yield from _format_row(f"{prefix}{entry.key}{sign}{entry.value}", entry.comment)


def _format_defaults(defaults: Iterable[Default]) -> Iterator[str]:
    """Yield the groups; parts of the same group at the same place share a line."""
    rows: dict[tuple[str, str], list[Default]] = {}
    for entry in defaults:
        parent = entry.package.rpartition(".")[0] if "@" in entry.key else entry.key
        rows.setdefault((entry.group, parent), []).append(entry)
    for (group, parent), entries in rows.items():
        key = f"{entries[0].key}={entries[0].choice}"
        if len(entries) > 1:
            names = ",".join(entry.package.rpartition(".")[2] for entry in entries)
            key = f"{group}@{parent}.{{{names}}}"
        choices = ", ".join(list_choices(group))
        comment = entries[0].comment if len(entries) == 1 else ""
        yield from _format_row(key, f"{comment}; one of {choices}" if comment else choices)


def _format_row(key: str, comment: str) -> Iterator[str]:
    """Yield the lines of a key and its comment in two columns; a long key has a line of its own."""
    lines = wrap(comment, WIDTH - COLUMN, break_on_hyphens=False) or [""]
    if len(key) + 4 > COLUMN:
        yield from wrap(f"  {key}", WIDTH, subsequent_indent="    ", break_on_hyphens=False, drop_whitespace=True)
    else:
        yield (f"  {key}".ljust(COLUMN) + lines.pop(0)).rstrip()
    for line in lines:
        if line:
            yield " " * COLUMN + line
