"""The page of ``python -m omnihuman.chat``: a clip on the left, what is asked and answered about it on the right."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from omnihuman.serving.conversation import Medium, Turn, modals_of
from omnihuman.serving.examples import Example
from omnihuman.serving.pictures import words
from omnihuman.serving.sessions import Sessions

KINDS = ("video", "audio", "image")
PAUSE = 0.05
"""Seconds between two looks at an answer that grows."""

READS = {"V": "pictures", "F": "faces", "A": "sound"}


@dataclass(frozen=True)
class Front:
    """What the page says about the model, and what it starts with.

    Attributes:
        title: of the page.
        about: of the model, in a few words.
        senses: its letters.
        examples: clips to try.
        without_examples: what is said where there are none.
        max_new_tokens: of an answer.
        temperature: 0 is greedy.
        top_p: share of the likeliest tokens that are drawn from.
    """

    title: str
    about: str
    senses: str
    examples: Sequence[Example] = ()
    without_examples: str = ""
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0


class Page:
    """The components of the page and what they do.

    Args:
        sessions: the conversations.
        front: what is said and offered.
    """

    def __init__(self, sessions: Sessions, front: Front) -> None:
        self.sessions, self.front = sessions, front

    def blocks(self) -> gr.Blocks:
        """The page."""
        with gr.Blocks(
            title=self.front.title, analytics_enabled=False, fill_width=True, fill_height=True, delete_cache=(600, 3600)
        ) as page:
            about = f"<h1>omnihuman</h1><p><b>{words(self.front.title)}</b> {words(self.front.about)}</p>"
            gr.HTML(about, elem_id="top", apply_default_css=False)
            with gr.Row(elem_id="desk", equal_height=False):
                with gr.Column(elem_id="clip", scale=0, min_width=330):
                    self._clip()
                with gr.Column(elem_id="talk", scale=1, min_width=320):
                    self._talk()
            self._wire()
            page.unload(self.leave)
        page.queue(default_concurrency_limit=1, max_size=32, api_open=False)
        return page

    # ------------------------------------------------------------------------------------------------------ components

    def _clip(self) -> None:
        camera = gr.WebcamOptions(mirror=False)
        takes = {kind: modals_of(self.front.senses, kind) != ["text"] for kind in KINDS}
        with gr.Tabs(selected=next((kind for kind in KINDS if takes[kind]), None), elem_id="media") as self.tabs:
            with gr.Tab("Video", id="video", visible=takes["video"]):
                video = gr.Video(
                    sources=["upload", "webcam"], webcam_options=camera, height=204, buttons=[], show_label=False,
                    elem_id="video",
                )  # fmt: skip
            with gr.Tab("Sound", id="audio", visible=takes["audio"]):
                audio = gr.Audio(
                    sources=["upload", "microphone"], type="filepath", editable=False, buttons=[], show_label=False,
                    elem_id="audio",
                )  # fmt: skip
            with gr.Tab("Picture", id="image", visible=takes["image"]):
                image = gr.Image(
                    sources=["upload", "webcam"], type="filepath", webcam_options=camera, height=204, buttons=[],
                    show_label=False, elem_id="image",
                )  # fmt: skip
        self.media = {"video": video, "audio": audio, "image": image}
        self.status = gr.HTML(elem_id="status", apply_default_css=False)
        self.modal = gr.Radio(["text"], value="text", label="The model gets", elem_id="modal")
        self.samples = []
        if self.front.examples:
            gr.HTML("<h3>Clips to try</h3>", apply_default_css=False)
            with gr.Row(elem_id="examples"):
                for example in self.front.examples:
                    self.samples.append(gr.Button(example.name, icon=str(example.picture), size="sm", min_width=60))
        elif self.front.without_examples:
            gr.HTML(f'<p class="hint">{words(self.front.without_examples)}</p>', apply_default_css=False)
        with gr.Accordion("Options", open=False, elem_id="options"):
            with gr.Row():
                most = gr.Number(
                    self.front.max_new_tokens, label="New tokens", precision=0, minimum=1, maximum=4096, min_width=100
                )
                heat = gr.Number(self.front.temperature, label="Temperature", minimum=0, step=0.1, min_width=100)
            with gr.Row():
                top = gr.Number(self.front.top_p, label="Top p", minimum=0, maximum=1, step=0.05, min_width=100)
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100)
        self.options = [most, heat, top, seed]
        self.clear = gr.Button("Clear: delete the clip and the conversation", size="sm", elem_id="clear")

    def _talk(self) -> None:
        with gr.Column(elem_id="scroll"), gr.Column(elem_id="turns"):
            self.past = gr.HTML(self._empty(), elem_id="past", apply_default_css=False)
            with gr.Row(elem_id="now", elem_classes="turn"):
                self.said = gr.HTML(elem_classes="said", apply_default_css=False)
                self.shown = gr.HTML(elem_classes="shown", apply_default_css=False)
        with gr.Row(elem_id="ask"):
            self.question = gr.Textbox(
                placeholder="Ask about the clip", show_label=False, lines=1, max_lines=4, scale=1, container=False,
                elem_id="question", submit_btn=False, autofocus=True,
            )  # fmt: skip
            self.go = gr.Button("Ask", variant="primary", scale=0, min_width=90, elem_id="go")
            self.stop = gr.Button("Stop", scale=0, min_width=90, elem_id="stop", visible=False)

    def _wire(self) -> None:
        quick: dict[str, Any] = {
            "show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None,
        }  # fmt: skip
        placed = [self.status, self.modal, *self.media.values()]
        for kind, medium in self.media.items():
            given = [medium.input, medium.stop_recording] if kind == "video" else [medium.input]  # as Gradio tells them
            gr.on(given, self._placing(kind), medium, placed, preprocess=False, **quick)
            medium.clear(self._taking(kind), None, [self.status, self.modal], **quick)
        for example, button in zip(self.front.examples, self.samples, strict=True):
            button.click(self._choosing(example), None, [*placed, self.tabs, self.question], **quick)
        answering = [self.past, self.said, self.shown, self.question, self.go, self.stop]
        asked = gr.on(
            [self.go.click, self.question.submit], self.ask, [self.question, self.modal, *self.options], answering,
            show_progress="hidden", api_visibility="private", trigger_mode="once",
        )  # fmt: skip
        asked.then(
            None, js="() => document.querySelector('#past article:last-child')?.scrollIntoView({block: 'nearest'})"
        )
        self.stop.click(self.halt, None, None, **quick)
        everything = [*placed, *answering]
        self.clear.click(self.forget, None, everything, **quick)

    # ----------------------------------------------------------------------------------------------------- what it does

    def place(self, kind: str, payload: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        """What was uploaded or recorded is what is talked about from now on; or what is wrong with it."""
        session = str(request.session_hash)
        if payload is None:
            return [*self.take_away(kind, request), *(gr.skip() for _ in KINDS)]
        file = Path(payload["path"])
        self.sessions.hold(session, file)
        others = [gr.skip() if other == kind else None for other in KINDS]
        try:
            medium = self.sessions.of(session).place(kind, file, payload.get("orig_name") or file.name)
        except ValueError as error:
            self.sessions.release(session)
            return [failure(str(error)), self._modals(None), None, None, None]
        return [placed(medium), self._modals(kind), *others]

    def example(self, example: Example, request: gr.Request) -> list[Any]:
        """A clip of the built-in corpus is what is talked about from now on."""
        session = str(request.session_hash)
        self.sessions.release(session)
        try:
            medium = self.sessions.of(session).place(example.kind, example.file, example.name, example.faces)
        except ValueError as error:
            return [failure(str(error)), self._modals(None), None, None, None, gr.skip(), gr.skip()]
        shown = [str(example.shown) if kind == example.kind else None for kind in KINDS]
        return [placed(medium), self._modals(example.kind), *shown, gr.Tabs(selected=example.kind), example.question]

    def take_away(self, kind: str, request: gr.Request) -> list[Any]:
        """The clip goes, if it is of this kind; what was said stays."""
        session = str(request.session_hash)
        conversation = self.sessions.of(session)
        if conversation.medium is not None and conversation.medium.kind != kind:
            return [gr.skip(), gr.skip()]
        conversation.medium = None
        self.sessions.release(session)
        return ["", self._modals(None)]

    def ask(
        self,
        question: str,
        modal: str,
        most: int | None,
        heat: float | None,
        top_p: float | None,
        seed: int | None,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """What the page shows while an answer grows."""
        conversation = self.sessions.of(str(request.session_hash))
        options = {
            "max_new_tokens": most or self.front.max_new_tokens,
            "temperature": float(heat or 0),
            "top_p": float(top_p or 1),
        }
        earlier, looked, pictured = list(conversation.turns), 0.0, ""
        for turn in conversation.ask(question, modal, options, seed or 0):
            if turn.done:
                past = "".join(card(one) for one in conversation.turns) or self._empty()
                yield [past, "", "", gr.skip(), gr.Button(visible=True), gr.Button(visible=False)]
            elif looked == 0.0:
                past = "".join(card(one) for one in earlier)
                yield [past, said(turn), "", "", gr.Button(visible=False), gr.Button(visible=True)]
                looked = time.monotonic()
            elif turn.shown != pictured:
                pictured = turn.shown
                yield [gr.skip(), said(turn), shown(turn), gr.skip(), gr.skip(), gr.skip()]
            elif time.monotonic() - looked > PAUSE:
                looked = time.monotonic()
                yield [gr.skip(), said(turn), gr.skip(), gr.skip(), gr.skip(), gr.skip()]

    def halt(self, request: gr.Request) -> None:
        """The answer ends where it is."""
        self.sessions.of(str(request.session_hash)).stopped = True

    def forget(self, request: gr.Request) -> list[Any]:
        """The clip, its file and all that was said are gone."""
        self.sessions.close(str(request.session_hash))
        buttons = [gr.Button(visible=True), gr.Button(visible=False)]
        return ["", self._modals(None), None, None, None, self._empty(), "", "", "", *buttons]

    def leave(self, request: gr.Request) -> None:
        """Somebody has closed the page."""
        self.sessions.close(str(request.session_hash))

    def _placing(self, kind: str) -> Callable[..., list[Any]]:
        def place(payload: dict[str, Any] | None, request: gr.Request) -> list[Any]:
            return self.place(kind, payload, request)

        return place

    def _taking(self, kind: str) -> Callable[..., list[Any]]:
        def take(request: gr.Request) -> list[Any]:
            return self.take_away(kind, request)

        return take

    def _choosing(self, example: Example) -> Callable[..., list[Any]]:
        def choose(request: gr.Request) -> list[Any]:
            return self.example(example, request)

        return choose

    def _modals(self, kind: str | None) -> Any:
        modals = modals_of(self.front.senses, kind)
        return gr.Radio(choices=[(way(modal, kind), modal) for modal in modals], value=modals[0])

    def _empty(self) -> str:
        reads = [READS[sense] for sense in self.front.senses]
        said = f"This model reads {', '.join(reads[:-1])}{' and ' if reads[1:] else ''}{reads[-1]}." if reads else ""
        return f'<p class="empty">Give a clip on the left, and ask. {said}</p>'


def way(modal: str, kind: str | None) -> str:
    """How a modal is called.

    >>> way("faces_audio", "video"), way("video", "image")
    ('faces + audio', 'picture')
    """
    return "picture" if (modal, kind) == ("video", "image") else modal.replace("_", " + ")


def placed(medium: Medium) -> str:
    """A clip that was taken, in a line."""
    return f'<p class="placed"><b>{words(medium.name)}</b> {words(medium.words)}</p>'


def failure(why: str) -> str:
    """What is wrong, so that it is heard, too."""
    return f'<p class="failure" role="alert">{words(why)}</p>'


def said(turn: Turn) -> str:
    """The words of a turn: question, answer, figures, notes."""
    about = way(turn.modal, None)
    if turn.medium is not None:
        about = f"{way(turn.modal, turn.medium.kind)} of {words(turn.medium.name)}"
    answer = "" if turn.error else f'<p class="answer">{words(turn.said)}{"" if turn.done else "<i></i>"}</p>'
    error = failure(turn.error) if turn.error else ""
    notes = "".join(f'<p class="note">{words(note)}</p>' for note in turn.notes)
    asked = f'<p class="question">{words(turn.question)}</p><p class="about">{about}</p>'
    return f"{asked}{answer}{error}{notes}{figures(turn)}"


def figures(turn: Turn) -> str:
    """Tokens of the prompt by slot, new tokens, and the time, in a line."""
    pairs = "".join(f"<div><dt>{words(name)}</dt><dd>{words(figure)}</dd></div>" for name, figure in turn.facts.items())
    return f'<dl class="figures">{pairs}</dl>' if pairs else ""


def shown(turn: Turn) -> str:
    """The pictures of a turn: frames, faces, sound, weights."""
    return turn.shown + turn.weights


def card(turn: Turn) -> str:
    """A turn that is over."""
    state = "failed" if turn.error else "answered"
    return (
        f'<article class="turn {state}"><div class="said">{said(turn)}</div>'
        f'<div class="shown">{shown(turn)}</div></article>'
    )


def theme() -> Any:
    """Gradio's plain theme in the fonts of the machine: the page asks nobody for any."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="sm", text_size="sm", spacing_size="sm",
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"),
    )  # fmt: skip


def style() -> str:
    """The page's own style sheet."""
    return (files("omnihuman.serving") / "page.css").read_text(encoding="utf-8")
