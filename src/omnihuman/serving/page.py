"""The page of ``omnihuman chat``: the clip on the left, questions and answers on the right."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from omnihuman.modality import View
from omnihuman.serving.conversation import Conversation, Medium, Turn, views_of
from omnihuman.serving.examples import Example
from omnihuman.serving.rendering import escape_html
from omnihuman.serving.sessions import Sessions

KINDS = ("video", "audio", "image")
UPDATE_SECONDS = 0.05
"""Shortest time between two updates of an answer on the page."""

SCROLL_TO_ANSWER = "() => document.querySelector('#past article:last-child')?.scrollIntoView({block: 'nearest'})"


@dataclass(frozen=True)
class PageOptions:
    """Texts and initial values of the page.

    Attributes:
        title: name of the model.
        subtitle: text after the title.
        view: modalities that the model reads.
        quality: a sentence on how good the model is.
        examples: clips to try.
        examples_hint: text in place of missing examples.
        max_new_tokens: of an answer.
        temperature: 0 is greedy.
        top_p: share of the most likely tokens that are sampled from.
    """

    title: str
    subtitle: str
    view: View
    quality: str = ""
    examples: Sequence[Example] = ()
    examples_hint: str = ""
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0


class Page:
    """The components of the page and their handlers.

    Args:
        sessions: the conversations.
        options: texts and initial values.
    """

    def __init__(self, sessions: Sessions, options: PageOptions) -> None:
        self.sessions, self.options = sessions, options

    def build(self) -> gr.Blocks:
        """Build the page."""
        title = self.options.title
        with gr.Blocks(
            title=title, analytics_enabled=False, fill_width=True, fill_height=True, delete_cache=(600, 3600)
        ) as page:
            header = f"<b>{escape_html(title)}</b> {escape_html(self.options.subtitle)}"
            gr.HTML(f"<h1>omnihuman</h1><p>{header}</p>", elem_id="top", apply_default_css=False)
            with gr.Row(elem_id="columns", equal_height=False):
                with gr.Column(elem_id="clip", scale=0, min_width=330):
                    self._add_media()
                    self._add_examples()
                    self._add_settings()
                with gr.Column(elem_id="talk", scale=1, min_width=320):
                    self._add_conversation()
            self._connect()
            page.unload(self.end_session)
        page.queue(default_concurrency_limit=1, max_size=32, api_open=False)
        return page

    # ------------------------------------------------------------------------------------------------------ components

    def _add_media(self) -> None:
        camera = gr.WebcamOptions(mirror=False)
        supported = [kind for kind in KINDS if self.options.view & View.of_kind(kind)]
        with gr.Tabs(selected=next(iter(supported), None), elem_id="media") as self.tabs:
            with gr.Tab("Video", id="video", visible="video" in supported):
                video = gr.Video(
                    sources=["upload", "webcam"],
                    webcam_options=camera,
                    height=204,
                    buttons=[],
                    show_label=False,
                    elem_id="video",
                )
            with gr.Tab("Audio", id="audio", visible="audio" in supported):
                audio = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    editable=False,
                    buttons=[],
                    show_label=False,
                    elem_id="audio",
                )
            with gr.Tab("Image", id="image", visible="image" in supported):
                image = gr.Image(
                    sources=["upload", "webcam"],
                    type="filepath",
                    webcam_options=camera,
                    height=204,
                    buttons=[],
                    show_label=False,
                    elem_id="image",
                )
        self.media = {"video": video, "audio": audio, "image": image}
        self.status = gr.HTML(elem_id="status", apply_default_css=False)
        self.view = gr.Radio(["text"], value="text", label="Input of the model", elem_id="view")

    def _add_examples(self) -> None:
        self.example_buttons: list[gr.Button] = []
        if self.options.examples:
            gr.HTML("<h3>Examples</h3>", apply_default_css=False)
            with gr.Row(elem_id="examples"):
                for example in self.options.examples:
                    button = gr.Button(example.name, icon=str(example.thumbnail), size="sm", min_width=60)
                    self.example_buttons.append(button)
        elif self.options.examples_hint:
            gr.HTML(f'<p class="hint">{escape_html(self.options.examples_hint)}</p>', apply_default_css=False)

    def _add_settings(self) -> None:
        options = self.options
        with gr.Accordion("Options", open=False, elem_id="options"):
            with gr.Row():
                max_new_tokens = gr.Number(
                    options.max_new_tokens, label="New tokens", precision=0, minimum=1, maximum=4096, min_width=100
                )
                temperature = gr.Number(options.temperature, label="Temperature", minimum=0, step=0.1, min_width=100)
            with gr.Row():
                top_p = gr.Number(options.top_p, label="Top p", minimum=0, maximum=1, step=0.05, min_width=100)
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100)
        self.settings = [max_new_tokens, temperature, top_p, seed]
        self.clear = gr.Button("Clear: delete the clip and the conversation", size="sm", elem_id="clear")

    def _add_conversation(self) -> None:
        with gr.Column(elem_id="scroll"), gr.Column(elem_id="turns"):
            self.past = gr.HTML(self._render_empty(), elem_id="past", apply_default_css=False)
            with gr.Row(elem_id="now", elem_classes="turn"):
                self.text = gr.HTML(elem_classes="text", apply_default_css=False)
                self.inputs = gr.HTML(elem_classes="inputs", apply_default_css=False)
        with gr.Row(elem_id="ask"):
            self.question = gr.Textbox(
                placeholder="Ask about the clip",
                show_label=False,
                lines=1,
                max_lines=4,
                scale=1,
                container=False,
                elem_id="question",
                submit_btn=False,
                autofocus=True,
            )
            self.go = gr.Button("Ask", variant="primary", scale=0, min_width=90, elem_id="go")
            self.stop = gr.Button("Stop", scale=0, min_width=90, elem_id="stop", visible=False)

    def _connect(self) -> None:
        """Connect the components with their handlers."""
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        clip_outputs = [self.status, self.view, *self.media.values()]
        for kind, component in self.media.items():
            # Gradio reports a webcam video by another event than an upload
            events = [component.input, component.stop_recording] if kind == "video" else [component.input]
            gr.on(events, self._upload_handler(kind), component, clip_outputs, preprocess=False, **quick)
            component.clear(self._removal_handler(kind), None, [self.status, self.view], **quick)
        for example, button in zip(self.options.examples, self.example_buttons, strict=True):
            button.click(self._example_handler(example), None, [*clip_outputs, self.tabs, self.question], **quick)
        answer_outputs = [self.past, self.text, self.inputs, self.question, self.go, self.stop]
        answering = gr.on(
            [self.go.click, self.question.submit],
            self.ask,
            [self.question, self.view, *self.settings],
            answer_outputs,
            show_progress="hidden",
            api_visibility="private",
            trigger_mode="once",
        )
        answering.then(None, js=SCROLL_TO_ANSWER)
        self.stop.click(self.stop_answer, None, None, **quick)
        self.clear.click(self.clear_session, None, [*clip_outputs, *answer_outputs], **quick)

    # -------------------------------------------------------------------------------------------------------- handlers

    def open_upload(self, kind: str, payload: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        """Open an upload or a recording as the clip of the conversation."""
        session = str(request.session_hash)
        if payload is None:
            return [*self.remove_clip(kind, request), *(gr.skip() for _ in KINDS)]
        file = Path(payload["path"])
        self.sessions.use(session, file)
        try:
            medium = self.sessions.get(session).open(kind, file, payload.get("orig_name") or file.name)
        except ValueError as error:
            self.sessions.release(session)
            return [render_error(str(error)), self._update_views(None), None, None, None]
        media = [gr.skip() if component == kind else None for component in KINDS]
        return [render_medium(medium), self._update_views(kind), *media]

    def open_example(self, example: Example, request: gr.Request) -> list[Any]:
        """Open a clip of the built-in corpus as the clip of the conversation."""
        session = str(request.session_hash)
        self.sessions.release(session)
        try:
            medium = self.sessions.get(session).open(example.kind, example.file, example.name, example.faces)
        except ValueError as error:
            empty = [None, None, None]
            return [render_error(str(error)), self._update_views(None), *empty, gr.skip(), gr.skip()]
        media = [str(example.copy) if kind == example.kind else None for kind in KINDS]
        tab = gr.Tabs(selected=example.kind)
        return [render_medium(medium), self._update_views(example.kind), *media, tab, example.question]

    def remove_clip(self, kind: str, request: gr.Request) -> list[Any]:
        """Remove the clip if it is of this kind; the conversation stays."""
        session = str(request.session_hash)
        conversation = self.sessions.get(session)
        if conversation.medium is not None and conversation.medium.kind != kind:
            return [gr.skip(), gr.skip()]
        conversation.medium = None
        self.sessions.release(session)
        return ["", self._update_views(None)]

    def ask(
        self,
        question: str,
        view: str,
        max_new_tokens: int | None,
        temperature: float | None,
        top_p: float | None,
        seed: int | None,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Yield the updates of the page while an answer is generated."""
        conversation = self.sessions.get(str(request.session_hash))
        options = {
            "max_new_tokens": max_new_tokens or self.options.max_new_tokens,
            "temperature": float(temperature or 0),
            "top_p": float(top_p or 1),
        }
        past = "".join(render_turn(turn) for turn in conversation.turns)
        updated, inputs = 0.0, ""
        for turn in conversation.ask(question, view, options, seed or 0):
            if turn.is_done:
                yield self._finish_answer(conversation)
            elif updated == 0.0:
                yield [past, render_text(turn), "", "", gr.Button(visible=False), gr.Button(visible=True)]
                updated = time.monotonic()
            elif turn.inputs_html != inputs:
                inputs = turn.inputs_html
                yield [gr.skip(), render_text(turn), render_inputs(turn), gr.skip(), gr.skip(), gr.skip()]
            elif time.monotonic() - updated > UPDATE_SECONDS:
                updated = time.monotonic()
                yield [gr.skip(), render_text(turn), gr.skip(), gr.skip(), gr.skip(), gr.skip()]

    def _finish_answer(self, conversation: Conversation) -> list[Any]:
        """Return the update after an answer; a conversation that was cleared meanwhile is empty."""
        past = "".join(render_turn(turn) for turn in conversation.turns) or self._render_empty()
        return [past, "", "", gr.skip(), gr.Button(visible=True), gr.Button(visible=False)]

    def stop_answer(self, request: gr.Request) -> None:
        """Stop the answer that is being generated."""
        self.sessions.get(str(request.session_hash)).stopped = True

    def clear_session(self, request: gr.Request) -> list[Any]:
        """Delete the clip, its file and the conversation."""
        self.sessions.close(str(request.session_hash))
        buttons = [gr.Button(visible=True), gr.Button(visible=False)]
        return ["", self._update_views(None), None, None, None, self._render_empty(), "", "", "", *buttons]

    def end_session(self, request: gr.Request) -> None:
        """End the session of a closed page."""
        self.sessions.close(str(request.session_hash))

    # Gradio passes the request to arguments annotated with gr.Request only, so partial functions do not work

    def _upload_handler(self, kind: str) -> Callable[..., list[Any]]:
        def handle(payload: dict[str, Any] | None, request: gr.Request) -> list[Any]:
            return self.open_upload(kind, payload, request)

        return handle

    def _removal_handler(self, kind: str) -> Callable[..., list[Any]]:
        def handle(request: gr.Request) -> list[Any]:
            return self.remove_clip(kind, request)

        return handle

    def _example_handler(self, example: Example) -> Callable[..., list[Any]]:
        def handle(request: gr.Request) -> list[Any]:
            return self.open_example(example, request)

        return handle

    def _update_views(self, kind: str | None) -> Any:
        views = views_of(self.options.view, kind)
        return gr.Radio(choices=[(name_view(view, kind), str(view)) for view in views], value=str(views[0]))

    def _render_empty(self) -> str:
        nouns = self.options.view.nouns
        text = "Choose a clip on the left and ask a question."
        if nouns:
            text += f" This model reads {', '.join(nouns)}."
        empty = f'<p class="empty">{text}</p>'
        if self.options.quality:
            empty += f'<p class="empty quality">{escape_html(self.options.quality)}</p>'
        return empty


def name_view(view: View, kind: str | None) -> str:
    """Return the name of a view on the page.

    >>> name_view(View("AF"), "video"), name_view(View("V"), "image"), name_view(View(""), None)
    ('audio + faces', 'image', 'text')
    """
    nouns = ["image" if (noun, kind) == ("frames", "image") else noun for noun in view.nouns]
    return " + ".join(nouns) or "text"


def render_medium(medium: Medium) -> str:
    """Render the name and the summary of a clip."""
    return f'<p class="medium"><b>{escape_html(medium.name)}</b> {escape_html(medium.summary)}</p>'


def render_error(message: str) -> str:
    """Render an error; screen readers announce it."""
    return f'<p class="failure" role="alert">{escape_html(message)}</p>'


def render_text(turn: Turn) -> str:
    """Render the text of a turn: question, answer, notes, statistics."""
    about = name_view(turn.view, None)
    if turn.medium is not None:
        about = f"{name_view(turn.view, turn.medium.kind)} of {escape_html(turn.medium.name)}"
    parts = [f'<p class="question">{escape_html(turn.question)}</p><p class="about">{about}</p>']
    if turn.error:
        parts.append(render_error(turn.error))
    else:
        cursor = "" if turn.is_done else "<i></i>"
        parts.append(f'<p class="answer">{escape_html(turn.answer)}{cursor}</p>')
    for note in turn.notes:
        parts.append(f'<p class="note">{escape_html(note)}</p>')
    return "".join(parts) + render_statistics(turn)


def render_statistics(turn: Turn) -> str:
    """Render the token counts and the time of a turn."""
    items: list[str] = []
    for name, value in turn.statistics.items():
        items.append(f"<div><dt>{escape_html(name)}</dt><dd>{escape_html(value)}</dd></div>")
    return f'<dl class="statistics">{"".join(items)}</dl>' if items else ""


def render_inputs(turn: Turn) -> str:
    """Render the inputs of a turn and the weights of the fusions: frames, faces, audio, bars."""
    return turn.inputs_html + turn.weights_html


def render_turn(turn: Turn) -> str:
    """Render a complete turn."""
    state = "failed" if turn.error else "answered"
    return (
        f'<article class="turn {state}"><div class="text">{render_text(turn)}</div>'
        f'<div class="inputs">{render_inputs(turn)}</div></article>'
    )


def build_theme() -> Any:
    """Return Gradio's plain theme with the fonts of the machine, so that the page loads none from elsewhere."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="sm",
        text_size="sm",
        spacing_size="sm",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )


def read_style() -> str:
    """Return the style sheet of the page."""
    return (files("omnihuman.serving") / "page.css").read_text(encoding="utf-8")
