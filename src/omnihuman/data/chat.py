"""The one prompt builder: messages -> token ids and labels, for training and for generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.modality import PLACEHOLDERS, SLOTS, TAGS
from omnihuman.types import IGNORE_INDEX, TEMPLATES

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

MAX_CACHED_LENGTH = 200
"""Longest text in characters whose ids are cached: longer texts are user text, which does not repeat."""

MAX_CACHED_TEXTS = 10_000


@dataclass
class Chat:
    """Builds prompts in which every slot is as long as its tokens.

    Reference: Qwen2.5's chat template, which HumanOmni uses, or Mistral's; HumanOmni's markers are plain text; each
    piece of text is tokenised on its own, and an answer is supervised with its end-of-turn token.
    Differs from the official training, whose slots are followed by three newlines (``separator``), and which also
    supervises the newline after the end-of-turn token (``supervise_newline``).

    Attributes:
        tokenizer: has ``encode(text, add_special_tokens=False)``, and one token for each special token of the template.
        template: ``chatml`` or ``mistral``.
        system: system prompt, ``None`` for no system turn.
        markers: wrap slots in ``<vi_start>`` ... ``<vi_end>`` and so on.
        separator: text between the last slot of a turn and the rest of it.
        supervise_newline: supervise the newline after an answer's end-of-turn token, too.
        max_length: longest sample in tokens, media included.
    """

    tokenizer: Any
    template: str = "chatml"
    system: str | None = SYSTEM
    markers: bool = True
    separator: str = "\n"
    supervise_newline: bool = False
    max_length: int = 2**31
    _cached_ids: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise ValueError(f"llm.template={self.template}: unknown; choose from {', '.join(TEMPLATES)}.")
        self._template = TEMPLATES[self.template]
        for token in self._template.special_tokens:
            count = len(self._tokenize(token))
            if count != 1:
                raise ValueError(
                    f"the tokenizer splits {token} into {count} tokens, but the template {self.template} needs one: "
                    f"choose another llm.template ({', '.join(TEMPLATES)}) or another tokenizer."
                )

    def encode(
        self, messages: Sequence[tuple[str, str]], counts: Mapping[str, int], system: str | None = None
    ) -> tuple[list[int], list[int]]:
        """Return ids and labels of a conversation; tokens without supervision have the label ``IGNORE_INDEX``.

        Args:
            messages: (role, text) in turns.
            counts: tokens of each slot.
            system: system prompt, ``None`` for the default.

        Raises:
            BadSample: no answer is left within ``max_length``, the media alone exceed it, or a text contains a special
                token of the template.
        """
        ids: list[int] = []
        labels: list[int] = []
        pending = self._begin(messages, system)  # text that is not tokenised yet, as its piece may go on
        for role, text in messages:
            answer: list[int] = []
            if role == "user":
                new, pending = self._encode_user(pending, text, counts)
            else:
                new = self._tokenize(pending)
                answer = [*self._tokenize(text.strip()), *self._tokenize(self._template.end_of_turn)]
                pending = self._template.turn_separator
                if self.supervise_newline:
                    answer, pending = [*answer, *self._tokenize(pending)], ""
            ids += [*new, *answer]
            labels += [IGNORE_INDEX] * len(new) + answer
        ids += self._tokenize(pending)
        labels += [IGNORE_INDEX] * (len(ids) - len(labels))
        return self._truncate(ids, labels)

    def prompt(
        self,
        messages: Sequence[tuple[str, str]],
        counts: Mapping[str, int],
        prime: str = "",
        system: str | None = None,
    ) -> list[int]:
        """Return the ids up to the last answer if that is empty, or else up to the first one.

        Args:
            messages: (role, text) in turns.
            counts: tokens of each slot.
            prime: beginning of the answer.
            system: system prompt, ``None`` for the default.

        Raises:
            BadSample: the prompt exceeds ``max_length``, or a text contains a special token of the template.
        """
        is_answered = bool(messages[-1][1].strip())
        num_messages = 1 if is_answered else len(messages) - 1
        ids, pending = list[int](), self._begin(messages, system)
        for role, text in messages[:num_messages]:
            if role == "user":
                new, pending = self._encode_user(pending, text, counts)
                ids += new
            else:
                ids += self._tokenize(pending)
                ids += [*self._tokenize(text.strip()), *self._tokenize(self._template.end_of_turn)]
                pending = self._template.turn_separator
        ids += [*self._tokenize(pending), *self._tokenize(prime)]
        if len(ids) > self.max_length:
            raise BadSample("too_long", f"the prompt has {len(ids)} tokens, data.max_length is {self.max_length}.")
        return ids

    def _begin(self, messages: Sequence[tuple[str, str]], system: str | None) -> str:
        """Return the text before the first turn; all texts are checked."""
        reserved = (*self._template.special_tokens, *self._template.reserved_texts)
        for _, text in (("system", system or ""), *messages):
            for token in reserved:
                if token in text:
                    message = f"a turn contains {token}, which ends turns: remove it from {text[:80]!r}."
                    raise BadSample("special_token_in_text", message)
        if system is None:
            system = self.system
        if system is None:
            return self._template.begin
        return self._template.begin + self._template.system.format(system)

    def _encode_user(self, pending: str, text: str, counts: Mapping[str, int]) -> tuple[list[int], str]:
        """Return the ids of a user turn up to its last slot, and the text that is pending; slots come first."""
        ids: list[int] = []
        pending += self._template.user
        tags = [tag for tag in TAGS if tag in text]
        for tag in tags:
            text = text.replace(tag, "")
            opening, closing = PLACEHOLDERS[tag].markers if self.markers else ("", "")
            slot = TAGS[tag]
            ids += [*self._tokenize(pending + opening), *[SLOTS[slot]] * counts[slot]]
            pending = closing + (self.separator if tag == tags[-1] else "\n")
        return ids, f"{pending}{text.strip()}{self._template.assistant}"

    def _tokenize(self, text: str) -> list[int]:
        if len(text) > MAX_CACHED_LENGTH:
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        if text not in self._cached_ids:
            if len(self._cached_ids) > MAX_CACHED_TEXTS:
                self._cached_ids.clear()
            self._cached_ids[text] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return self._cached_ids[text]

    def _truncate(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        """Cut the text to ``max_length``; slots are never cut."""
        if len(ids) <= self.max_length:
            return ids, labels
        end_of_media = max((position + 1 for position, token in enumerate(ids) if token < 0), default=0)
        if end_of_media > self.max_length:
            message = f"the media alone end at token {end_of_media} of {self.max_length}"
            raise BadSample("too_long", f"{message}: raise data.max_length or use fewer frames.")
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        if all(label == IGNORE_INDEX for label in labels):
            message = f"no token of an answer is left within data.max_length={self.max_length}."
            raise BadSample("answer_truncated", message)
        return ids, labels
