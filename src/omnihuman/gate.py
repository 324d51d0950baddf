"""The gate for files that somebody else may have written: what their configs may build, and plain pickles."""

import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from types import FunctionType
from typing import Any
from zipfile import is_zipfile

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse
from yaml import YAMLError

from omnihuman.plugins import GROUP, list_plugins

RESOLVERS = ("foundation", "hub", "oc.select")
"""Resolvers that a config of somebody else may use: none of them reads the environment or a file."""

PACKAGE_RESOLVERS = ("foundation", "hub")
"""Those of them whose values depend on where the package is, and on whether weights are random."""

SPECIAL_KEYS = ("_target_", "_partial_")
"""Keys of a node that are no arguments. Hydra's ``_args_``, ``_convert_`` and ``_recursive_`` do not exist here."""

MODEL_KEYS = ("drop", "variant")
"""Keys of a model that are read before it is built: parts that are left out, and the name of its preset."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The classes or functions that a config may build at one place.

    Attributes:
        place: in the config of a run or an evaluation, ``model.encoders.*``; ``*`` is one name.
        package: that defines the classes.
        base: full name of the class that they extend; ``types.FunctionType`` for functions.
    """

    place: str
    package: str
    base: str

    def is_at(self, place: str) -> bool:
        """Return True if the kind belongs to this place."""
        pattern = re.escape(self.place).replace(r"\*", r"[^.]+")
        return re.fullmatch(pattern, place) is not None

    def find(self, target: str) -> Callable[..., Any] | None:
        """Return the class or function of a target, ``None`` if it is not of this kind.

        Only modules of the package are imported, and those of classes that a plugin names. Attributes of attributes are
        not reached: a module that a module of ours has imported is not one of its own.

        Raises:
            ImportError: there is no such module, or it needs a package that is not installed.
        """
        module, _, name = target.rpartition(".")
        is_plugin = target in list_plugins()
        if not (is_plugin or _is_within(module, self.package)):
            return None
        part, base = getattr(import_module(module), name, None), _locate(self.base)
        if base is FunctionType:
            return part if isinstance(part, FunctionType) and part.__module__ == module else None
        if not (isinstance(part, type) and issubclass(part, base)):
            return None
        if is_plugin:
            return part
        # other packages export their classes from modules that do not define them
        is_own = part.__module__ == module or not _is_within(module, "omnihuman")
        return part if is_own and _is_within(part.__module__, self.package) else None


KINDS = (
    Kind("model", "omnihuman.model", "omnihuman.model.omni.OmniModel"),
    Kind("model.encoders.*", "omnihuman.encoder", "omnihuman.encoder.base.Encoder"),
    Kind("model.projectors.*", "omnihuman.projector", "omnihuman.projector.base.Projector"),
    Kind("model.early_fusions.*", "omnihuman.fusion", "omnihuman.fusion.base.Fusion"),
    Kind("model.fusions.*", "omnihuman.fusion", "omnihuman.fusion.base.Fusion"),
    Kind("model.llm", "omnihuman.llm", "omnihuman.llm.causal.CausalLM"),
    Kind("data", "omnihuman.data.module", "omnihuman.data.module.OmniData"),
    Kind("data.face", "omnihuman.data.face", "omnihuman.data.face.FaceInput"),
    Kind("data.face.detector", "omnihuman.data.face", "builtins.object"),
    Kind("data.augment", "omnihuman.data.augment", "omnihuman.data.augment.AudioAugment"),
    Kind("data.source", "omnihuman.source", "omnihuman.source.base.Source"),
    Kind("data.records", "omnihuman.source", "omnihuman.source.base.Source"),
    Kind("data.records.source", "omnihuman.source", "omnihuman.source.base.Source"),
    Kind("data.records.*", "omnihuman.source", "omnihuman.source.base.Source"),
    Kind("data.records.*.source", "omnihuman.source", "omnihuman.source.base.Source"),
    Kind("data.val_records", "omnihuman.source", "omnihuman.source.base.Source"),
    Kind("objective", "omnihuman.objective", "omnihuman.objective.base.Objective"),
    Kind("optimizer", "torch.optim", "torch.optim.Optimizer"),
    Kind("optimizer", "torchao.optim", "torch.optim.Optimizer"),
    Kind("optimizer", "bitsandbytes.optim", "torch.optim.Optimizer"),
    Kind("scheduler", "torch.optim.lr_scheduler", "torch.optim.lr_scheduler.LRScheduler"),
    Kind("scheduler", "omnihuman.training.schedule", "types.FunctionType"),
    Kind("callback.*", "omnihuman.training", "omnihuman.pl.Callback"),
    Kind("callback.*", "omnihuman.evaluation", "omnihuman.pl.Callback"),
    Kind("callback.*", "lightning.pytorch", "omnihuman.pl.Callback"),
    Kind("callback.*", "pytorch_lightning", "omnihuman.pl.Callback"),
    Kind("logger.*", "lightning.pytorch", "omnihuman.pl.Logger"),
    Kind("logger.*", "pytorch_lightning", "omnihuman.pl.Logger"),
    Kind("logger.*", "swanlab.integration.pytorch_lightning", "omnihuman.pl.Logger"),
    Kind("validation.metrics.*", "omnihuman.metric", "builtins.object"),
    Kind("benchmark", "omnihuman.benchmark", "omnihuman.benchmark.base.Benchmark"),
    Kind("pipeline.operators.*", "omnihuman.operator", "omnihuman.operator.base.Operator"),
    Kind("pipeline.operators.*.model", "omnihuman.operator.speaking", "omnihuman.operator.speaking.SpeakerModel"),
    Kind("judge", "omnihuman.judge", "omnihuman.judge.base.Judge"),
    Kind("judge.groups", "omnihuman.metric.open_vocabulary", "types.FunctionType"),
)
"""Everything that a config may build, beside classes of plugins with the same bases at the same places."""


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _locate(name: str) -> Any:
    module, _, name = name.rpartition(".")
    return getattr(import_module(module), name)


def find_target(location: str, target: Any, kinds: Sequence[Kind] = KINDS) -> Callable[..., Any]:
    """Return the class or function that a ``_target_`` names by its module and its own name.

    Args:
        location: of the target, for messages.
        target: ``omnihuman.encoder.siglip.SigLIP``.
        kinds: what is allowed.

    Raises:
        ValueError: it is none of these kinds, or its module cannot be imported.
    """
    if isinstance(target, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        try:
            for kind in kinds:
                part = kind.find(target)
                if part is not None:
                    return part
        except ImportError as error:
            cure = ""
            if error.name and find_spec(error.name.partition(".")[0]) is None:
                cure = f"; pip install {error.name.partition('.')[0]}"
            raise ValueError(f"{location} is {target!r}: {error}{cure}.") from error
    packages = dict.fromkeys(kind.package for kind in kinds)
    expected = "no target here"
    if len(packages) > 5:
        expected = f"a class of omnihuman, or one that an installed package of yours names in its entry points {GROUP}"
    elif packages:
        expected = f"a class of {', '.join(packages)}, or one that an installed package names ({GROUP})"
    raise ValueError(f"{location} is {target!r}; expected {expected}.")


def check_node(location: str, node: Mapping[Any, Any], kinds: Sequence[Kind] = KINDS) -> Callable[..., Any]:
    """Check the target and the arguments of a node, and return the class or function.

    Args:
        location: of the node, for messages; empty, or with a dot or colon at its end.
        node: with ``_target_``.
        kinds: what is allowed.

    Raises:
        ValueError: the target is not allowed, or an argument is unknown or missing.
    """
    target = find_target(f"{location}_target_", node["_target_"], kinds)
    is_partial = node.get("_partial_", False)
    if not isinstance(is_partial, bool):
        raise ValueError(f"{location}_partial_ is {is_partial!r}; expected true or false.")
    place = location.removesuffix(".") or node["_target_"]
    names = [str(key) for key in node if key not in SPECIAL_KEYS]
    parameters = signature(target).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [name for name in names if name.startswith("_") or not (takes_any or name in parameters)]
    if unknown:
        raise ValueError(f"{place}: unknown arguments of {target.__name__}: {', '.join(unknown)}.")
    required = [name for name, parameter in parameters.items() if _is_required(parameter)]
    missing = [name for name in required if name not in names]
    if missing and not is_partial:
        raise ValueError(f"{place}: {target.__name__} needs {', '.join(missing)}.")
    return target


def _is_required(parameter: Parameter) -> bool:
    is_named = parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return is_named and parameter.default is Parameter.empty


def check_config(location: str, value: Any, place: str = "") -> None:
    """Check a config that somebody else may have written, or a part of it.

    Args:
        location: of the value, for messages.
        value: containers and values, interpolations resolved.
        place: of the value in the config of a run, which decides what it may build; empty for the whole config.

    Raises:
        ValueError: a target is not allowed at its place, or a value is not a number, a string, a list or an object.
    """
    if isinstance(value, Mapping):
        special: tuple[str, ...] = ()
        if "_target_" in value:
            node = {key: child for key, child in value.items() if place != "model" or key not in MODEL_KEYS}
            check_node(f"{location}.", node, [kind for kind in KINDS if kind.is_at(place)])
            special = SPECIAL_KEYS
        for key, child in value.items():
            if key in special:
                continue
            if not isinstance(key, str | int) or str(key).startswith("_"):
                raise ValueError(f"{location} has the key {key!r}, which no config of omnihuman has.")
            check_config(f"{location}.{key}", child, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            check_config(f"{location}.{index}", child, f"{place}.{index}")
    elif not (value is None or isinstance(value, bool | int | float | str)) or "${" in str(value):
        raise ValueError(f"{location} is {value!r:.80}; expected a plain value.")


def read_config(file: Path, folder: Path | None = None, *, is_portable: bool = False) -> DictConfig:
    """Return the config in a file that somebody else may have written, checked, with all interpolations resolved.

    Args:
        file: ``config.yaml`` of a run folder, a model folder or an evaluation.
        folder: value of the config's key ``folder``, which its paths may begin with.
        is_portable: leave interpolations of ``PACKAGE_RESOLVERS``, for a config that becomes part of another one.

    Raises:
        ValueError: it is no config, it interpolates more than its own keys, or ``check_config`` refuses it.
    """
    try:
        config = OmegaConf.load(file)
        if not isinstance(config, DictConfig):
            raise ValueError(f"{file} is no config: it has no keys.")
        raw = OmegaConf.to_container(config)
        _check_resolvers(f"{file}: ", raw)
        if folder is not None:
            config.folder = str(folder)
        plain = OmegaConf.to_container(config, resolve=True)
        check_config(f"{file}: config", plain)
        if is_portable:
            plain = _restore_interpolations(plain, raw)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).partition("\n    full_key")[0].split())
        raise ValueError(f"{file} is no config of omnihuman: {reason}") from error
    resolved = OmegaConf.create(plain)
    assert isinstance(resolved, DictConfig)
    return resolved


def _check_resolvers(location: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            _check_resolvers(f"{location}{key}.", child)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _check_resolvers(f"{location}{index}.", child)
    elif isinstance(value, str):
        for name in iterate_resolvers(value):
            if name not in RESOLVERS:
                raise ValueError(
                    f"{location.removesuffix('.')} is {value!r:.80}: a config that is read from a folder may refer to "
                    f"its own keys, not to ${{{name}:}}; write the value."
                )


def _restore_interpolations(plain: Any, raw: Any) -> Any:
    """Return resolved values, with the interpolations of ``PACKAGE_RESOLVERS`` that they come from."""
    if isinstance(raw, dict):
        return {key: _restore_interpolations(value, raw.get(key)) for key, value in plain.items()}
    if isinstance(raw, list):
        return [_restore_interpolations(value, source) for value, source in zip(plain, raw, strict=True)]
    if isinstance(raw, str):
        names = [*iterate_resolvers(raw)]
        if names and {*names} <= {*PACKAGE_RESOLVERS} and len(names) == raw.count("${"):
            return raw
    return plain


def iterate_resolvers(text: str) -> Iterator[str]:
    """Yield the names of the resolvers in a text with interpolations, nested ones too.

    >>> list(iterate_resolvers("${hub:a,'${oc.env:HOME}'} ${model.llm}"))
    ['hub', 'oc.env']
    """
    if "${" in text:
        yield from _iterate_names(parse(text))


def _iterate_names(context: Any) -> Iterator[str]:
    if isinstance(context, OmegaConfGrammarParser.InterpolationResolverContext):
        yield str(context.getChild(1).getText())
    for child in getattr(context, "children", None) or ():
        yield from _iterate_names(child)


def resolve_foreign(config: DictConfig) -> DictConfig:
    """Return a config in which the values of other resolvers than ``RESOLVERS`` stand instead of them.

    What a command line reads from the environment is so written to ``config.yaml``, which is then read without it.
    """
    config = config.copy()
    _resolve_children(config)
    return config


def _resolve_children(node: DictConfig | ListConfig) -> None:
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        child = node._get_node(key)
        if OmegaConf.is_interpolation(node, key):
            assert child is not None and not isinstance(child, list)
            if not set(iterate_resolvers(str(child._value()))) <= set(RESOLVERS):
                node._set_item_impl(key, node[key])
        elif isinstance(child, DictConfig | ListConfig):
            _resolve_children(child)


def load_pickle(file: str | Path, mmap: bool = False) -> object:
    """Load a file of ``torch.save`` that holds plain tensors, numbers and containers.

    Args:
        file: to load.
        mmap: map tensors from disk instead of reading them, if the file format allows it (old formats do not).

    Raises:
        ValueError: the file is missing, cut short, or holds other objects, whose unpickling could run code.
    """
    import torch  # configs are read without it

    if not Path(file).is_file():
        raise ValueError(f"checkpoint {file} does not exist.")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} is not a plain checkpoint, and other pickles are never loaded. If you trust it, save its state "
            f"dict alone with torch.save. torch.load reports: {_summarize(error)}"
        ) from error


def _summarize(error: Exception) -> str:
    """Return the line that names the cause: torch's message goes on with advice on how to load the file anyway."""
    lines = str(error).splitlines() or [type(error).__name__]
    for line in lines:
        if "GLOBAL" in line:
            return line.strip()
    return lines[0]
