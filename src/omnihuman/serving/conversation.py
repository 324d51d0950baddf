"""Several questions about one clip: what is asked, what is answered, and what goes wrong, without a page."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnihuman.data.media import SAMPLE_RATE, Header, probe
from omnihuman.data.messages import options_of, record_of
from omnihuman.data.record import HIDES, MODALS, Record
from omnihuman.evaluation.answerer import Answerer, Prompt
from omnihuman.serving import pictures
from omnihuman.serving.uploads import Uploads, plain

log = logging.getLogger(__name__)
TURNS = 20
"""Turns that are kept; older ones are forgotten, by the page and by the model."""

LETTERS = 4000
"""Letters of a question."""


@dataclass(frozen=True)
class Medium:
    """What a conversation is about.

    Attributes:
        kind: ``video``, ``audio`` or ``image``.
        file: where it lies.
        name: by which the user knows it.
        header: what the file holds.
        faces: where faces are, as a record says it; ``None`` where nobody has said.
    """

    kind: str
    file: Path
    name: str
    header: Header
    faces: Any = None

    @property
    def seconds(self) -> float:
        """How long it is, as far as its header says."""
        return max(self.header.audio[1], self.header.frames / self.header.rate if self.header.has_video else 0.0)

    @property
    def words(self) -> str:
        """What it holds, in words.

        >>> Medium("video", Path("a.mp4"), "a.mp4", Header(True, (0.0, 2.0), frames=50)).words
        '2.0 s, 25 pictures a second, sound'
        """
        if self.header.is_still:
            return "a picture"
        said = [f"{self.seconds:.1f} s"] if self.seconds else []
        said += [f"{self.header.rate:.3g} pictures a second"] if self.header.frames else []
        return ", ".join([*said, "sound" if self.header.has_audio else "no sound"])


@dataclass
class Turn:
    """A question and what became of it.

    Attributes:
        question: the user's words.
        modal: how the clip was looked at.
        medium: the clip; ``None`` where only words were asked.
        said: the answer as far as it is there.
        shown: what the model saw and heard, as HTML.
        weights: what its fusions weighed, as HTML.
        facts: (name, figure) in the order of the page.
        notes: what was asked for and is not there.
        error: why there is no answer.
        done: nothing more will come.
    """

    question: str
    modal: str
    medium: Medium | None
    said: str = ""
    shown: str = ""
    weights: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    done: bool = False


def modals_of(senses: str, kind: str | None) -> list[str]:
    """Ways in which a model can be asked about a medium, that of all its senses first.

    >>> modals_of("VA", "video"), modals_of("VF", "image"), modals_of("V", "audio")
    (['video_audio', 'video', 'audio', 'text'], ['video', 'frames', 'faces', 'text'], ['text'])
    """
    gives = {"video": {"video", "audio"}, "image": {"video"}, "audio": {"audio"}, None: set[str]()}[kind]
    reads = {slot for slot, letters in (("video", "VF"), ("audio", "A")) if set(senses) & set(letters)} & gives
    has_views = {"V", "F"} <= set(senses)
    return [modal for modal, slots in MODALS.items() if set(slots) <= reads and (modal not in HIDES or has_views)]


class Conversation:
    """Questions about one clip at a time, each with all that was said about that clip before.

    Args:
        answerer: the model.
        uploads: what may be given.
    """

    def __init__(self, answerer: Answerer, uploads: Uploads) -> None:
        self.answerer, self.uploads = answerer, uploads
        self.turns: list[Turn] = []
        self.medium: Medium | None = None
        self.stopped = False

    def place(self, kind: str, file: Path, name: str, faces: Any = None) -> Medium:
        """Look at the header of a file and talk about it from now on.

        Raises:
            ValueError: it is no such medium, the model cannot read it, or it is too large or too long.
        """
        self.medium = None
        self.uploads.look(file, name)
        medium = Medium(kind, file, name, probe(file), faces)
        self._check(medium)
        self.medium = medium
        return medium

    def ask(self, question: str, modal: str, options: Mapping[str, Any], seed: int | None = None) -> Iterator[Turn]:
        """The turn of a question, again and again while it grows; what goes wrong stands in it.

        Args:
            question: the user's words.
            modal: one of ``modals_of``.
            options: of generation: ``max_new_tokens``, ``temperature``, ``top_p``.
            seed: of sampling.
        """
        self.stopped = False
        turn = Turn(question.strip(), modal, None if modal == "text" else self.medium)
        self.turns = [*self.turns, turn][-TURNS:]
        yield turn
        began = time.perf_counter()
        try:
            yield from self._answer(turn, options, seed, began)
        except ValueError as error:
            turn.error = plain(str(error), _names(turn))
        except Exception:  # whatever it is, the page goes on, and whoever runs it reads what it was
            log.exception("no answer to %r", turn.question)
            turn.error = "The model could not answer; the terminal in which the page was started says why."
        turn.done = True
        yield turn

    def clear(self) -> None:
        """Forget the clip and all that was said."""
        self.stopped, self.medium, self.turns = True, None, []

    def record(self, turn: Turn) -> Record:
        """The record of a turn: the clip, what was said about it before, and the question.

        Raises:
            ValueError: there is no question, it is too long, or there is no clip to ask it about.
        """
        if not turn.question:
            raise ValueError("Write a question first.")
        if len(turn.question) > LETTERS:
            raise ValueError(f"The question has {len(turn.question)} letters, {LETTERS} are allowed: shorten it.")
        self._check_modal(turn)
        past = [
            one for one in self.turns if one is not turn and one.done and not one.error and one.medium == turn.medium
        ]
        messages: list[dict[str, Any]] = []
        for one in past:
            messages += [_said("user", one.question), _said("assistant", one.said)]
        messages.append(_said("user", turn.question))
        extra: dict[str, Any] = {"instruction": turn.question}
        if turn.medium is not None:
            messages[0]["content"].insert(0, {"type": turn.medium.kind, "url": str(turn.medium.file)})
            extra |= {} if turn.medium.faces is None else {"faces": turn.medium.faces}
        return record_of(messages, "question", "this clip", turn.medium.file.parent if turn.medium else Path(), extra)

    def _answer(self, turn: Turn, options: Mapping[str, Any], seed: int | None, began: float) -> Iterator[Turn]:
        prompt = self.answerer.prompt(self.record(turn), turn.modal)
        turn.shown, turn.facts = self._shown(prompt), _counts(prompt)
        turn.notes = tuple(plain(note, _names(turn)) for note in prompt.notes)
        yield turn
        how, _, _ = options_of(options)
        stream = self.answerer.stream(prompt, seed=seed, **how)
        try:
            for piece in stream:
                turn.said += piece
                if self.stopped:
                    break
                yield turn
        finally:  # also where nobody waits for more
            stream.close()
        answer = stream.answer
        turn.said, turn.weights = answer.text, pictures.bars(answer.weights)
        turn.facts |= {"new tokens": str(answer.tokens), "time": f"{time.perf_counter() - began:.2f} s"}
        if not answer.finished:
            turn.notes += ("Stopped here." if self.stopped else f"Cut at {answer.tokens} new tokens (see options).",)

    def _shown(self, prompt: Prompt) -> str:
        """The frames, the faces and the sound that the encoders get."""
        sample, made = prompt.sample, []
        times = list(sample.meta.get("times", ()))
        if sample.frames is not None:
            made.append(pictures.film(list(sample.frames), times, "frame"))
        if any(face is not None for face in sample.faces):
            made.append(pictures.film(sample.faces, times, "face"))
        if sample.waveform is not None:
            heard = [name for name, (reads, _) in self.answerer.model.transforms.items() if reads == "waveform"]
            seconds = len(sample.waveform) / SAMPLE_RATE
            made += [pictures.spectrogram(prompt.packable.signals[name], seconds) for name in heard]
        return "".join(made)

    def _check_modal(self, turn: Turn) -> None:
        if turn.medium is None and turn.modal != "text":
            raise ValueError(f"There is no clip to ask about ({turn.modal}): give one, or choose text.")
        if turn.modal not in modals_of(self.answerer.senses, turn.medium.kind if turn.medium else None):
            raise ValueError(f"This model cannot be asked {turn.modal} here: choose another way.")
        if turn.medium is not None:
            header = turn.medium.header
            gives = {"video": header.has_video, "audio": header.has_audio}
            if not any(gives[slot] for slot in MODALS[turn.modal]):
                raise ValueError(f"{turn.medium.name} holds {turn.medium.words}: choose another way of asking.")

    def _check(self, medium: Medium) -> None:
        header = medium.header
        gives = {"video": header.has_video, "image": header.is_still, "audio": header.has_audio}
        wanted = {"video": "pictures", "image": "still", "audio": "sound"}[medium.kind]
        if not gives[medium.kind]:
            raise ValueError(f"{medium.name} holds no {wanted}: it holds {medium.words}.")
        if modals_of(self.answerer.senses, medium.kind) == ["text"]:
            reads = {"V": "pictures", "F": "faces", "A": "sound"}
            said = " and ".join(reads[sense] for sense in self.answerer.senses)
            raise ValueError(f"{medium.name}: this model reads {said} only.")


def _names(turn: Turn) -> dict[Path, str]:
    return {} if turn.medium is None else {turn.medium.file: turn.medium.name}


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _counts(prompt: Prompt) -> dict[str, str]:
    """Tokens of the prompt, slot by slot and those of its words."""
    slots = {slot: count for slot, count in prompt.counts.items() if slot in prompt.record.slots and count}
    parts = {**slots, "words": prompt.length - sum(slots.values())}
    said = " + ".join(f"{count} {slot}" for slot, count in parts.items())
    return {"prompt tokens": f"{prompt.length} = {said}" if slots else str(prompt.length)}
