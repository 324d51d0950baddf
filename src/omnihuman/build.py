"""From a composed config to live objects: the only caller of Hydra's instantiate."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

ALLOWED = ("omnihuman.", "torch.optim.", "lightning.pytorch.", "pytorch_lightning.", "hydra.utils.get_")
"""What a config may build: nothing that a stranger's yaml could abuse."""


def register_resolvers() -> None:
    """Make ``${foundation:llm}`` (weights in the package) and ``${hub:id}`` (null where weights are random) known."""
    OmegaConf.register_new_resolver("foundation", _foundation, replace=True)
    OmegaConf.register_new_resolver("hub", _hub, replace=True)


def _foundation(name: str) -> str:
    folder = files("omnihuman") / "foundation" / "nano" / name
    if not folder.is_dir():
        raise ValueError(f"the package carries no foundation weights named {name!r} (looked in {folder}).")
    return str(folder)


def _hub(name: str, otherwise: str | None = None, *, _root_: Any) -> str | None:
    return otherwise if _root_.get("random_weights") else name


def config_dir() -> str:
    """The folder of the yaml files: beside ``src`` in a clone, inside an installed package."""
    package = Path(__file__).parent
    found = next((folder for folder in (package / "conf", package.parents[1] / "conf") if folder.is_dir()), None)
    if found is None:
        raise ValueError(f"no conf/ in {package} or {package.parents[1]}: install the package, or run from a clone.")
    return str(found)


def compose_config(overrides: Sequence[str], root: str = "train") -> DictConfig:
    """The config that a verb would run with these overrides, inside or outside a Hydra program."""
    register_resolvers()
    return _composed(tuple(overrides), root).copy()


@lru_cache(maxsize=256)  # a chain asks for the same stages again and again
def _composed(overrides: tuple[str, ...], root: str) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if GlobalHydra.instance().is_initialized():
        return compose(root, overrides=list(overrides))
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose(root, overrides=list(overrides))


def compose_part(group: str, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of one part alone: ``compose_part("projector", "stc/7b")``."""
    root = f"{group}/{name}"
    found = OmegaConf.select(compose_config(overrides, root), root.rpartition("/")[0].replace("/", "."))
    assert isinstance(found, DictConfig)
    return found


def build(config: DictConfig | Mapping[str, Any], **given: Any) -> Any:
    """Instantiate a config with every node below it; containers arrive as plain dicts and lists.

    Args:
        config: a node with ``_target_``. Its list ``drop`` names parts (``projectors.body``) to leave out.
        given: keyword arguments on top of the node's own.

    Raises:
        ValueError: a target lies outside ``ALLOWED``, ``drop`` names a part that is not there, or an option is none of
            the words that its part knows.
    """
    from hydra.utils import instantiate

    plain: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else dict(config)
    pruned = prune(plain)
    _check_words(pruned, "")
    return instantiate(pruned, _convert_="all", **given)


def prune(node: dict[str, Any]) -> dict[str, Any]:
    """The plain config without the parts its ``drop`` names and without wiring that a deselected part left behind."""
    node, gone = dict(node), set()
    for path in node.pop("drop", None) or []:
        group, _, name = str(path).partition(".")
        if name not in (node.get(group) or {}):
            raise ValueError(f"drop names {path!r}, but {group!r} has only {sorted(node.get(group) or {})}.")
        gone.add((group, name))
    for group in ("encoders", "projectors", "early_fusions", "fusions"):
        if group in node:
            parts = node[group] or {}
            gone |= {(group, name) for name, part in parts.items() if not part or "_target_" not in part}
            node[group] = {name: part for name, part in parts.items() if (group, name) not in gone}
    if node.get("sources"):
        node["sources"] = {key: source for key, source in node["sources"].items() if ("projectors", key) not in gone}
    _check_targets(node)
    return node


def _check_words(node: Any, path: str) -> None:
    """Options that are one of a few words, which Python itself would let pass."""
    from hydra.utils import get_object

    if isinstance(node, dict):
        if str(node.get("_target_")).startswith("omnihuman."):
            known = signature(get_object(node["_target_"])).parameters
            for key in node.keys() & known.keys():
                kinds = (known[key].annotation, *get_args(known[key].annotation))
                words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
                if isinstance(node[key], str) and words and node[key] not in words:
                    raise ValueError(f"{path}{key}={node[key]}: choose from {', '.join(words)}.")
        for key, inner in node.items():
            _check_words(inner, f"{path}{key}.")
    elif isinstance(node, list):
        for inner in node:
            _check_words(inner, path)


def _check_targets(node: Any) -> None:
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(ALLOWED):
            raise ValueError(f"_target_ {target!r} is not allowed: a config may build {', '.join(ALLOWED)} only.")
        for inner in node.values():
            _check_targets(inner)
    elif isinstance(node, list):
        for inner in node:
            _check_targets(inner)
