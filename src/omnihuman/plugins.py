"""Plugins: installed packages that name classes and yaml files of theirs by entry points."""

from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

GROUP = "omnihuman.plugins"
"""Group of entry points.

``package.module:Class`` names a class that configs may build, ``package`` alone one with a folder ``conf``.
"""


@cache
def list_plugins() -> dict[str, str]:
    """Return the full name of every class that an installed package names, with the name of the package."""
    plugins = {}
    for entry in entry_points(group=GROUP):
        if entry.attr:
            plugins[f"{entry.module}.{entry.attr}"] = entry.dist.name if entry.dist else entry.module
    return plugins


@cache
def list_config_folders() -> list[Path]:
    """Return the folders of yaml files of all plugins.

    Raises:
        ValueError: a package has none.
    """
    folders = []
    for entry in entry_points(group=GROUP):
        if entry.attr:
            continue
        spec = find_spec(entry.module)
        folder = Path(str(spec and spec.origin)).parent / "conf"
        if not folder.is_dir():
            raise ValueError(f"{entry.value} is a plugin ({GROUP}) without a folder conf: {folder} does not exist.")
        folders.append(folder)
    return folders
