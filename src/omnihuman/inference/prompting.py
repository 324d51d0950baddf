"""Prompting: the way in which the authors of a checkpoint ask it, as ``conf/prompting`` describes it."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from omnihuman import gate
from omnihuman.build import PART_GROUPS, compose_part
from omnihuman.config_files import list_choices
from omnihuman.data.record import Record
from omnihuman.training.run_search import check_model_folder

GROUP = "prompting"
"""Group of the descriptions, and the key of a model folder's config that holds one."""

LLM = "llm"

QUESTION = "{question}"
"""Stands for the user's text."""

SOURCE = "official.json"
"""File of a folder that a conversion has written and no training has changed."""

SETTINGS = {
    "name": str,
    "parts": dict,
    "optional": list,
    "question": str,
    "max_new_tokens": int,
    "dtype": str,
    "benchmark": dict,
    "model": dict,
    "data": dict,
}
"""Key of a description -> type of its value."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """The way in which a model is asked: question form, generation, and options that replace those of its folder.

    Attributes:
        name: of the yaml in ``conf/prompting``.
        parts: part of every model that can be asked like this -> its class.
        optional: parts that such a model may lack.
        question: the text of a user's turn; ``{question}`` stands for the user's own text.
        max_new_tokens: of an answer, where the user gives none; ``None`` for the default of the verb.
        dtype: of all weights on a GPU; ``None`` for that of the weights.
        benchmark: options of benchmarks for which the user gives none (``parser`` ...).
        model: options of encoders, other parts and the language model, in the structure of the config.
        data: options of the data path.
    """

    name: str
    parts: Mapping[str, str]
    optional: tuple[str, ...] = ()
    question: str = QUESTION
    max_new_tokens: int | None = None
    dtype: str | None = None
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, config: DictConfig) -> DictConfig:
        """Return the config of a model folder with the options of the description; the given one is not changed.

        Options of parts that the model does not have are left out.

        Args:
            config: of a model folder, as ``read_config`` returns it.

        Raises:
            ValueError: the model lacks a part that a model must have to be asked like this.
        """
        self._check_model(config)
        changed = config.copy()
        values = {f"data.{key}": value for key, value in self.data.items()}
        values |= {f"model.llm.{key}": value for key, value in self.model.get(LLM, {}).items()}
        for group in PART_GROUPS:
            for part, options in self.model.get(group, {}).items():
                if OmegaConf.select(config, f"model.{group}.{part}") is not None:
                    values |= {f"model.{group}.{part}.{key}": value for key, value in options.items()}
        for key, value in values.items():
            OmegaConf.update(changed, key, value, merge=False, force_add=True)
        return changed

    def phrase(self, record: Record) -> Record:
        """Return a record whose user turns have the question form; a turn that has it already is not changed.

        >>> thinking = Prompting("r1", {}, question="{question} Output the thinking process.")
        >>> record = Record("1", Path(), "text", (("user", "Who?"), ("assistant", "")), ())
        >>> thinking.phrase(thinking.phrase(record)).messages[0][1]
        'Who? Output the thinking process.'
        """
        if self.question == QUESTION:
            return record
        start, _, end = self.question.partition(QUESTION)
        messages = []
        for role, text in record.messages:
            is_phrased = start.strip() in text and end.strip() in text
            if role == "user" and not is_phrased:
                text = self.question.replace(QUESTION, text)
            messages.append((role, text))
        return replace(record, messages=tuple(messages))

    def _check_model(self, config: DictConfig) -> None:
        dropped = set(config.model.get("drop") or ())
        problems = []
        for part, expected in self.parts.items():
            target = None if part in dropped else OmegaConf.select(config.model, f"{part}._target_")
            if target != expected and not (target is None and part in self.optional):
                problems.append(f"{part} is {target or 'missing'}")
        if problems:
            raise ValueError(
                f"official_prompt={self.name}: {config.get('name')} cannot be asked like this "
                f"({'; '.join(problems)}): leave official_prompt out."
            )


def choose_max_new_tokens(prompting: Prompting | None, default: int) -> int:
    """Return the maximum length of an answer where the user gives none: that of the model's authors, or a default."""
    return (prompting and prompting.max_new_tokens) or default


def choose_prompting(folder: Path, official: bool | str | None) -> Prompting | None:
    """Return how the model of a folder is asked, ``None`` for the way in which it was trained.

    Args:
        folder: of the model.
        official: ``None``: the official way of a conversion that nobody has trained; true: that of the folder, also if
            it was trained; false: none; or the name of a yaml in ``conf/prompting``.

    Raises:
        ValueError: the folder is no model folder or has no official way, there is no such name, or a description in
            the folder is invalid.
    """
    if official is False:
        return None
    if isinstance(official, str):
        return read_prompting(official)
    check_model_folder(folder)
    file = folder / "config.yaml"
    node = _read_node(file)
    if official is None and (node is None or not (folder / SOURCE).is_file()):
        return None
    if node is None:
        raise ValueError(
            f"official_prompt=true: {folder} does not know how its authors ask it; name it: official_prompt=<"
            f"{'|'.join(list_choices(GROUP))}>."
        )
    gate.check_config(f"{file}: {GROUP}", node, GROUP)
    return parse_prompting(node, f"{file}: {GROUP}")


def _read_node(file: Path) -> Any:
    """Return the description in a config, ``None`` without one; the rest of the config is not checked here.

    Raises:
        ValueError: the file is no yaml.
    """
    try:
        config = OmegaConf.to_container(OmegaConf.load(file))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is no config of omnihuman: {' '.join(str(error).split())}") from error
    return config.get(GROUP) if isinstance(config, dict) else None


def read_prompting(name: str) -> Prompting:
    """Return a description of ``conf/prompting``.

    Raises:
        ValueError: there is no such file.
    """
    raw = OmegaConf.to_container(compose_prompting(name, "official_prompt"), resolve=True)
    return parse_prompting(raw, f"{GROUP}={name}")


def compose_prompting(name: str, key: str = GROUP) -> DictConfig:
    """Return a description of ``conf/prompting`` as a config.

    Args:
        name: of its yaml.
        key: that names it, for the message.

    Raises:
        ValueError: there is no such file.
    """
    names = list_choices(GROUP)
    if name not in names:
        raise ValueError(f"{key}={name}: choose from {', '.join(names)}.")
    return compose_part(GROUP, name)


def parse_prompting(raw: Any, location: str) -> Prompting:
    """Return the description in a plain config, which somebody else may have written.

    Raises:
        ValueError: a key is missing or unknown, or a value has another type.
    """
    required = {entry.name for entry in fields(Prompting) if MISSING is entry.default is entry.default_factory}
    keys = {*raw} if isinstance(raw, Mapping) else set()
    if required - keys or keys - SETTINGS.keys():
        raise ValueError(
            f"{location} needs the keys {', '.join(sorted(required))} and may have {', '.join(SETTINGS)}, got "
            f"{', '.join(map(str, keys)) or repr(raw)}."
        )
    for key, value in raw.items():
        if value is not None and not isinstance(value, SETTINGS[key]):
            raise ValueError(f"{location}.{key} is {value!r:.80}; expected {SETTINGS[key].__name__}.")
    _check_options(raw.get("model") or {}, f"{location}.model")
    values = {key: value for key, value in raw.items() if value is not None}
    prompting = Prompting(**{**values, "optional": tuple(values.get("optional", ()))})
    if QUESTION not in prompting.question:
        raise ValueError(f"{location}.question is {prompting.question!r:.80}; expected a text with {QUESTION}.")
    return prompting


def _check_options(model: Mapping[Any, Any], location: str) -> None:
    """Check that the options of a model are ``{group: {part: {option: value}}}``, and those of ``llm`` one level less.

    Raises:
        ValueError: they are not.
    """
    for group, parts in model.items():
        if group not in (*PART_GROUPS, LLM):
            raise ValueError(f"{location}.{group}: unknown key; expected {', '.join((*PART_GROUPS, LLM))}.")
        levels = {f"{location}.{group}": parts}
        if group != LLM and isinstance(parts, Mapping):
            levels |= {f"{location}.{group}.{part}": options for part, options in parts.items()}
        for place, options in levels.items():
            if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
                raise ValueError(f"{place} is {options!r:.80}; expected names with values: correct it, or remove it.")
