"""The one prompt builder: messages -> token ids and labels, for training and for generation."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jinja2 import TemplateError

from omnihuman.data.record import BadSample
from omnihuman.data.token_counts import encode_text
from omnihuman.modality import PLACEHOLDERS, SLOTS, TAGS
from omnihuman.template import OWN, Template, render
from omnihuman.types import IGNORE_INDEX, Sample

MAX_CACHED_LENGTH = 200
"""Longest text in characters whose ids are cached: longer texts are user text, which does not repeat."""

MAX_CACHED_TEXTS = 10_000

PROBE = (
    ("user", "Who is in the video?"),
    ("assistant", "A woman and a man."),
    ("user", "What do they do?"),
    ("assistant", ""),
)
"""Conversation whose prompt is compared with that of the tokenizer's own chat template."""

SHOWN_TOKENS = 6

TIME_TEXT = "<times>"
"""Key of the ``meta`` of a record: text between the slot of a video and what follows it."""

Markers = bool | Mapping[str, Sequence[str]]
"""True: slots have HumanOmni's markers; or the texts before and after the slot of each kind: ``video``, ``image``."""


class Piece(NamedTuple):
    """A part of a prompt that is tokenised on its own.

    Attributes:
        text: empty for a slot.
        is_supervised: it belongs to an answer.
        slot: whose tokens it stands for, ``None`` for a text.
    """

    text: str
    is_supervised: bool = False
    slot: str | None = None


def measure(pieces: Iterable[Piece], counts: Mapping[str, int], num_tokens: Mapping[str, int]) -> tuple[int, int]:
    """Return the tokens of a prompt, and those of them that are supervised: the first token follows no other one.

    Args:
        pieces: of the prompt.
        counts: tokens of each slot, of each image.
        num_tokens: of each text.

    >>> measure([Piece("hi"), Piece("", slot="video"), Piece("yes", True)], {"video": 9}, {"hi": 1, "yes": 2})
    (12, 2)
    """
    length = num_targets = 0
    for text, is_supervised, slot in pieces:
        size = num_tokens[text] if slot is None else counts[slot]
        if is_supervised:
            num_targets += size if length else max(0, size - 1)
        length += size
    return length, num_targets


@dataclass
class Chat:
    """Builds prompts in which every slot is as long as its tokens.

    Reference: HumanOmni, whose markers are plain text; each piece of text is tokenised on its own, and an answer is
    supervised with its end-of-turn token.
    Differs from the official training, whose slots are followed by three newlines (``separator``), and which also
    supervises the newline after the end-of-turn token (``supervise_newline``).

    Attributes:
        tokenizer: has ``encode(text, add_special_tokens=False)``, and one token for each special token of the template.
        template: the text around the turns, with the system prompt of a conversation that has none of its own.
        markers: wrap slots in ``<vi_start>`` ... ``<vi_end>`` and so on; or other texts by kind.
        separator: text between the last slot of a turn and the rest of it.
        supervise_newline: supervise the newline after an answer's end-of-turn token, too.
        instruction: the text for encoders of the instruction. ``{question}`` stands for the user's text, ``{line}`` for
            it without its line breaks, ``{slots}`` for what HumanOmni's trainer leaves of the slots. Or a text for each
            kind of slot.
        max_length: longest sample in tokens, media included.
    """

    tokenizer: Any
    template: Template
    markers: Markers = True
    separator: str = "\n"
    supervise_newline: bool = False
    instruction: str | Mapping[str, str] = "{question}"
    max_length: int = 2**31
    _cached_ids: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_markers(self.markers)
        for token in self.template.special_tokens:
            count = len(self._tokenize(token))
            if count != 1:
                raise ValueError(
                    f"the tokenizer splits {token} into {count} tokens, but the chat template {self.template.name} "
                    "needs one: choose another tokenizer, or another template with "
                    "llm/template@model.llm.template=<yaml of conf/llm/template>."
                )

    def encode(
        self,
        messages: Sequence[tuple[str, str]],
        counts: Mapping[str, int],
        system: str | None = None,
        num_context: int = 0,
        time_text: str = "",
    ) -> tuple[list[int], list[int]]:
        """Return ids and labels of a conversation; tokens without supervision have the label ``IGNORE_INDEX``.

        Args:
            messages: (role, text) in turns.
            counts: tokens of each slot, of each image.
            system: system prompt, ``None`` for the default.
            num_context: messages at the beginning whose answers are not supervised.
            time_text: the text after a video.

        Raises:
            BadSample: no answer is left within ``max_length``, the media alone exceed it, a text contains a special
                token of the template, or the template has no system turn for ``system``.
        """
        pieces = self.split(messages, system, num_context, time_text)
        ids: list[int] = []
        labels: list[int] = []
        for piece in pieces:
            new = self._fill(piece, counts)
            ids += new
            labels += new if piece.is_supervised else [IGNORE_INDEX] * len(new)
        return self._truncate(ids, labels)

    def split(
        self,
        messages: Sequence[tuple[str, str]],
        system: str | None = None,
        num_context: int = 0,
        time_text: str = "",
    ) -> list[Piece]:
        """Return a conversation as the pieces that ``encode`` joins, with its arguments.

        Raises:
            BadSample: a text contains a special token of the template, or the template has no system turn for
                ``system``.
        """
        pieces: list[Piece] = []
        pending = self._begin(messages, system)  # text that is not tokenised yet, as its piece may go on
        for number, (role, text) in enumerate(messages):
            if role == "user":
                new, pending = self._split_user(pending, text, time_text)
                pieces += new
                continue
            is_supervised = number >= num_context
            pieces.append(Piece(pending))
            pieces += [Piece(text.strip(), is_supervised), Piece(self.template.end_of_turn, is_supervised)]
            pending = self.template.turn_separator
            if self.supervise_newline:
                pieces.append(Piece(pending, is_supervised))
                pending = ""
        return [*pieces, Piece(pending)]

    def prompt(
        self,
        messages: Sequence[tuple[str, str]],
        counts: Mapping[str, int],
        prime: str = "",
        system: str | None = None,
        time_text: str = "",
    ) -> list[int]:
        """Return the ids up to the last answer.

        Args:
            messages: (role, text) in turns; the last answer does not count.
            counts: tokens of each slot.
            prime: beginning of the answer.
            system: system prompt, ``None`` for the default.
            time_text: the text after a video.

        Raises:
            BadSample: the prompt exceeds ``max_length``, a text contains a special token of the template, or the
                template has no system turn for ``system``.
        """
        ids = list[int]()
        for piece in self.split_prompt(messages, prime, system, time_text):
            ids += self._fill(piece, counts)
        if len(ids) > self.max_length:
            raise BadSample("too_long", f"the prompt has {len(ids)} tokens, data.max_length is {self.max_length}.")
        return ids

    def split_prompt(
        self, messages: Sequence[tuple[str, str]], prime: str = "", system: str | None = None, time_text: str = ""
    ) -> list[Piece]:
        """Return a question as the pieces that ``prompt`` joins, with its arguments.

        Raises:
            BadSample: a text contains a special token of the template, or the template has no system turn for
                ``system``.
        """
        pieces, pending = list[Piece](), self._begin(messages, system)
        for role, text in messages[:-1]:
            if role == "user":
                new, pending = self._split_user(pending, text, time_text)
                pieces += new
            else:
                pieces += [Piece(pending), Piece(text.strip()), Piece(self.template.end_of_turn)]
                pending = self.template.turn_separator
        return [*pieces, Piece(pending), Piece(prime)]

    def _begin(self, messages: Sequence[tuple[str, str]], system: str | None) -> str:
        """Return the text before the first turn; all texts are checked."""
        for _, text in (("system", system or ""), *messages):
            for token in self.template.reserved:
                if token in text:
                    message = f"a turn contains {token}, which ends turns: remove it from {text[:80]!r}."
                    raise BadSample("special_token_in_text", message)
        if system is None:
            return self.template.opening
        try:
            return self.template.open(system)
        except ValueError as error:
            raise BadSample("no_system_turn", str(error)) from error

    def _split_user(self, pending: str, text: str, time_text: str) -> tuple[list[Piece], str]:
        """Return the pieces of a user turn up to its last slot, and the text that is pending.

        Slots come first; several images of a turn are where the text has them.
        """
        pieces: list[Piece] = []
        pending += self.template.question_start
        if text.count("<image>") > 1:
            opening, closing = self._find_markers("<image>")
            *parts, last = text.strip().split("<image>")
            for part in parts:
                pieces += [Piece(pending + part + opening), Piece("", slot="video")]
                pending = closing
            return pieces, f"{pending}{last}{self.template.answer_start}"
        tags = [tag for tag in TAGS if tag in text]
        for tag in tags:
            text = text.replace(tag, "")
            opening, closing = self._find_markers(tag)
            pieces += [Piece(pending + opening), Piece("", slot=TAGS[tag])]
            pending = closing + (time_text if tag == "<video>" else "")
            pending += self.separator if tag == tags[-1] else "\n"
        return pieces, f"{pending}{text.strip()}{self.template.answer_start}"

    def _find_markers(self, tag: str) -> Sequence[str]:
        """Return the texts before and after the slot of a tag."""
        if isinstance(self.markers, Mapping):
            return self.markers.get(tag.strip("<>"), ("", ""))
        return PLACEHOLDERS[tag].markers if self.markers else ("", "")

    def instruct(self, sample: Sample) -> str:
        """Return the text of a sample for encoders of the instruction.

        Reference: HumanOmni's ``train_humanomni.py``, ``preprocess_qwen2``: the markers and ``<audio>`` stay, the other
        tags and all line breaks are deleted.
        """
        text = sample.instruction
        first_turn = next(text for role, text in sample.messages if role == "user")
        tags = [tag for tag in TAGS if tag in first_turn]
        slots = ""
        for tag in tags:
            opening, closing = self._find_markers(tag)
            slots += opening + (tag if tag == "<audio>" else "") + closing
        pattern = self.instruction
        if isinstance(pattern, Mapping):
            kinds = [tag.strip("<>") for tag in tags if tag.strip("<>") in pattern]
            pattern = pattern[kinds[0]] if kinds else "{question}"
        values = {"{slots}": slots, "{line}": text.replace("\n", ""), "{question}": text}
        return re.sub(r"\{(?:slots|line|question)\}", lambda match: values[match[0]], pattern)

    def _fill(self, piece: Piece, counts: Mapping[str, int]) -> list[int]:
        """Return the ids of a piece."""
        return self._tokenize(piece.text) if piece.slot is None else [SLOTS[piece.slot]] * counts[piece.slot]

    def _tokenize(self, text: str) -> list[int]:
        if len(text) > MAX_CACHED_LENGTH:
            return encode_text(self.tokenizer, text)
        if text not in self._cached_ids:
            if len(self._cached_ids) > MAX_CACHED_TEXTS:
                self._cached_ids.clear()
            self._cached_ids[text] = encode_text(self.tokenizer, text) if text else []
        return self._cached_ids[text]

    def _truncate(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        """Cut the text to ``max_length``; slots are never cut."""
        if len(ids) <= self.max_length:
            return ids, labels
        end_of_media = max((position + 1 for position, token in enumerate(ids) if token < 0), default=0)
        if end_of_media > self.max_length:
            message = f"the media alone end at token {end_of_media} of {self.max_length}"
            raise BadSample("too_long", f"{message}: raise data.max_length, or use fewer frames or a shorter clip.")
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        if all(label == IGNORE_INDEX for label in labels):
            message = f"no token of an answer is left within data.max_length={self.max_length}."
            raise BadSample("answer_truncated", message)
        return ids, labels


def read_texts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts of a record's ``meta`` that a prompt takes beside the turns."""
    return {"system": meta.get("system"), "time_text": meta.get(TIME_TEXT, "")}


def check_markers(markers: object) -> None:
    """Check the markers of slots.

    Raises:
        ValueError: they are neither true nor false, nor two texts for each of some kinds.
    """
    if isinstance(markers, bool):
        return
    kinds = [tag.strip("<>") for tag in TAGS]
    pairs: Mapping[Any, Any] = markers if isinstance(markers, Mapping) else {"": markers}
    for kind, pair in pairs.items():
        is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if kind not in kinds or not is_pair or not all(isinstance(text, str) for text in pair):
            example = '{video: ["<Video>", "</Video>"]}'
            raise ValueError(
                f"data.markers is {markers!r:.120}; expected true, false, or two texts for some of {', '.join(kinds)}, "
                f"as in {example}."
            )


def describe_difference(chat: Chat) -> str | None:
    """Return the first tokens in which prompts differ from those of the tokenizer's own chat template, if they do.

    Both have the same system prompt where the tokenizer's template takes one. ``None``: they are equal, or the
    tokenizer has no chat template.
    """
    tokenizer, template = chat.tokenizer, chat.template
    turns: Sequence[tuple[str, str]] = PROBE[:-1]
    if not getattr(tokenizer, "chat_template", None):
        return None
    ids: list[int] = replace(chat, max_length=Chat.max_length).prompt(PROBE, {})
    if template.system is not None:
        turns = (("system", template.system), *turns)
    try:
        own_ids = render(tokenizer, turns, add_generation_prompt=True, tokenize=True)
    except TemplateError:  # the template refuses a system turn, but may contain the text
        own_ids = render(tokenizer, PROBE[:-1], add_generation_prompt=True, tokenize=True)
    if ids == own_ids:
        return None
    start = 0
    while ids[: start + 1] == own_ids[: start + 1]:
        start += 1
    tokens = tokenizer.convert_ids_to_tokens(ids[start : start + SHOWN_TOKENS])
    own_tokens = tokenizer.convert_ids_to_tokens(own_ids[start : start + SHOWN_TOKENS])
    cure = "unless the model is trained with it, choose llm/template@model.llm.template=tokenizer"
    if template.name == OWN:
        cure = "write the template as a yaml in conf/llm/template, and choose that"
    return (
        f"the chat template {template.name} differs from the tokenizer's own after {start} tokens: "
        f"{' '.join(tokens) or 'nothing'} in place of {' '.join(own_tokens) or 'nothing'}; {cure}."
    )
