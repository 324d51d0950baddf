"""Static pages from templates; they load nothing from the network."""

from collections.abc import Iterable
from importlib.resources import files
from typing import Any


def render_page(template: str, **values: Any) -> str:
    """Return the HTML of a template of this package, with the style that all pages share.

    Args:
        template: name of its file.
        values: of its variables; all texts are escaped.
    """
    from jinja2 import Environment, StrictUndefined

    folder = files("omnihuman.evaluation")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((folder / template).read_text(encoding="utf-8"))
    return page.render(style=(folder / "page.css").read_text(encoding="utf-8"), **values)


def intersect(names: Iterable[str], present: set[str]) -> list[str]:
    """Return the names that are present, in their order, as options of a filter."""
    return [name for name in names if name in present]
