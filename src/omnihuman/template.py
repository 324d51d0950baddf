"""Chat templates: the text around the turns of a conversation, from a yaml or from the tokenizer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

log = logging.getLogger(__name__)

OWN = "tokenizer"
"""Name of the template that is the tokenizer's own."""

SLOT = "{}"
"""Stands for the text of a turn in a pattern."""

Turns = Sequence[tuple[str, str]]
"""(role, text) of each turn."""

SYSTEM, QUESTION, ANSWER, NEXT_QUESTION = "system_1", "question_1", "answer_1", "question_2"
"""Texts that are rendered to find the text around them."""


@dataclass(frozen=True)
class Template:
    """The chat template of a language model: one pattern for each role.

    Attributes:
        name: for messages.
        user_turn: pattern of a question; ``{}`` stands for its text.
        assistant_turn: pattern of an answer; the special token after ``{}`` ends it.
        special_tokens: each is one token of the tokenizer; no text may contain one.
        system: system prompt of every conversation that has none of its own; ``None`` for no system turn.
        system_turn: pattern of the system turn; ``None``: the model has none.
        begin: text before the first turn.
        reserved_texts: plain text of the template that no text may contain either.
    """

    name: str
    user_turn: str
    assistant_turn: str
    special_tokens: tuple[str, ...]
    system: str | None = None
    system_turn: str | None = None
    begin: str = ""
    reserved_texts: tuple[str, ...] = ()

    @cached_property
    def question_start(self) -> str:
        """Text before a question."""
        return self.user_turn.partition(SLOT)[0]

    @cached_property
    def answer_start(self) -> str:
        """Text between a question and its answer."""
        return self.user_turn.partition(SLOT)[2] + self.assistant_turn.partition(SLOT)[0]

    @cached_property
    def end_of_turn(self) -> str:
        """Special token that ends an answer, and is supervised with it; empty if there is none."""
        end = self.assistant_turn.partition(SLOT)[2]
        return max((token for token in self.special_tokens if end.startswith(token)), key=len, default="")

    @cached_property
    def turn_separator(self) -> str:
        """Text between an answer's end-of-turn token and the next question."""
        return self.assistant_turn.partition(SLOT)[2].removeprefix(self.end_of_turn)

    @cached_property
    def reserved(self) -> tuple[str, ...]:
        """Texts that no turn may contain."""
        return (*self.special_tokens, *self.reserved_texts)

    @cached_property
    def opening(self) -> str:
        """Text before the first question's turn of a conversation without a system prompt of its own."""
        return self.open(self.system)

    def open(self, system: str | None) -> str:
        """Return the text before the first question's turn.

        Raises:
            ValueError: there is a system prompt, but no pattern for it.
        """
        if system is None:
            return self.begin
        if self.system_turn is None:
            raise ValueError(
                f"the chat template {self.name} has no system turn: remove the system text {system!r:.80}."
            )
        return self.begin + self.system_turn.replace(SLOT, system)


def build_template(config: object, tokenizer: Any) -> Template:
    """Return the template of ``conf/llm/template/*.yaml``, or the tokenizer's own if its name is ``tokenizer``.

    Raises:
        ValueError: a key is missing, unknown or invalid, or the tokenizer has no template that fits.
    """
    if not isinstance(config, Mapping):
        raise ValueError(
            f"llm.template is {config!r:.80}; expected the keys of a template: choose one with "
            "llm/template@model.llm.template=<yaml of conf/llm/template>."
        )
    if config.get("name") == OWN:
        if "user_turn" in config:  # a preset or random weights replace the tokenizer that the yaml is written for
            log.info("llm.template: the tokenizer's own chat template is used in place of the yaml's strings")
        return derive_template(tokenizer, config.get("system"))
    return parse_template(config)


def parse_template(config: Mapping[str, Any], location: str = "llm.template") -> Template:
    """Return the template of a plain config.

    Raises:
        ValueError: a key is missing, unknown or invalid.
    """
    required = {entry.name for entry in fields(Template) if entry.default is MISSING}
    missing, unknown = required - {*config}, {*config} - {entry.name for entry in fields(Template)}
    if missing or unknown:
        raise ValueError(
            f"{location}: missing keys: {', '.join(sorted(missing)) or 'none'}; unknown keys: "
            f"{', '.join(sorted(unknown)) or 'none'}; compare it with conf/llm/template/chatml.yaml."
        )
    template = Template(**{key: _parse_value(f"{location}.{key}", key, value) for key, value in config.items()})
    if not template.end_of_turn:
        raise ValueError(
            f"{location}.assistant_turn is {template.assistant_turn!r}; expected one of special_tokens "
            f"({', '.join(template.special_tokens)}) after {SLOT}, which ends an answer."
        )
    template.open(template.system)
    return template


def _parse_value(location: str, key: str, value: Any) -> Any:
    """Return the value of a key: a text, ``None`` or a tuple of texts."""
    if key in ("special_tokens", "reserved_texts"):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if not is_list or not all(isinstance(text, str) and text for text in value):
            raise ValueError(f"{location} is {value!r:.80}; expected a list of texts.")
        return tuple(value)
    if value is None and key in ("system", "system_turn"):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{location} is {value!r:.80}; expected a text.")
    if key.endswith("_turn") and value.count(SLOT) != 1:
        raise ValueError(f"{location} is {value!r}; expected one {SLOT}, which stands for the text of the turn.")
    return value


def derive_template(tokenizer: Any, system: str | None = None) -> Template:
    """Return the tokenizer's own chat template as patterns, found by rendering conversations with it.

    Args:
        tokenizer: of transformers, with a ``chat_template``.
        system: replaces the template's own system prompt.

    Raises:
        ValueError: there is no chat template, it does not render all turns alike, or it has no system turn for
            ``system``.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"llm.template is the tokenizer's own, but {getattr(tokenizer, 'name_or_path', 'the tokenizer')} has no "
            "chat template: choose another with llm/template@model.llm.template=<yaml of conf/llm/template>."
        )
    question, answer = ("user", QUESTION), ("assistant", ANSWER)
    prompt = render(tokenizer, [question, answer, ("user", NEXT_QUESTION)], add_generation_prompt=True)
    opening, middle, between, answer_start = _split(prompt, QUESTION, ANSWER, NEXT_QUESTION)
    conversation = render(tokenizer, [question, answer], add_generation_prompt=False)
    first_opening, last_middle, end = _split(conversation, QUESTION, ANSWER)
    question_start = between.removeprefix(end)
    is_regular = first_opening == opening and last_middle == middle and between.startswith(end)
    # White space may differ: an answer is stripped, and its tokens are compared when the data are connected.
    if not is_regular or middle.rstrip() != answer_start.rstrip() or not opening.endswith(question_start):
        raise _irregular(f"{conversation!r} and {prompt!r}")
    begin, system_turn, own_system = _derive_system(tokenizer, opening.removesuffix(question_start), question_start)
    text = prompt + conversation + (system_turn or "")
    tokens = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    return parse_template(
        {
            "name": OWN,
            "system": own_system if system is None else system,
            "begin": begin,
            "system_turn": system_turn,
            "user_turn": question_start + SLOT,
            "assistant_turn": answer_start + SLOT + end,
            "special_tokens": sorted(token for token in tokens if token and token in text),
        }
    )


def _derive_system(tokenizer: Any, opening: str, question_start: str) -> tuple[str, str | None, str | None]:
    """Return the text before the system turn, its pattern, and the template's own system prompt.

    Args:
        tokenizer: with a ``chat_template``.
        opening: text before the first turn of a conversation without a system prompt.
        question_start: text before a question.
    """
    try:
        rendered = render(tokenizer, [("system", SYSTEM), ("user", QUESTION)], add_generation_prompt=True)
    except TemplateError:
        return opening, None, None
    before, after, _ = _split(rendered, SYSTEM, QUESTION)
    if not after.endswith(question_start):  # the system prompt is a part of the first question
        return opening, None, None
    after = after.removesuffix(question_start)
    if opening.startswith(before) and opening[len(before) :].endswith(after):
        return "", before + SLOT + after, opening.removeprefix(before).removesuffix(after)
    if before.startswith(opening):
        return opening, before.removeprefix(opening) + SLOT + after, None
    return opening, None, None


def render(tokenizer: Any, turns: Turns, *, add_generation_prompt: bool, tokenize: bool = False) -> Any:
    """Return the text, or the ids, of a conversation in the tokenizer's own chat template."""
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(
        messages, tokenize=tokenize, add_generation_prompt=add_generation_prompt, return_dict=False
    )


def _split(text: str, *separators: str) -> list[str]:
    """Return the parts of a text between separators, each of which occurs once and in this order."""
    parts = []
    rest = text
    for separator in separators:
        part, _, rest = rest.partition(separator)
        parts.append(part)
    if any(text.count(separator) != 1 for separator in separators):
        raise _irregular(repr(text))
    return [*parts, rest]


def _irregular(rendered: str) -> ValueError:
    return ValueError(
        f"llm.template is the tokenizer's own, which does not render all turns alike: {rendered}. Write it as a yaml "
        "in conf/llm/template, and choose that with llm/template@model.llm.template=<name>."
    )
