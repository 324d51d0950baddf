"""The documentation names files, headings, verbs and keys that exist."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from omnihuman.build import compose_config, config_dir
from omnihuman.curate import complete_arguments
from omnihuman.overrides import expand_sweep, quote_argument
from omnihuman.source.root import expand_data_paths

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "docs", ROOT / "experiments", ROOT / "examples")
PAGES = sorted([*ROOT.glob("*.md"), *chain.from_iterable(folder.rglob("*.md") for folder in FOLDERS)])
GUIDES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
GENERATED = "api/"
"""Folder of the pages that docs/hooks.py writes."""

CARD = ("python -m omnihuman.train +experiment=humanomni_stage1", "python -m omnihuman.train -m +exp", "make test")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)")
COMMAND = re.compile(r"^(?:python -m omnihuman\.|omnihuman )([a-z]+)\b(?!\.)(.*)$", re.MULTILINE)
TEXT_KEYS = ("instruction", "video", "questions", "out", "path", "question")
PATH_KEYS = ("run", "base")
NEEDS_FOLDER = re.compile(r"\bbase=|weights=|experiment=finetune")
"""Of the arguments of a training whose model comes from a folder."""

UNCHECKED = ("-", "hydra/", "hydra.")
"""Beginnings of arguments that are no keys of the verb: options of Hydra, and its launchers, which need extras."""


@cache
def list_anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, in GitHub's spelling."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().strip().replace(" ", "-") for title in titles}


def list_commands() -> Iterator[tuple[str, str]]:
    """Yield verb and arguments of every command in the guides."""
    for path in GUIDES:
        for language, block in FENCE.findall(path.read_text(encoding="utf-8")):
            if language == "":
                yield from COMMAND.findall(block.replace("\\\n", ""))


def list_complete_commands() -> list[tuple[str, str]]:
    return [command for command in sorted(set(list_commands())) if "..." not in command[1].partition(" #")[0]]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if file.startswith(GENERATED):
            continue
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in list_anchors(target), f"{link}: there is no such heading"


def test_readme_is_short_and_has_the_commands_of_the_card() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert [command for command in CARD if command not in text] == []


def test_home_shows_sections_of_the_readme() -> None:
    sections = re.findall(r"<!-- README: (.+?) -->", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections and set(sections) <= {"picture", *headings}


def test_commands_name_verbs() -> None:
    verbs = {verb for verb, _ in list_commands()}
    assert verbs and [verb for verb in verbs if not (Path(config_dir()) / f"{verb}.yaml").is_file()] == []


def write_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter a folder with those of records that commands name: ``data=mine/``."""
    monkeypatch.chdir(folder)
    for name in ("mine", "other", "curated/sample/records"):
        Path(name).mkdir(parents=True)
        Path(name, "train.json").touch()


def list_overrides(text: str) -> list[str]:
    """Return the overrides of the arguments of a command."""
    arguments = expand_data_paths(shlex.split(text, comments=True))
    if "-p" in arguments:  # the option takes the next argument
        del arguments[arguments.index("-p") + 1]
    if "--" in arguments:
        del arguments[arguments.index("--") :]
    names = {"job", "defaults-tree"}
    overrides = [quote_argument(item, TEXT_KEYS, PATH_KEYS) for item in arguments if item not in names]
    return [item for item in overrides if not item.startswith(UNCHECKED) and "=" in item]


@pytest.mark.parametrize(("verb", "text"), list_complete_commands(), ids=str.strip)
def test_commands_compose(verb: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path, monkeypatch)
    overrides = list_overrides(text)
    if verb == "curate":
        overrides = complete_arguments(overrides)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for cell in expand_sweep(overrides, "-m" in shlex.split(text, comments=True)):
            compose_config(cell, verb)


def list_trainings() -> list[str]:
    """Return the arguments of the documented trainings and forecasts whose model needs no folder."""
    commands = [text for verb, text in list_complete_commands() if verb in ("train", "plan")]
    return [text for text in commands if "+experiment=" in text and not NEEDS_FOLDER.search(text)]


@pytest.mark.slow
@pytest.mark.parametrize("text", list_trainings(), ids=str.strip)
def test_models_of_commands_can_be_built(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnihuman.cost.forecast import Forecaster

    write_folders(tmp_path, monkeypatch)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for cell in expand_sweep(list_overrides(text), "-m" in shlex.split(text, comments=True)):
            assert Forecaster()(compose_config(cell, "plan")).parts
