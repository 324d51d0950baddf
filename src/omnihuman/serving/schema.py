"""Bodies of requests and of responses, as ``/openapi.json`` describes them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from omnihuman.serving.uploads import is_data_url


class Body(BaseModel):
    """A part of a body; the text below an attribute is its description."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class MediaURL(Body):
    """Place of a medium: a ``data:`` URL, or a file that the server may read."""

    url: str


class InputAudio(Body):
    """Audio in base64 or as a ``data:`` URL; its format is read from the content."""

    data: str

    @property
    def url(self) -> str:
        """The audio as a ``data:`` URL."""
        if is_data_url(self.data):
            return self.data
        return f"data:;base64,{self.data}"


class ContentPart(Body):
    """A part of a message: text or a medium, under the name of its type."""

    type: str
    """text, image_url, video_url, audio_url or input_audio"""
    text: str = ""
    image_url: MediaURL | str | None = None
    video_url: MediaURL | str | None = None
    audio_url: MediaURL | str | None = None
    input_audio: InputAudio | None = None


class Message(Body):
    """A message of a conversation."""

    role: str
    """system or developer (first message only), user, assistant"""
    content: str | list[ContentPart] | None = None


class ChatRequest(Body, extra="allow"):
    """A conversation that ends with a question.

    ``view``, ``top_k``, ``repetition_penalty`` and ``structured_outputs`` extend OpenAI's interface (``extra_body`` of
    its client). Options of OpenAI that are missing here are refused where they would change the answer, and otherwise
    listed in ``omnihuman.notes``.
    """

    messages: list[Message] = Field(min_length=1)
    model: str = ""
    """name of the served model"""
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    """0 or null: greedy"""
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=1)
    repetition_penalty: float | None = Field(None, gt=0)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    view: str | None = None
    """the part of the media that the model gets: VAF, VA, V, A, text ...; null: all"""
    response_format: dict[str, Any] | None = Field(
        None,
        examples=[
            {"type": "choice", "choices": ["happy", "sad"]},
            {"type": "json_schema", "json_schema": {"name": "emotion", "schema": {"enum": ["happy", "sad"]}}},
        ],
    )
    """choices, as a plain list or as a JSON schema with one enum: the answer is the most probable one, and
    omnihuman.probabilities has the probability of each"""
    structured_outputs: dict[str, Any] | None = Field(None, examples=[{"choice": ["happy", "sad"]}])
    """choices in the form of vLLM"""


class Strict(Body):
    """A part of a response."""

    model_config = ConfigDict(extra="forbid")


class Usage(Strict):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(Strict):
    """The answer."""

    role: str
    content: str


class Choice(Strict):
    """The answer and the reason of its end."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: str
    """stop or length"""


class Details(Strict):
    """Extensions of OpenAI's interface."""

    weights: dict[str, dict[str, float]]
    """weight of each stream in each fusion"""
    notes: list[str]
    """missing modalities and ignored options"""
    batch: int
    """questions that were answered together"""
    seconds: float
    """time of the batch"""
    log_probs: dict[str, float] | None = None
    """of a choice: the sum of the natural log-probabilities of its tokens, as evaluate computes it"""
    probabilities: dict[str, float] | None = None
    """of a choice, among the choices: exp(log_probs), divided by their sum"""


class ChatCompletion(Strict):
    """A complete answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    omnihuman: Details


class ErrorDetails(Strict):
    """The reason of an error."""

    message: str
    type: str
    """invalid_request_error or server_error"""
    param: str | None
    """field of the request"""
    code: str
    """a short name of the reason"""


class ErrorBody(Strict):
    """An error in the form of OpenAI."""

    error: ErrorDetails
