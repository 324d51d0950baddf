"""The modalities of a sample, one row each, and views: sets of modalities."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE = 16000
"""Samples per second of a waveform."""

FRAMES = "frames"
"""The field of a sample that holds frames of a video, or an image."""

ROWS, TILINGS = "image_rows", "image_tilings"
"""Tensors beside the signals of a released model, where a question has several images, or one is in tiles."""

INSTRUCTION = "instruction"
"""The field of a sample that holds the user's text. Every view contains it, so it has no letter and no slot."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The tag that marks a slot in a text.

    Attributes:
        tag: ``<video>``.
        markers: plain text before and after the tokens of the slot, if the prompt uses markers.
        kinds: kinds of records whose file can fill the slot under this tag.
    """

    tag: str
    markers: tuple[str, str]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Modality:
    """One kind of signal. Its reader is the module ``omnihuman.data.reader.<field>``.

    Attributes:
        letter: in views and in the tables of the papers.
        field: of a sample, and the value of an encoder's ``reads``.
        noun: for messages and pages.
        slot: the slot of the text that its tokens fill; several modalities can share a slot.
        planned_from: the field whose amount, known from the file's header, decides the number of tokens.
        shape: of the smallest value that an encoder's transform accepts.
        dtype: name of the value's torch dtype.
        placeholders: tags of the slot; a modality that shares the slot of another one needs none.
        has_gaps: single time steps can be missing, such as a frame without a face.
    """

    letter: str
    field: str
    noun: str
    slot: str
    planned_from: str
    shape: tuple[int, ...]
    dtype: str
    placeholders: tuple[Placeholder, ...] = ()
    has_gaps: bool = False

    @property
    def is_image(self) -> bool:
        """The value is a sequence of images ``[T C H W]``, so any encoder of images can read it."""
        return len(self.shape) == 4

    def blank(self, amount: int = 0) -> "Tensor":
        """Return a value of zeros with ``amount`` frames or samples, at least the smallest that a transform accepts."""
        import torch  # command lines are checked without it

        return torch.zeros(max(amount, self.shape[0]), *self.shape[1:], dtype=getattr(torch, self.dtype))


MODALITIES = (
    Modality(
        letter="V",
        field="frames",
        noun="frames",
        slot="video",
        planned_from="frames",
        shape=(1, 3, 8, 8),
        dtype="uint8",
        placeholders=(
            Placeholder("<video>", ("<vi_start>", "<vi_end>"), ("video",)),
            Placeholder("<image>", ("<im_start>", "<im_end>"), ("image",)),
        ),
    ),
    Modality(
        letter="A",
        field="waveform",
        noun="audio",
        slot="audio",
        planned_from="waveform",
        shape=(SAMPLE_RATE // 10,),
        dtype="float32",
        placeholders=(Placeholder("<audio>", ("<au_start>", "<au_end>"), ("video", "audio")),),
    ),
    Modality(
        letter="F",
        field="faces",
        noun="faces",
        slot="video",
        planned_from="frames",  # at most one face per frame
        shape=(1, 3, 8, 8),
        dtype="uint8",
        has_gaps=True,
    ),
)
"""The rows, in the order of the letters. A new modality is one more row, its reader and an encoder."""

BY_FIELD = {modality.field: modality for modality in MODALITIES}
BY_LETTER = {modality.letter: modality for modality in MODALITIES}
IMAGE_FIELDS = tuple(modality.field for modality in MODALITIES if modality.is_image)
FIELDS_WITH_GAPS = {modality.field for modality in MODALITIES if modality.has_gaps}

SLOT_NAMES = tuple(dict.fromkeys(modality.slot for modality in MODALITIES))
SLOTS = {slot: -201 - number for number, slot in enumerate(SLOT_NAMES)}
"""Slot -> the token id that holds its places in a prompt."""

PLACEHOLDERS: dict[str, Placeholder] = {}
"""Tag -> placeholder, in the order in which a prompt lists them."""

TAGS: dict[str, str] = {}
"""Tag -> slot. An image fills the video slot with one frame."""

for _modality in MODALITIES:
    for _placeholder in _modality.placeholders:
        PLACEHOLDERS[_placeholder.tag] = _placeholder
        TAGS[_placeholder.tag] = _modality.slot

KINDS = tuple(dict.fromkeys(chain(*(placeholder.kinds for placeholder in PLACEHOLDERS.values()))))
"""Kinds of records, which are the keys that name a record's file; a record without a file is of the kind ``text``."""

NAMES = {
    "video_audio": "VAF",
    "video": "VF",
    "audio": "A",
    "frames_audio": "VA",
    "frames": "V",
    "faces_audio": "AF",
    "faces": "F",
    "text": "",
}
"""Name of a view -> its letters."""


@dataclass(frozen=True, slots=True)
class View:
    """A set of modalities: the part of a sample that a model gets. The text is always part of it.

    A view is written as its letters in any order and case; ``text`` is the empty set. Some sets have names as well:
    ``video_audio`` is VAF, ``video`` VF, ``audio`` A, ``frames`` V, ``frames_audio`` VA, ``faces`` F and
    ``faces_audio`` AF. A letter for which a model has no encoder changes nothing.

    Attributes:
        letters: in the order of ``MODALITIES``, each once.

    >>> str(View.parse("fav")), str(View.parse("frames_audio")), str(View.parse("text"))
    ('VAF', 'VA', 'text')
    >>> "frames" in View.parse("F").hidden(["video"])
    True
    """

    letters: str

    @classmethod
    def parse(cls, spec: "str | View", key: str = "view") -> "View":
        """Parse letters or a name.

        Args:
            spec: ``VAF``, ``va``, ``video`` ...
            key: the config key or argument that holds it, for the message.

        Raises:
            ValueError: a letter is unknown or is written twice.
        """
        if isinstance(spec, View):
            return spec
        text = str(spec)
        letters = NAMES.get(text.lower(), text.upper())
        is_empty = not letters and text.lower() != "text"
        if is_empty or set(letters) - set(BY_LETTER) or len(set(letters)) < len(letters):
            known = ", ".join(f"{modality.letter} ({modality.noun})" for modality in MODALITIES)
            raise ValueError(f"{key}={text:.80}: unknown view; choose from the letters {known}, or text for none.")
        return cls.of(letters)

    @classmethod
    def of(cls, letters: Iterable[str]) -> "View":
        """Return the view with these letters, in their order."""
        chosen = set(letters)
        return cls("".join(letter for letter in BY_LETTER if letter in chosen))

    @classmethod
    def of_fields(cls, fields: Iterable[str]) -> "View":
        """Return the view of the modalities with these fields; the instruction adds none.

        >>> str(View.of_fields(["waveform", "frames", "instruction"]))
        'VA'
        """
        chosen = set(fields)
        return cls("".join(modality.letter for modality in MODALITIES if modality.field in chosen))

    @classmethod
    def of_kind(cls, kind: str) -> "View":
        """Return everything that a record of a kind can hold: ``video``, ``image``, ``audio`` or ``text``.

        >>> str(View.of_kind("audio"))
        'A'
        """
        slots = {TAGS[tag] for tag in tags_of(kind)}
        return cls("".join(modality.letter for modality in MODALITIES if modality.slot in slots))

    def __str__(self) -> str:
        return self.letters or "text"

    def __bool__(self) -> bool:
        return bool(self.letters)

    def __iter__(self) -> Iterator[Modality]:
        return (BY_LETTER[letter] for letter in self.letters)

    def __and__(self, other: "View") -> "View":
        return View.of(set(self.letters) & set(other.letters))

    def __sub__(self, other: "View") -> "View":
        return View.of(set(self.letters) - set(other.letters))

    @property
    def slots(self) -> tuple[str, ...]:
        """Slots that the modalities fill, in the order of ``SLOTS``."""
        return _find_slots(self.letters)

    @property
    def nouns(self) -> tuple[str, ...]:
        """The modalities in plain words."""
        return tuple(modality.noun for modality in self)

    def hidden(self, slots: Iterable[str]) -> tuple[str, ...]:
        """Return the fields that fill one of these slots, too, but are not in the view."""
        return _find_hidden(self.letters, frozenset(slots))

    def subviews(self) -> list["View"]:
        """Return all subsets, the largest first and the empty one last.

        >>> [str(view) for view in View("VA").subviews()]
        ['VA', 'V', 'A', 'text']
        """
        views = []
        for size in range(len(self.letters), -1, -1):
            views += [View.of(letters) for letters in combinations(self.letters, size)]
        return views


@lru_cache
def _find_slots(letters: str) -> tuple[str, ...]:
    filled = {BY_LETTER[letter].slot for letter in letters}
    return tuple(slot for slot in SLOTS if slot in filled)


@lru_cache
def _find_hidden(letters: str, slots: frozenset[str]) -> tuple[str, ...]:
    outside = [modality for modality in MODALITIES if modality.letter not in letters]
    return tuple(modality.field for modality in outside if modality.slot in slots)


def fields_of_slot(slot: str) -> tuple[str, ...]:
    """Return the fields of a sample that fill a slot.

    >>> fields_of_slot("audio")
    ('waveform',)
    """
    return tuple(modality.field for modality in MODALITIES if modality.slot == slot)


@lru_cache
def tags_of(kind: str) -> tuple[str, ...]:
    """Return the tags that the text of a record of a kind can hold, in their order.

    >>> tags_of("image"), tags_of("text")
    (('<image>',), ())
    """
    return tuple(placeholder.tag for placeholder in PLACEHOLDERS.values() if kind in placeholder.kinds)


def prompt_head(kind: str) -> str:
    r"""Return the beginning of a question about a file of a kind: each tag on a line of its own.

    >>> prompt_head("audio")
    '<audio>\n'
    """
    return "".join(f"{tag}\n" for tag in tags_of(kind))


def strip_tags(text: str, tags: Iterable[str] = tuple(TAGS)) -> str:
    """Return a text without tags, and without the line break after each."""
    for tag in tags:
        text = text.replace(f"{tag}\n", "").replace(tag, "")
    return text


def check_field(field: str) -> None:
    """Check that an encoder can read a field of a sample.

    Raises:
        ValueError: no modality has this field.
    """
    if field not in BY_FIELD and field != INSTRUCTION:
        raise ValueError(f"reads={field}: unknown field; choose from {', '.join([*BY_FIELD, INSTRUCTION])}.")
