"""The table of trainable parameters: pattern of parameter names -> learning rate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

WRAPPERS = ("_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "module.", "_checkpoint_wrapped_module.")


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters of one row of the table.

    Attributes:
        pattern: of the parameters' names.
        names: of the parameters.
        lr: learning rate.
        weight_decay: of parameters with two or more dimensions, ``None`` for the optimizer's default.
    """

    pattern: str
    names: tuple[str, ...]
    lr: float
    weight_decay: float | None = None


def strip_wrappers(name: str) -> str:
    """Return the name of a parameter without the prefixes of FSDP, torch.compile and checkpointing."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def canonical_name(name: str) -> str:
    """Return the name that a parameter has in weights files: LoRA's wrapper around a base weight is not part of it."""
    return strip_wrappers(name).replace(".base_layer.", ".")


def set_trainable(model: nn.Module, table: Mapping[str, Any]) -> list[Group]:
    """Freeze the model except for the parameters that patterns match; the first matching pattern counts.

    In a part with LoRA adapters a pattern unfreezes the adapters alone. A pattern of a part without parameters, as a
    fusion may be after a swap, has no effect, and so has a pattern whose learning rate is ``None``.

    Args:
        model: its parameters' names are matched.
        table: pattern (``projectors.*``) -> learning rate, ``{lr, weight_decay}``, or ``None`` for frozen parameters.

    Raises:
        ValueError: a pattern matches no part, or only parameters of earlier patterns; no parameter is trainable.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    >>> [(group.names, group.lr) for group in set_trainable(model, {"1.*": 1e-3})]
    [(('1.weight', '1.bias'), 0.001)]
    """
    if not table:
        raise ValueError(f"`trainable` is empty, every part is frozen. The model's parts are {part_names(model)}.")
    model.requires_grad_(False)
    parameters = {strip_wrappers(name): parameter for name, parameter in model.named_parameters()}
    candidates = _without_lora_bases(parameters)
    groups = []
    assigned = set[str]()
    for pattern, row in table.items():
        matches = [name for name in candidates if fnmatchcase(name, pattern)]
        names = tuple(name for name in matches if name not in assigned)
        assigned.update(names)
        if not names:
            _check_pattern(model, pattern, matches)
        elif row is not None:
            groups.append(_build_group(pattern, names, row))
    if not groups:
        raise ValueError(f"trainable: {sorted(table)} match only frozen parts, or none with parameters.")
    for group in groups:
        for name in group.names:
            parameters[name].requires_grad_(True)
    model.train(model.training)  # switches newly frozen parts to eval mode
    return groups


def _without_lora_bases(names: Iterable[str]) -> list[str]:
    """Return the names without those of a part with LoRA adapters that are no adapters."""
    names = list(names)
    adapted_parts = {_part_name(name) for name in names if ".lora_" in name}
    return [name for name in names if ".lora_" in name or _part_name(name) not in adapted_parts]


def _build_group(pattern: str, names: tuple[str, ...], row: Any) -> Group:
    options = dict(row) if isinstance(row, Mapping) else {"lr": row}
    if "lr" not in options or not options.keys() <= {"lr", "weight_decay"}:
        raise ValueError(f"trainable: {pattern!r} has {options}; expected lr and, optionally, weight_decay.")
    return Group(pattern, names, float(options["lr"]), options.get("weight_decay"))


def _check_pattern(model: nn.Module, pattern: str, matches: Sequence[str]) -> None:
    """Raise an error about a pattern without parameters, unless its part has none."""
    if _is_part_without_parameters(model, pattern):
        return
    reason = f"the parts are {part_names(model)}"
    if matches:
        reason = "its parameters belong to an earlier pattern"
    raise ValueError(f"trainable: the pattern {pattern!r} matches no parameter that is still frozen; {reason}.")


def part_names(model: nn.Module) -> list[str]:
    """Return the model's parts, each as the prefix of its parameters' names."""
    return list(dict.fromkeys(_part_name(strip_wrappers(name)) for name, _ in model.named_parameters()))


@dataclass(slots=True)
class PartRow:
    """A part in the table that is printed at the start.

    Attributes:
        part: its name.
        class_name: of its module.
        num_parameters: of all its parameters.
        num_trainable: of those that are not frozen.
        rates: learning rates as text.
    """

    part: str
    class_name: str
    num_parameters: int = 0
    num_trainable: int = 0
    rates: list[str] = field(default_factory=list)

    @property
    def rate(self) -> str:
        return ", ".join(self.rates) or "frozen"


def effective_table(model: nn.Module, groups: Iterable[Group]) -> list[PartRow]:
    """Return one row for each part: parameters, trainable parameters, learning rates."""
    rates: dict[str, float] = {}
    for group in groups:
        rates.update(dict.fromkeys(group.names, group.lr))
    rows: dict[str, PartRow] = {}
    for wrapped_name, parameter in model.named_parameters():
        name = strip_wrappers(wrapped_name)
        part = _part_name(name)
        if part not in rows:
            rows[part] = PartRow(part, type(model.get_submodule(part)).__name__)
        row = rows[part]
        row.num_parameters += parameter.numel()
        if name in rates:
            row.num_trainable += parameter.numel()
            rate = f"{rates[name]:g}"
            if rate not in row.rates:
                row.rates.append(rate)
    return list(rows.values())


def _is_part_without_parameters(model: nn.Module, pattern: str) -> bool:
    """Return true if a pattern such as ``fusions.join.*`` names a part that exists and has no parameters."""
    part = pattern.partition("*")[0].rstrip(".")
    if not part:
        return False
    modules = [module for name, module in model.named_modules() if strip_wrappers(name) == part]
    return bool(modules) and all(next(module.parameters(), None) is None for module in modules)


def _part_name(name: str) -> str:
    """Return the part of a parameter.

    >>> _part_name("projectors.face.layers.0.weight"), _part_name("llm.model.norm.weight")
    ('projectors.face', 'llm')
    """
    keys = name.split(".")
    if keys[0] == "llm" or len(keys) < 3:
        return keys[0]
    return ".".join(keys[:2])
