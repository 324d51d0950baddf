"""Batches of questions, the replies to each, and failures of some of them."""

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnihuman.build import compose_config
from omnihuman.data.messages import build_record
from omnihuman.data.record import BadSample
from omnihuman.inference.answer import Answer
from omnihuman.serving.choices import Choices
from omnihuman.serving.completions import Question
from omnihuman.serving.pool import Reply
from omnihuman.serving.worker import Worker, run_worker


def build_answer(text: str) -> Answer:
    """Return the text in capitals as an answer, one token per letter."""
    ids = tuple(map(ord, text.upper()))
    return Answer(text.upper(), len(text), {"gate": {"face": 0.5}}, (), ids, 9, 0.1, True)


class FakeStream(Iterator[str]):
    """An answer, letter by letter."""

    def __init__(self, text: str) -> None:
        self.answer, self.num_read = build_answer(text), 0
        self._pieces = list(f" {text.upper()} ")

    def __next__(self) -> str:
        if not self._pieces:
            raise StopIteration
        self.num_read += 1
        return self._pieces.pop(0)

    def close(self) -> None:
        self._pieces = []


class FakeAnswerer:
    """An answerer that repeats a question in capitals, and records its calls."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        config = SimpleNamespace(max_position_embeddings=30)
        tokenizer = SimpleNamespace(encode=lambda text, **_: [*map(ord, text)], all_special_ids=[ord("#")])
        llm = SimpleNamespace(model=SimpleNamespace(config=config), decode=self._decode, tokenizer=tokenizer)
        self.model, self.fails = SimpleNamespace(llm=llm), fails
        self.calls: list[tuple[list[str], dict[str, Any]]] = []
        self.streams: list[FakeStream] = []

    def _decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(map(chr, tokens)) for tokens in ids]

    def build_prompt(self, record: Any, view: Any) -> Any:
        text = record.messages[0][1]
        if text == "bad":
            raise BadSample("corrupt", f"{record.location}: cut off")
        if text == "broken":
            raise RuntimeError("a secret of the server")
        return SimpleNamespace(text=text, length={"long": 29, "longer": 30}.get(text, 9), notes=())

    def answer_prompts(
        self, prompts: Sequence[Any], *, seed: int | None, stopping_criteria: Any, **kwargs: Any
    ) -> list[Answer]:
        texts = [prompt.text for prompt in prompts]
        self.calls.append((texts, kwargs))
        if set(texts) & set(self.fails):
            raise RuntimeError("out of memory")
        return [build_answer(text) for text in texts]

    def choose(self, prompts: Sequence[Any], options: Sequence[Sequence[str]]) -> list[Answer]:
        """Return the last option of each question, with probability 3/4 if there are two."""
        self.calls.append(([prompt.text for prompt in prompts], {"options": [*options]}))
        answers = []
        for labels in options:
            log_probs = (*[-2.0 - math.log(3)] * (len(labels) - 1), -2.0)
            answers.append(Answer(labels[-1], len(labels[-1]), log_probs=log_probs))
        return answers

    def stream(self, prompt: Any, *, seed: int | None, **kwargs: Any) -> FakeStream:
        self.streams.append(FakeStream(prompt.text))
        return self.streams[-1]


BuildQuestion = Callable[..., Question]


@pytest.fixture
def build_question(tmp_path: Path) -> BuildQuestion:
    """Return a function that builds the question of a client who waits."""

    def build(
        text: str,
        *,
        stream: bool = False,
        seed: int | None = None,
        stops: tuple[str, ...] = (),
        choices: Choices | None = None,
        **kwargs: Any,
    ) -> Question:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        record = build_record([{"role": "user", "content": text}], "request", "messages", folder)
        return Question(folder, record, None, {"max_new_tokens": 20, **kwargs}, seed, stops, stream, (), choices)

    return build


def collect_replies(answerer: Any, questions: Sequence[Question]) -> list[list[Reply]]:
    """Return the replies to each question."""
    replies: list[list[Reply]] = [[] for _ in questions]
    for position, reply in Worker(answerer).answer(questions):
        replies[position].append(reply)
    return replies


def test_questions_with_the_same_options_are_answered_together(build_question: BuildQuestion) -> None:
    answerer = FakeAnswerer()
    limits = {"one": 20, "two": 5, "three": 20, "four": 5}
    questions = [build_question(text, max_new_tokens=limit) for text, limit in limits.items()]
    replies = collect_replies(answerer, questions)
    assert [reply["text"] for (reply,) in replies] == ["ONE", "TWO", "THREE", "FOUR"]
    assert sorted(texts for texts, _ in answerer.calls) == [["one", "three"], ["two", "four"]]
    end = replies[2][0]["end"]
    assert end["usage"] == {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    assert (end["reason"], end["more"]["weights"], end["more"]["batch"]) == ("stop", {"gate": {"face": 0.5}}, 2)


def test_samples_from_a_seed_are_answered_alone(build_question: BuildQuestion) -> None:
    answerer = FakeAnswerer()
    seeds = {"a": 1, "b": 1, "c": None, "d": None}
    questions = [build_question(text, seed=seed, do_sample=True, temperature=1.0) for text, seed in seeds.items()]
    collect_replies(answerer, questions)
    assert sorted(texts for texts, _ in answerer.calls) == [["a"], ["b"], ["c", "d"]]


def test_choices_are_answered_together_and_beside_other_questions(build_question: BuildQuestion) -> None:
    answerer, plain = FakeAnswerer(), Choices(("no", "yes"))
    questions = [
        build_question("one", choices=plain),
        build_question("two"),
        build_question("three", choices=Choices(("a", "b", "c"), True, "grade"), stream=True, seed=1, do_sample=True),
    ]
    one, two, three = collect_replies(answerer, questions)
    assert (["one", "three"], {"options": [("no", "yes"), ("a", "b", "c")]}) in answerer.calls
    assert (one[0]["text"], two[0]["text"], three[0]["text"]) == ("yes", "TWO", '{"grade": "c"}')
    more = one[0]["end"]["more"]
    assert more["probabilities"] == {"no": 0.25, "yes": 0.75} and more["log_probs"]["yes"] == -2.0
    assert more["batch"] == 2 and one[0]["end"]["reason"] == "stop"
    assert one[0]["end"]["usage"]["completion_tokens"] == len("yes")
    assert "probabilities" not in two[0]["end"]["more"]


@pytest.mark.parametrize(
    ("text", "label", "code"), [("a", "b#", "special_token_in_text"), ("long", "bb", "context_length_exceeded")]
)
def test_unusable_choices_fail(text: str, label: str, code: str, build_question: BuildQuestion) -> None:
    ((reply,),) = collect_replies(FakeAnswerer(), [build_question(text, choices=Choices(("a", label)))])
    assert reply["error"]["code"] == code and reply["error"]["status"] == 400


def test_failed_question_does_not_affect_the_others(
    build_question: BuildQuestion, caplog: pytest.LogCaptureFixture
) -> None:
    answerer = FakeAnswerer(fails=["heavy"])
    questions = [build_question(text) for text in ("bad", "one", "heavy", "broken", "two")]
    bad, one, heavy, broken, two = collect_replies(answerer, questions)
    assert (one[0]["text"], two[0]["text"]) == ("ONE", "TWO")
    assert bad[0]["error"] == {"code": "corrupt", "message": "messages: cut off.", "status": 400}
    for (reply,) in (heavy, broken):
        assert reply["error"]["status"] == 500 and "secret" not in reply["error"]["message"]
    assert "one by one" in caplog.text and "a secret of the server" in caplog.text


def test_answer_is_limited_by_the_context(build_question: BuildQuestion) -> None:
    answerer = FakeAnswerer()
    long, longer = collect_replies(answerer, [build_question("long"), build_question("longer")])
    assert answerer.calls == [(["long"], {"max_new_tokens": 1})] and "end" in long[0]
    assert longer[0]["error"]["code"] == "context_length_exceeded"


def test_questions_of_clients_who_left_are_skipped(build_question: BuildQuestion) -> None:
    answerer, abandoned = FakeAnswerer(), build_question("abandoned")
    abandoned.folder.rmdir()
    replies = collect_replies(answerer, [abandoned, build_question("here")])
    assert replies[0] == [] and answerer.calls[0][0] == ["here"]


def test_stream_ends_when_the_client_leaves(build_question: BuildQuestion) -> None:
    answerer: Any = FakeAnswerer()
    question = build_question("leaving", stream=True)
    replies = Worker(answerer).answer([question])
    next(replies)
    question.folder.rmdir()
    list(replies)
    assert answerer.streams[0].num_read < len("leaving")


def test_pieces_of_a_stream_join_to_the_answer(build_question: BuildQuestion) -> None:
    questions = [build_question("so be it", stream=True), build_question("one")]
    pieces, complete = collect_replies(FakeAnswerer(), questions)
    assert "".join(reply["text"] for reply in pieces) == "SO BE IT" and len(pieces) > 5
    assert ["end" in reply for reply in pieces] == [False] * (len(pieces) - 1) + [True]
    assert complete[0]["text"] == "ONE"


@pytest.mark.parametrize("stream", [False, True])
def test_answer_ends_before_a_stop(build_question: BuildQuestion, stream: bool) -> None:
    answerer = FakeAnswerer()
    (replies,) = collect_replies(answerer, [build_question("so be it", stream=stream, stops=("XX", "E I"))])
    assert "".join(reply["text"] for reply in replies) == "SO B"
    end = replies[-1]["end"]
    assert end["reason"] == "stop" and end["usage"]["completion_tokens"] == len("SO BE I")
    assert not stream or answerer.streams[0].num_read < len(" SO BE IT ")


@pytest.mark.parametrize("stream", [False, True])
def test_broken_device_ends_the_process(
    build_question: BuildQuestion, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error of CUDA every later call fails, too: only a new process can answer."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(FakeAnswerer, "answer_prompts", fail)
    monkeypatch.setattr(FakeStream, "__next__", fail)
    with pytest.raises(torch.AcceleratorError):
        collect_replies(FakeAnswerer(), [build_question(text, stream=stream) for text in ("one", "two")])


def test_error_of_the_user_is_sent_as_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.serving.worker.end_with_parent", lambda: None)
    monkeypatch.setattr("omnihuman.serving.worker.os.setpgrp", lambda: None)
    connection, end = multiprocessing.Pipe()
    run_worker(end, "cpu", config=compose_config([f"run={tmp_path}"], "serve"))
    message = connection.recv()
    assert str(tmp_path) in message and "\n" not in message
