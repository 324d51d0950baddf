"""The one prompt builder: messages -> token ids and labels, for training and for answering."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnihuman.data.record import TAGS, BadSample
from omnihuman.types import IGNORE_INDEX, SLOTS, TEMPLATES

MARKERS = {
    "<video>": ("<vi_start>", "<vi_end>"),
    "<image>": ("<im_start>", "<im_end>"),
    "<audio>": ("<au_start>", "<au_end>"),
}
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass
class Chat:
    """Messages as a prompt in which every slot is as long as its tokens.

    Reference: Qwen2.5's chat template, which HumanOmni uses, or Mistral's; HumanOmni's markers are plain text; each
    piece of text is tokenised on its own, and an answer is supervised with its end mark.
    Differs from the official training, whose slots are followed by three newlines (``separator``), and which also
    supervises the newline behind the end mark (``supervise_newline``).

    Attributes:
        tokenizer: anything with ``encode(text, add_special_tokens=False)`` and the template's marks of one token each.
        template: ``chatml`` or ``mistral``.
        system: text of the system turn, ``None`` for none.
        markers: wrap the slots in ``<vi_start>`` ... ``<vi_end>`` and their like.
        separator: between the last slot of a turn and its text.
        supervise_newline: also supervise the newline after an answer's end mark.
        max_length: longest sample in tokens, media included.
    """

    tokenizer: Any
    template: str = "chatml"
    system: str | None = SYSTEM
    markers: bool = True
    separator: str = "\n"
    supervise_newline: bool = False
    max_length: int = 2**31
    _known: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise ValueError(f"llm.template={self.template}: choose from {', '.join(TEMPLATES)}.")
        self._form = TEMPLATES[self.template]
        for mark in self._form.marks:
            if len(ids := self._ids(mark)) != 1:
                raise ValueError(
                    f"the tokenizer makes {len(ids)} tokens of {mark}; the template {self.template} needs one: choose "
                    f"another llm.template ({', '.join(TEMPLATES)}) or another tokenizer."
                )

    def encode(
        self, messages: Sequence[tuple[str, str]], counts: Mapping[str, int], system: str | None = None
    ) -> tuple[list[int], list[int]]:
        """Ids and labels of a whole conversation; what is not supervised is ``IGNORE_INDEX``.

        Args:
            messages: (role, text) in turns.
            counts: tokens of each slot.
            system: text of the system turn, ``None`` for the usual one.

        Raises:
            BadSample: no answer is left within ``max_length``, the media alone exceed it, or a text holds
                a mark of the template.
        """
        ids: list[int] = []
        labels: list[int] = []
        open_text = self._begin(messages, system)
        for role, text in messages:
            if role == "user":
                *pieces, open_text = self._user(open_text, text, counts)
                new = [token for piece in pieces for token in piece]
                answer: list[int] = []
            else:
                new = self._ids(open_text)
                answer = [*self._ids(text.strip()), *self._ids(self._form.end)]
                open_text = self._form.following
                if self.supervise_newline:
                    answer, open_text = [*answer, *self._ids(open_text)], ""
            ids += [*new, *answer]
            labels += [IGNORE_INDEX] * len(new) + answer
        ids += self._ids(open_text)
        labels += [IGNORE_INDEX] * (len(ids) - len(labels))
        return self._cut(ids, labels)

    def prompt(
        self,
        messages: Sequence[tuple[str, str]],
        counts: Mapping[str, int],
        prime: str = "",
        system: str | None = None,
    ) -> list[int]:
        """Ids up to where the last answer begins, if it is open (empty), or else the first.

        Args:
            messages: (role, text) in turns.
            counts: tokens of each slot.
            prime: how the answer has begun.
            system: text of the system turn, ``None`` for the usual one.

        Raises:
            BadSample: the prompt exceeds ``max_length``, or a text holds a mark of the template.
        """
        asked = 1 if messages[-1][1].strip() else len(messages) - 1
        ids, open_text = list[int](), self._begin(messages, system)
        for role, text in messages[:asked]:
            if role == "user":
                *pieces, open_text = self._user(open_text, text, counts)
                ids += [token for piece in pieces for token in piece]
            else:
                ids += [*self._ids(open_text), *self._ids(text.strip()), *self._ids(self._form.end)]
                open_text = self._form.following
        ids += [*self._ids(open_text), *self._ids(prime)]
        if len(ids) > self.max_length:
            raise BadSample("too_long", f"the prompt has {len(ids)} tokens, data.max_length is {self.max_length}.")
        return ids

    def _begin(self, messages: Sequence[tuple[str, str]], system: str | None) -> str:
        """How a checked conversation begins."""
        for _, text in (("system", system or ""), *messages):
            if mark := next((mark for mark in (*self._form.marks, *self._form.words) if mark in text), None):
                raise BadSample("mark_in_text", f"a turn holds {mark}, which ends turns: take it out of {text[:80]!r}.")
        system = self.system if system is None else system
        return self._form.begin + ("" if system is None else self._form.system.format(system))

    def _user(self, before: str, text: str, counts: Mapping[str, int]) -> Iterator[Any]:
        """A user turn: ids up to its last slot, then the text that is still open; slots come first."""
        tags = [tag for tag in TAGS if tag in text]
        for tag in tags:
            text = text.replace(tag, "")
        before += self._form.ask
        for tag in tags:
            opening, closing = MARKERS[tag] if self.markers else ("", "")
            yield [*self._ids(before + opening), *[SLOTS[TAGS[tag]]] * counts[TAGS[tag]]]
            before = closing + ("\n" if tag != tags[-1] else self.separator)
        yield f"{before}{text.strip()}{self._form.answer}"

    def _ids(self, text: str) -> list[int]:
        if len(text) > 200:  # the words of strangers, not worth their memory
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        if text not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return self._known[text]

    def _cut(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        if len(ids) <= self.max_length:
            return ids, labels
        media = max((place for place, token in enumerate(ids) if token < 0), default=-1)
        if media >= self.max_length:
            raise BadSample("too_long", f"the media alone end at token {media + 1} of {self.max_length}: "
                            "raise data.max_length or use fewer frames.")  # fmt: skip
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        if all(label == IGNORE_INDEX for label in labels):
            raise BadSample(
                "answer_truncated", f"no token of an answer is left within data.max_length={self.max_length}."
            )
        return ids, labels
