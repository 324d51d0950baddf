"""What trains: one table, pattern of parameter names -> learning rate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

WRAPPERS = ("_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "module.", "_checkpoint_wrapped_module.")


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share a row of the table.

    Attributes:
        pattern: the pattern that named them.
        names: names of the parameters.
        lr: learning rate.
        weight_decay: for parameters of two or more dimensions, ``None`` for the optimizer's own.
    """

    pattern: str
    names: tuple[str, ...]
    lr: float
    weight_decay: float | None = None


def plain_name(name: str) -> str:
    """The name of a parameter without what FSDP, torch.compile and checkpointing put into it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def set_trainable(model: nn.Module, table: Mapping[str, Any]) -> list[Group]:
    """Freeze everything, then free what a pattern names; the first pattern that names a parameter wins.

    Of a part that has LoRA adapters, a pattern frees the adapters; their base stays frozen. A pattern for a part that
    has no parameters, as a fusion may after a swap, frees nothing, and neither does one whose rate is ``None``.

    Args:
        model: its parameter names are matched.
        table: pattern (``projectors.*``) -> learning rate, ``{lr, weight_decay}``, or ``None`` for what stays frozen.

    Raises:
        ValueError: a pattern names no part, or only what an earlier pattern has taken; nothing would learn.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    >>> [(group.names, group.lr) for group in set_trainable(model, {"1.*": 1e-3})]
    [(('1.weight', '1.bias'), 0.001)]
    """
    if not table:
        raise ValueError(f"`trainable` is empty: nothing would learn. The model's parts are {part_names(model)}.")
    model.requires_grad_(False)
    named = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    adapted = {_part(name) for name in named if ".lora_" in name}
    free = [name for name in named if _part(name) not in adapted or ".lora_" in name]
    groups = []
    taken = set[str]()
    for pattern, row in table.items():
        matched = [name for name in free if fnmatchcase(name, pattern)]
        names = tuple(name for name in matched if name not in taken)
        taken |= set(names)
        if not names and _is_bare(model, pattern):
            continue
        if not names:
            why = "its parameters belong to an earlier pattern" if matched else f"the parts are {part_names(model)}"
            raise ValueError(f"trainable: the pattern {pattern!r} matches no parameter that is still frozen; {why}.")
        if row is None:
            continue
        for name in names:
            named[name].requires_grad_(True)
        options = dict(row) if isinstance(row, Mapping) else {"lr": row}
        if foreign := sorted(set(options) - {"lr", "weight_decay"}) or "lr" not in options:
            raise ValueError(f"trainable: {pattern!r} takes lr and weight_decay, got {options} ({foreign=}).")
        groups.append(Group(pattern, names, float(options["lr"]), options.get("weight_decay")))
    if not groups:
        raise ValueError(f"trainable: {sorted(table)} name only what is frozen or has no parameters: nothing learns.")
    model.train(model.training)  # what is frozen now goes to eval mode
    return groups


def part_names(model: nn.Module) -> list[str]:
    """The model's parts, each as the beginning of its parameters' names."""
    return list(dict.fromkeys(_part(plain_name(name)) for name, _ in model.named_parameters()))


def effective_table(model: nn.Module, groups: Iterable[Group]) -> list[tuple[str, str, int, int, str]]:
    """One row a part: name, class, parameters, trainable parameters, learning rates."""
    rates = {name: group.lr for group in groups for name in group.names}
    rows: dict[str, tuple[int, int, dict[str, None]]] = {}
    for name, parameter in model.named_parameters():
        name = plain_name(name)
        total, trained, seen = rows.get(_part(name), (0, 0, {}))
        if name in rates:
            trained, seen = trained + parameter.numel(), seen | {f"{rates[name]:g}": None}
        rows[_part(name)] = (total + parameter.numel(), trained, seen)
    return [
        (part, type(model.get_submodule(part)).__name__, total, trained, ", ".join(seen) or "frozen")
        for part, (total, trained, seen) in rows.items()
    ]


def _is_bare(model: nn.Module, pattern: str) -> bool:
    """Whether a pattern such as ``fusions.join.*`` names a part that is there and has no parameters."""
    part = pattern.partition("*")[0].rstrip(".")
    named = [module for name, module in model.named_modules() if name and plain_name(name) == part]
    return bool(named) and not any(True for module in named for _ in module.parameters())


def _part(name: str) -> str:
    """``projectors.face.layers.0.weight`` -> ``projectors.face``; ``llm.model...`` -> ``llm``."""
    steps = name.split(".")
    return steps[0] if steps[0] == "llm" or len(steps) < 3 else ".".join(steps[:2])
