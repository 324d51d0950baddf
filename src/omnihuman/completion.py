"""Completion of command lines in a shell: verbs, keys, and choices of groups. Imports nothing heavy."""

from collections.abc import Iterator, Sequence

from omnihuman.config_files import list_choices, list_defaults, list_words, read_file
from omnihuman.usage import HELP, list_entries, read_choices

SCRIPTS = {
    "bash": """_omnihuman() {
  local IFS=$'\\n'
  COMPREPLY=($("${COMP_WORDS[0]}" --complete "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS"))
  compopt -o nospace
}
complete -o default -F _omnihuman omnihuman""",
    "zsh": """_omnihuman() {
  local -a words; words=("${(@f)$(omnihuman --complete "$LBUFFER")}")
  if [[ -n $words ]]; then compadd -Q -S '' -- $words; else _files; fi
}
compdef _omnihuman omnihuman""",
    "fish": "complete -c omnihuman -a '(omnihuman --complete (commandline -cp))'",
}
"""Shell -> the code that asks the program for the words that a line can go on with."""

OPTIONS = ("--cfg", "--config-dir", "--info", "-m", *HELP)


def complete(line: str, verbs: Sequence[str], breaks: str = "") -> list[str]:
    """Return the words with which a command line can go on, without what the shell keeps of the last one.

    >>> complete("omnihuman tr", ["train", "report"])
    ['train ']
    >>> complete("omnihuman train size=n", ["train"], breaks=" =")
    ['nano ']

    Args:
        line: up to the cursor.
        verbs: of the program.
        breaks: characters at which the shell divides words; it replaces what follows the last one.
    """
    words = line.split(" ")
    current = words.pop()
    words = [word for word in words[1:] if word]
    if not words:
        options = [*verbs, "--help", "--version"]
    elif words[0] in verbs:
        options = [*_list_options(words, current)]
    else:
        options = []
    options = sorted({option for option in options if option.startswith(current)})
    begin = max((current.rfind(character) for character in breaks if character != " "), default=-1) + 1
    if len(options) == 1 and options[0][-1] not in "=.":
        options[0] += " "
    return [option[begin:] for option in options]


def _list_options(words: Sequence[str], current: str) -> Iterator[str]:
    """Yield the words that can follow a verb and its arguments."""
    verb = words[0]
    sign = "+" if current.startswith("+") else ""
    key = current.removeprefix(sign).partition("=")[0]
    defaults = list_defaults(verb, read_choices(words))
    groups = {entry.key: entry.group for entry in defaults}
    is_training = "train" in (verb, *read_file(verb).bases)
    if is_training:
        groups["experiment"] = "experiment"
    if "=" in current:
        for choice in list_choices(groups[key]) if key in groups else ():
            yield f"{sign}{key}={choice}"
        return
    if current.startswith("-"):
        yield from OPTIONS
    if len(words) == 1:
        yield from list_words(verb)
    if is_training:
        yield "+experiment="
    yield from (f"{group}=" for group in groups if group != "experiment")
    yield from _list_keys([entry.key for entry in list_entries(verb)], current)
    for default in defaults:
        if current.startswith(f"{default.package}."):
            names = [entry.key for entry in list_entries(f"{default.group}/{default.choice}")]
            yield from _list_keys([f"{default.package}.{name}" for name in names], current)
        else:
            yield from _list_keys([f"{default.package}."], current)


def _list_keys(keys: Sequence[str], current: str) -> Iterator[str]:
    """Yield keys up to the next dot behind the current word, and whole ones with their sign."""
    for key in keys:
        if not key.startswith(current) or key.rpartition(".")[2].startswith("_"):
            continue
        head, dot, _ = key[len(current) :].partition(".")
        if dot:
            yield f"{current}{head}."
        elif any(other.startswith(f"{key}.") for other in keys):
            yield f"{key}."
        else:
            yield f"{key}="
