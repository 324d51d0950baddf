"""Hydra overrides, parsed: the one module that looks into strings such as ``+group@package=choice``."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override as ParsedOverride
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Override:
    """One override of a command line; ``str()`` gives it back as it was typed.

    Attributes:
        text: as typed.
        name: the config group or the path of a value: ``fusion`` of ``+fusion@model.fusions.gate=moe``.
        package: the path after ``@``, ``None`` without one.
    """

    text: str
    name: str
    package: str | None
    _parsed: ParsedOverride = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def key(self) -> str:
        """The path in the config that it changes: ``model.fusions.gate`` of ``+fusion@model.fusions.gate=moe``."""
        if self.package is not None:
            return self.package
        return self.name.replace("/", ".")

    @property
    def root(self) -> str:
        """The first part of the name: ``hydra`` of ``hydra/launcher=joblib``, ``data`` of ``data.root=m``."""
        return self.name.replace("/", ".").partition(".")[0]

    @property
    def value(self) -> str:
        """The text after ``=``, empty where there is none."""
        return self.text.partition("=")[2]

    @property
    def parsed_value(self) -> Any:
        """The value of an override that is no sweep, in Hydra's types; without quotes."""
        value: Any = self._parsed.value()
        return value

    @property
    def choices(self) -> list[str]:
        """The values of a sweep, or the one value, without quotes.

        Raises:
            ValueError: the values cannot be listed, as of an interval.
        """
        if not self.is_sweep:
            value: Any = self._parsed.value()
            return [value if isinstance(value, str) else self.value]
        if not self._parsed.is_discrete_sweep():
            raise ValueError(f"{self.text} has no list of values: give values, choices or a range.")
        return list(self._parsed.sweep_string_iterator())

    @property
    def is_new(self) -> bool:
        """True if it may add a key: ``+`` or ``++``."""
        return self._parsed.is_add() or self._parsed.is_force_add()

    @property
    def is_delete(self) -> bool:
        return self._parsed.is_delete()

    @property
    def is_sweep(self) -> bool:
        return self._parsed.is_sweep_override()

    def is_below(self, *keys: str) -> bool:
        """Return true if it changes one of the keys or a value below: ``trainer.devices=2`` is below ``trainer``."""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in keys)

    def split_sweep(self) -> list[str]:
        """Return one override for each value of a sweep, or the override itself."""
        if not self.is_sweep:
            return [self.text]
        key = self._parsed.get_key_element()
        return [f"{key}={choice}" for choice in self.choices]


def parse_overrides(texts: Iterable[str]) -> list[Override]:
    """Parse the overrides of a command line.

    >>> [(override.name, override.key, override.value) for override in parse_overrides(["+a@b.c=1,2", "~d/e"])]
    [('a', 'b.c', '1,2'), ('d/e', 'd.e', '')]

    Raises:
        ValueError: one of them is no Hydra override.
    """
    return [parse_override(text) for text in texts]


@lru_cache(maxsize=4096)  # Hydra's grammar takes a millisecond for each, and a chain parses the same ones many times
def parse_override(text: str) -> Override:
    """Parse one override.

    Raises:
        ValueError: it is no Hydra override.
    """
    return _parse(text, None)


def _parse(text: str, loader: ConfigLoader | None) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        (parsed,) = OverridesParser.create(loader).parse_overrides([text])
    except HydraException as error:
        raise ValueError(f"{text!r} is no Hydra override: {str(error).splitlines()[0]}") from error
    return Override(text, parsed.key_or_group, parsed.package, parsed)


def without_keys(texts: Iterable[str], *keys: str) -> list[str]:
    """Return the overrides that change none of the keys and nothing below them.

    >>> without_keys(["size=7b", "variant=a", "trainer.devices=2"], "variant", "trainer")
    ['size=7b']
    """
    return [str(override) for override in parse_overrides(texts) if not override.is_below(*keys)]


def select_keys(texts: Iterable[str], *keys: str) -> list[Override]:
    """Return the overrides that change one of the keys or a value below one."""
    return [override for override in parse_overrides(texts) if override.is_below(*keys)]


def expand_sweep(texts: Sequence[str], is_multirun: bool) -> list[list[str]]:
    """Return every combination of the values in overrides: ``a=1,2 b=range(3)`` are six cells.

    Hydra has to be initialized: the choices of ``glob(...)`` are files on its search path.

    Raises:
        ValueError: an override has several values without ``is_multirun``, or values that cannot be listed.
    """
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    axes = []
    for text in texts:
        override = _parse(text, loader)
        if override.is_sweep and not is_multirun:
            raise ValueError(f"{override} has several values, one for each cell of a sweep: add -m.")
        axes.append(override.split_sweep())
    return [list(cell) for cell in itertools.product(*axes)]


def quote(text: str) -> str:
    r"""Quote a text for Hydra, so that it is one string whatever characters it contains.

    >>> print(quote("Who's there? [fear ,sad] ${x}"))
    'Who\'s there? [fear ,sad] \${x}'
    """
    return QuotedString(text, Quote.single).with_quotes().replace("${", "\\${")


def quote_argument(argument: str, text_keys: Sequence[str], path_keys: Sequence[str]) -> str:
    r"""Quote the value of a command-line argument where it is free text, a path with ``=`` in it, or not ASCII.

    This runs before Hydra's grammar, which such a value would break.

    Args:
        argument: ``key=value`` as typed.
        text_keys: keys whose value is free text.
        path_keys: keys whose value may be a folder that a sweep named after its overrides, ``run=runs/nano/x/seed=1``.

    >>> quote_argument("instruction=Who's there?\nfear ,sad", ["instruction"], [])
    "instruction='Who\\'s there?\nfear ,sad'"
    >>> quote_argument("options=[高兴,sad]", [], [])
    "options=['高兴',sad]"

    Raises:
        ValueError: a key in braces is not ASCII.
    """
    key, _, value = argument.partition("=")
    is_text = key in text_keys or (key in path_keys and "=" in value)
    if not is_text and not value.isascii():
        return f"{key}={_quote_words(value)}"
    if not is_text or value in ("", "null"):
        return argument
    is_quoted = value[0] == value[-1] and value[0] in "'\""
    return argument if is_quoted else f"{key}={quote(value)}"


def _quote_words(value: str) -> str:
    """Quote what is not ASCII in a value: all of it, or the elements of a list, a mapping or a sweep.

    Raises:
        ValueError: a key in braces is not ASCII, which Hydra's grammar does not allow.
    """
    if set(value) & {"'", '"'}:  # quoted by the user
        return value
    if not set(value) & set("[]{}(),"):
        return quote(value)
    for word in re.findall(r"([^\s{}\[\](),:]+)\s*:", value):
        if not word.isascii():
            raise ValueError(f"{value}: the key {word} in braces must be ASCII; write a list, or a yaml file.")
    return re.sub(r"[^\s{}\[\](),:]([^{}\[\](),:]*[^\s{}\[\](),:])?", _quote_foreign, value)


def _quote_foreign(match: re.Match[str]) -> str:
    return match[0] if match[0].isascii() else quote(match[0])


def declare_sweep(arguments: Sequence[str]) -> list[str]:
    r"""Return a command line in which the swept overrides are ``hydra.sweeper.params``, which every cell can read.

    >>> declare_sweep(["-m", "+experiment=x", "a@b.c=d,e", "seed=1"])
    ['-m', "++hydra.sweeper.params={a@b.c:'d,e'}", '+experiment=x', 'seed=1']
    """
    if not {"-m", "--multirun"}.intersection(arguments):
        return list(arguments)
    params, remaining = [], []
    for argument in arguments:
        key, _, values = argument.partition("=")
        if _is_sweep(argument):
            params.append(f"{key}:{quote(values)}")
        else:
            remaining.append(argument)
    if params:
        remaining.insert(1, f"++hydra.sweeper.params={{{','.join(params)}}}")
    return remaining


def _is_sweep(argument: str) -> bool:
    try:
        return "=" in argument and not argument.startswith("-") and parse_override(argument).is_sweep
    except ValueError:  # which Hydra explains
        return False


def apply_values(config: DictConfig, overrides: Iterable[Override]) -> None:
    """Change the values of a composed config in place, by Hydra's own function and with its errors.

    Raises:
        ConfigCompositionException: a key does not exist, or exists already.

    >>> from omegaconf import OmegaConf
    >>> config = OmegaConf.create({"seed": 1})
    >>> apply_values(config, parse_overrides(["seed=2", "+frames=4"]))
    >>> config
    {'seed': 2, 'frames': 4}
    """
    ConfigLoaderImpl._apply_overrides_to_config([override._parsed for override in overrides], config)
