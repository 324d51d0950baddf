"""The yaml files as they are written: keys with their comments, examples, and choices of groups; without Hydra."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from omnihuman.plugins import list_config_folders

PACKAGE = "# @package"
COMMAND = re.compile(r"(?:python -m omnihuman\.|omnihuman )(\w+)\b.*")
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w*.]+):(?P<value> .*)?$")
DEFAULT = re.compile(r"(?P<kind>override |optional )?(?P<group>/?[\w/]+)(?:@(?P<package>[\w.]+))?: *(?P<choice>.*)$")
COMMENT = re.compile(r"(?:^|\s+)# ?")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a yaml file.

    Attributes:
        key: its path in the file, ``max_media.bytes``.
        value: as written; empty for a key with keys below it.
        comment: beside it.
        title: comment on the lines above it, which applies to the keys that follow as well.
    """

    key: str
    value: str
    comment: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Default:
    """An entry of a defaults list.

    Attributes:
        group: ``encoder``; empty for another file of the same group.
        package: its place in the config, ``model.encoders.video``.
        choice: ``siglip``.
        comment: beside it.
        is_override: true if it changes the choice of an entry elsewhere.
    """

    group: str
    package: str
    choice: str
    comment: str = ""
    is_override: bool = False

    @property
    def key(self) -> str:
        """The group on a command line: ``encoder@model.encoders.video``, ``size``."""
        return self.group if self.package == self.group.replace("/", ".") else f"{self.group}@{self.package}"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A yaml file.

    Attributes:
        header: lines of the comment at its top.
        defaults: entries of its defaults list, with packages relative to the file's own.
        entries: its keys, without ``defaults`` and ``hydra``.
    """

    header: list[str] = field(default_factory=list)
    defaults: list[Default] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def bases(self) -> list[str]:
        """The files of the same folder that it extends."""
        return [entry.choice for entry in self.defaults if not entry.group]

    @property
    def summary(self) -> str:
        """The first line of its comment."""
        return next((line for line in self.header if not COMMAND.match(line)), "")

    @property
    def commands(self) -> list[str]:
        """Examples of commands in its comment."""
        return [line for line in self.header if COMMAND.match(line)]


def config_dir() -> str:
    """Return the folder of the yaml files: beside ``src`` in a clone, inside an installed package."""
    package = Path(__file__).parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if folder.is_dir():
            return str(folder)
    raise ValueError(f"no conf/ in {package} or {package.parents[1]}: install the package, or run from a clone.")


def list_choices(group: str) -> list[str]:
    """Return the names of the yaml files of a group, those of plugins included."""
    names = set[str]()
    for folder in (Path(config_dir()), *list_config_folders()):
        names |= {path.stem for path in (folder / group).glob("*.yaml")}
    return sorted(names)


def _find_file(name: str) -> Path | None:
    """Return the path of a yaml file; the package's own come before those of plugins."""
    paths = [folder / f"{name}.yaml" for folder in (Path(config_dir()), *list_config_folders())]
    return next((path for path in paths if path.is_file()), None)


def list_studies() -> dict[str, str]:
    """Return the name of every study of the package, with the path of its yaml for ``read_file``."""
    folders = Path(config_dir()).parent.glob("experiments/*/sweep.yaml")
    return {path.parent.name: f"../experiments/{path.parent.name}/sweep" for path in sorted(folders)}


def list_words(verb: str) -> list[str]:
    """Return the words that may follow a verb alone: the studies, or those of its examples.

    >>> list_words("train"), "favchat_ablation" in list_words("study")
    ([], True)
    """
    words = list(list_studies()) if verb == "study" else []
    for command in read_file(verb).commands:
        _, _, word, *_ = [*command.split(), ""]
        if word.isidentifier():
            words.append(word)
    return words


@cache
def read_file(name: str) -> ConfigFile:
    """Return the content of a yaml file by its path in the folder, without suffix: ``data/json``.

    A file of another folder, such as that of ``--config-dir``, has no content here.
    """
    path, file, size = _find_file(name), ConfigFile(), 0
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    while size < len(lines) and lines[size].startswith("#"):
        if not lines[size].startswith(PACKAGE):
            file.header.append(lines[size].removeprefix("#").strip())
        size += 1
    file.entries.extend(_read_entries(lines[size:], file.defaults))
    return file


def _read_entries(lines: list[str], defaults: list[Default]) -> list[Entry]:
    """Return the keys of a file; the entries of its defaults list are added to ``defaults``."""
    entries = list[Entry]()
    parents: list[tuple[int, str]] = []
    title = block = ""
    for line in lines:
        text, _, comment = line.partition(" #") if not line.startswith("#") else ("", "", line[1:])
        text, comment = text.rstrip(), comment.strip()
        match = KEY.match(text)
        if match and (not match["indent"] or block not in ("defaults", "hydra")):
            depth = len(match["indent"])
            parents = [parent for parent in parents if parent[0] < depth]
            block = block if depth else match["key"]
            path = ".".join([*(name for _, name in parents), match["key"]])
            parents.append((depth, match["key"]))
            entries.append(Entry(path, (match["value"] or "").strip(), comment, title))
        elif line.startswith("#"):
            title = comment
        elif not line:
            title = ""
        elif block == "defaults" and (item := text.strip().removeprefix("- ")):
            defaults.extend(_read_defaults(item, comment))
        elif entries:  # the previous value or comment goes on
            last = entries[-1]
            value = f"{last.value} {text.strip()}".strip()
            entries[-1] = replace(last, value=value, comment=f"{last.comment} {comment}".strip())
    inline = [entry for entry in entries if entry.key == "defaults"]
    for entry in inline:
        for item in entry.value.strip("[]").split(", "):
            defaults.extend(_read_defaults(item.strip("{}"), ""))
    return [entry for entry in entries if entry.key.partition(".")[0] not in ("defaults", "hydra")]


def _read_defaults(item: str, comment: str) -> Iterator[Default]:
    match = DEFAULT.match(item)
    if match is None and item not in ("_self_", ""):
        yield Default("", "", item, comment)
    elif match is not None and match["kind"] != "optional " and "hydra/" not in match["group"]:
        yield Default(match["group"], match["package"] or "", match["choice"], comment, match["kind"] == "override ")


def list_defaults(name: str, choices: dict[str, str] | None = None) -> list[Default]:
    """Return the groups that a config selects, with those that the selected files select in turn.

    Args:
        name: of the yaml file, ``train``.
        choices: choices of groups in place of those of the files, by their key on a command line.
    """
    defaults: dict[str, Default] = {}
    _collect(name, "", choices or {}, defaults)
    return list(defaults.values())


def _collect(name: str, package: str, choices: dict[str, str], defaults: dict[str, Default]) -> None:
    folder = name.rpartition("/")[0]
    for item in read_file(name).defaults:
        if not item.group:
            _collect(f"{folder}/{item.choice}".lstrip("/"), package, choices, defaults)
            continue
        group = item.group.removeprefix("/") if item.group.startswith("/") or not folder else f"{folder}/{item.group}"
        place = item.package or group.rpartition("/")[2] if package else item.package or group.replace("/", ".")
        entry = replace(item, group=group, package=f"{package}.{place}".lstrip("."))
        if item.is_override:
            entry = replace(defaults[entry.key], choice=item.choice) if entry.key in defaults else entry
        entry = replace(entry, choice=choices.get(entry.key, entry.choice))
        defaults[entry.key] = entry
        if _find_file(f"{group}/{entry.choice}"):
            _collect(f"{group}/{entry.choice}", entry.package, choices, defaults)


def find_example(key: str, verb: str) -> str | None:
    """Return a value of a key in the examples of a verb, or in the comments of the files of its groups.

    >>> find_example("run", "chat"), find_example("data.root", "train")
    ('humanomni_stage3', 'media')
    """
    lines = [*read_file(verb).header]
    for default in list_defaults(verb):
        for choice in list_choices(default.group):
            lines += read_file(f"{default.group}/{choice}").header
    for line in lines:
        if match := re.search(rf"(?:^|[\s\[]){re.escape(key)}=([^\s\]]+)", line):
            return match[1].rstrip(",")
    return None


def find_comment(key: str, verb: str) -> str:
    """Return the comment of a key of a verb, or of a file of its groups; empty without one.

    >>> find_comment("run", "generate")
    'a trained experiment, or the folder of a model (converted, trained elsewhere)'
    """
    files = [(name, key) for name in (verb, *read_file(verb).bases)]
    for default in list_defaults(verb):
        if key.startswith(f"{default.package}."):
            name = key.removeprefix(f"{default.package}.")
            files += [(f"{default.group}/{choice}", name) for choice in list_choices(default.group)]
    for file, name in files:
        for entry in read_file(file).entries:
            if entry.key == name and entry.comment:
                return entry.comment
    return ""
