"""Pages of the site that are not in ``docs``: sections of the README, pages of the repository, and the API."""

import itertools
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "omnihuman"
MOVED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "docs/first_model.py": "first_model.md",
}
"""Path in the repository -> path on the site. Other files keep theirs, without ``docs/``."""

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
SECTION = re.compile(r"<!-- README: (.+?) -->")
CORE = ("", ".types", ".modality", ".build", ".overrides")


def site_path(path: str) -> str:
    """Return the path on the site of a file in the repository."""
    return MOVED.get(path, path.removeprefix("docs/"))


def list_repository_files() -> Iterator[str]:
    """Yield the files of the repository, outside ``docs``, that are on the site."""
    yield from ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "requirements.txt")
    for folder, pattern in itertools.product(("experiments", "examples"), ("*.md", "*.png")):
        for path in sorted((ROOT / folder).rglob(pattern)):
            yield path.relative_to(ROOT).as_posix()


def list_api_pages() -> dict[str, list[str]]:
    """Return the modules of every page: a package and all modules in it."""
    pages = {"omnihuman": [f"omnihuman{name}" for name in CORE]}
    for package in sorted(PACKAGE.glob("*/__init__.py")):
        modules = []
        for path in sorted(package.parent.rglob("*.py")):
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            if path.stem not in ("__init__", "__main__"):
                modules.append(name)
        pages[package.parent.name] = modules
    return pages


def write_api_page(name: str, modules: list[str]) -> str:
    """Return a page that mkdocstrings fills from the docstrings of the modules."""
    title = "omnihuman" if name == "omnihuman" else f"omnihuman.{name}"
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)])


def rewrite_links(text: str, source: str, target: str) -> str:
    """Return a text of the repository with the links that it needs as a page of the site.

    Args:
        text: Markdown with relative links.
        source: path of the text in the repository.
        target: path of the page on the site.
    """

    def rewrite(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return posixpath.relpath(site_path(path), posixpath.dirname(target) or ".")

    return LINK.sub(rewrite, text)


def read_section(name: str) -> str:
    """Return a section of the README; ``picture`` is its first block of code.

    Raises:
        KeyError: there is no such section.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    if name == "picture":
        return "```" + head.split("```")[1] + "```"
    by_title = {section.partition("\n")[0]: f"## {section}" for section in sections}
    return rewrite_links(by_title[name], "README.md", "index.md")


def on_config(config: Any) -> Any:
    """Add the pages of the API to the navigation."""
    config.nav.append({"API": [{name: f"api/{name}.md"} for name in list_api_pages()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in ``docs``."""
    for path in list_repository_files():
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    for name, modules in list_api_pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=write_api_page(name, modules)))
    code = (ROOT / "docs" / "first_model.py").read_text(encoding="utf-8")
    page = f"# First model\n\n`python docs/first_model.py`\n\n```python\n{code}```\n"
    files.append(File.generated(config, "first_model.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page, fill in sections of the README, and give a table's page its title."""
    target = page.file.src_uri
    sources = {moved: path for path, moved in MOVED.items() if path != "README.md"}
    is_in_repository = target.startswith(("experiments/", "examples/"))
    source = sources.get(target, target if is_in_repository else f"docs/{target}")
    text = rewrite_links(markdown, source, target)
    if posixpath.basename(target) == "TABLE.md":
        text = text.removeprefix("##")
    return SECTION.sub(lambda match: read_section(match[1]), text)
