"""A conversation about a clip: questions, answers and errors, independent of the page."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnihuman.data.media import SAMPLE_RATE, Header, probe
from omnihuman.data.messages import build_record, parse_generation_options
from omnihuman.data.record import Record
from omnihuman.inference.answer import Prompt
from omnihuman.inference.answerer import Answerer
from omnihuman.modality import View
from omnihuman.serving import rendering
from omnihuman.serving.uploads import Uploads, clean_message

log = logging.getLogger(__name__)
MAX_TURNS = 20
"""Turns of a conversation; the page and the model forget older ones."""

MAX_CHARACTERS = 4000
"""Characters of a question."""


@dataclass(frozen=True)
class Medium:
    """The file that a conversation is about.

    Attributes:
        kind: ``video``, ``audio`` or ``image``.
        file: its path.
        name: as the user knows it.
        header: of the file.
        faces: bounding boxes of its record; ``None`` if unknown.
    """

    kind: str
    file: Path
    name: str
    header: Header
    faces: Any = None

    @property
    def seconds(self) -> float:
        """Duration, as far as the header contains it."""
        video = self.header.num_frames / self.header.fps if self.header.has_video else 0.0
        return max(self.header.audio[1], video)

    @property
    def summary(self) -> str:
        """Duration, frame rate and audio in words.

        >>> Medium("video", Path("a.mp4"), "a.mp4", Header(True, (0.0, 2.0), num_frames=50)).summary
        '2.0 s, 25 fps, audio'
        """
        if self.header.is_still:
            return "an image"
        parts: list[str] = []
        if self.seconds:
            parts.append(f"{self.seconds:.1f} s")
        if self.header.num_frames:
            parts.append(f"{self.header.fps:.3g} fps")
        parts.append("audio" if self.header.has_audio else "no audio")
        return ", ".join(parts)


@dataclass
class Turn:
    """A question and its answer.

    Attributes:
        question: of the user.
        view: the part of the clip that the model gets.
        medium: the clip; ``None`` for a question without one.
        answer: the text so far.
        inputs_html: frames, faces and audio that the model gets, as HTML.
        weights_html: weights of the fusions, as HTML.
        statistics: name -> value, in the order of the page.
        notes: warnings about the answer.
        error: the reason for a missing answer.
        is_done: no update follows.
    """

    question: str
    view: View
    medium: Medium | None
    answer: str = ""
    inputs_html: str = ""
    weights_html: str = ""
    statistics: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    is_done: bool = False


def views_of(model_view: View, kind: str | None) -> list[View]:
    """Return the views in which a model can be asked about a medium, the largest first and text alone last.

    >>> [str(view) for view in views_of(View("VA"), "video")], [str(view) for view in views_of(View("V"), "audio")]
    (['VA', 'V', 'A', 'text'], ['text'])
    """
    return (model_view & View.of_kind(kind or "text")).subviews()


class Conversation:
    """Questions about one clip at a time; the model gets all earlier turns about the same clip.

    Args:
        answerer: the model.
        uploads: checks files.
    """

    def __init__(self, answerer: Answerer, uploads: Uploads) -> None:
        self.answerer, self.uploads = answerer, uploads
        self.turns: list[Turn] = []
        self.medium: Medium | None = None
        self.stopped = False

    def open(self, kind: str, file: Path, name: str, faces: Any = None) -> Medium:
        """Check the header of a file and make it the subject of the conversation.

        Raises:
            ValueError: the file is of another kind, exceeds a limit, or the model cannot read it.
        """
        self.medium = None
        self.uploads.check(file, name)
        medium = Medium(kind, file, name, probe(file), faces)
        self._check_medium(medium)
        self.medium = medium
        return medium

    def ask(
        self, question: str, view: View | str, options: Mapping[str, Any], seed: int | None = None
    ) -> Iterator[Turn]:
        """Yield the turn of a question after every update; an error is stored in the turn.

        Args:
            question: of the user.
            view: one of ``views_of``.
            options: of generation: ``max_new_tokens``, ``temperature``, ``top_p``.
            seed: of sampling.
        """
        self.stopped = False
        turn = self._open_turn(question.strip(), view)
        self.turns = [*self.turns, turn][-MAX_TURNS:]
        yield turn
        start = time.perf_counter()
        try:
            if not turn.error:
                yield from self._answer(turn, options, seed, start)
        except ValueError as error:
            turn.error = clean_message(str(error), _display_names(turn))
        except Exception:  # the page must survive any error; the log has the details
            log.exception("no answer to %r", turn.question)
            turn.error = "The model could not answer; see the terminal in which the page was started."
        turn.is_done = True
        yield turn

    def _open_turn(self, question: str, view: View | str) -> Turn:
        try:
            parsed = View.parse(view)
        except ValueError as error:
            return Turn(question, View(""), None, error=str(error))
        return Turn(question, parsed, self.medium if parsed else None)

    def clear(self) -> None:
        """Forget the clip and all turns."""
        self.stopped, self.medium, self.turns = True, None, []

    def build_record(self, turn: Turn) -> Record:
        """Build the record of a turn: the clip, earlier turns about it, and the question.

        Raises:
            ValueError: the question is empty or too long, or there is no clip.
        """
        if not turn.question:
            raise ValueError("Write a question first.")
        if len(turn.question) > MAX_CHARACTERS:
            raise ValueError(f"The question has {len(turn.question)} characters; at most {MAX_CHARACTERS} are allowed.")
        self._check_view(turn)
        messages: list[dict[str, Any]] = []
        for past in self.turns:
            if past is not turn and past.is_done and not past.error and past.medium == turn.medium:
                messages += [_text_message("user", past.question), _text_message("assistant", past.answer)]
        messages.append(_text_message("user", turn.question))
        extra: dict[str, Any] = {"instruction": turn.question}
        folder = Path()
        if turn.medium is not None:
            folder = turn.medium.file.parent
            messages[0]["content"].insert(0, {"type": turn.medium.kind, "url": str(turn.medium.file)})
            if turn.medium.faces is not None:
                extra["faces"] = turn.medium.faces
        return build_record(messages, "question", "this clip", folder, extra)

    def _answer(self, turn: Turn, options: Mapping[str, Any], seed: int | None, start: float) -> Iterator[Turn]:
        prompt = self.answerer.build_prompt(self.build_record(turn), turn.view)
        turn.inputs_html = self._render_inputs(prompt)
        turn.statistics = _count_prompt_tokens(prompt)
        turn.notes = tuple(clean_message(note, _display_names(turn)) for note in prompt.notes)
        yield turn
        generation_kwargs, _, _ = parse_generation_options(options)
        stream = self.answerer.stream(prompt, seed=seed, **generation_kwargs)
        try:
            for piece in stream:
                turn.answer += piece
                if self.stopped:
                    break
                yield turn
        finally:  # also if the caller stops iterating
            stream.close()
        answer = stream.answer
        turn.answer = answer.text
        turn.weights_html = rendering.render_bars(answer.weights)
        turn.statistics["new tokens"] = str(answer.tokens)
        turn.statistics["time"] = f"{time.perf_counter() - start:.2f} s"
        if not answer.finished:
            note = "Stopped." if self.stopped else f"Cut off at {answer.tokens} new tokens (see Options)."
            turn.notes = (*turn.notes, note)

    def _render_inputs(self, prompt: Prompt) -> str:
        """Render the frames, the faces and the audio that the encoders get."""
        sample = prompt.sample
        times = list(sample.meta.get("times", ()))
        parts: list[str] = []
        if sample.frames is not None:
            parts.append(rendering.render_strip(list(sample.frames), times, "frame"))
        if any(face is not None for face in sample.faces):
            parts.append(rendering.render_strip(sample.faces, times, "face"))
        if sample.waveform is not None:
            seconds = len(sample.waveform) / SAMPLE_RATE
            for name, (reads, _) in self.answerer.model.transforms.items():
                if reads == "waveform":
                    parts.append(rendering.render_spectrogram(prompt.packable.signals[name], seconds))
        return "".join(parts)

    def _check_view(self, turn: Turn) -> None:
        medium = turn.medium
        if medium is None and turn.view:
            raise ValueError(f"There is no clip ({turn.view}); choose a clip, or text.")
        usable = turn.view & self.answerer.view
        offered = views_of(self.answerer.view, medium.kind if medium else None)
        if usable not in offered or (turn.view and not usable):
            raise ValueError(f"This model cannot read {turn.view} here; choose another input.")
        if medium is not None and not medium.header.slots & set(turn.view.slots):
            raise ValueError(f"{medium.name} has {medium.summary}; choose another input.")

    def _check_medium(self, medium: Medium) -> None:
        header = medium.header
        has_kind = header.is_still if medium.kind == "image" else medium.kind in header.slots
        if not has_kind:
            raise ValueError(f"{medium.name} has no {medium.kind}; it has {medium.summary}.")
        if not self.answerer.view & View.of_kind(medium.kind):
            raise ValueError(f"{medium.name}: this model reads {' and '.join(self.answerer.view.nouns)} only.")


def _display_names(turn: Turn) -> dict[Path, str]:
    return {} if turn.medium is None else {turn.medium.file: turn.medium.name}


def _text_message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _count_prompt_tokens(prompt: Prompt) -> dict[str, str]:
    """Return the number of tokens of the prompt, split into slots and text."""
    slots = {slot: count for slot, count in prompt.counts.items() if slot in prompt.record.slots and count}
    if not slots:
        return {"prompt tokens": str(prompt.length)}
    terms = [f"{count} {slot}" for slot, count in slots.items()]
    terms.append(f"{prompt.length - sum(slots.values())} text")
    return {"prompt tokens": f"{prompt.length} = {' + '.join(terms)}"}
