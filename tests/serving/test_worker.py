"""Who is asked together, what each is told, and what happens where one of them fails."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from types import SimpleNamespace
from typing import Any

import fastapi
import pytest

from omnihuman.data.messages import record_of
from omnihuman.data.record import BadSample
from omnihuman.evaluation.answerer import Answer
from omnihuman.serving.completions import Question
from omnihuman.serving.uploads import Refused
from omnihuman.serving.worker import Loop, Patient, Worker


def answer_to(words: str) -> Answer:
    """Its letters, one token each, in capitals."""
    return Answer(words.upper(), len(words), {"gate": {"face": 0.5}}, (), tuple(map(ord, words.upper())), 9, 0.1, True)


class Stream(Iterator[str]):
    def __init__(self, words: str) -> None:
        self.answer, self._left, self.read = answer_to(words), list(f" {words.upper()} "), 0

    def __next__(self) -> str:
        if not self._left:
            raise StopIteration
        self.read += 1
        return self._left.pop(0)

    def close(self) -> None:
        self._left = []


class Answerer:
    """Says a question again, louder."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        config = SimpleNamespace(max_position_embeddings=30)
        llm = SimpleNamespace(
            model=SimpleNamespace(config=config),
            texts=lambda rows: ["".join(map(chr, row)) for row in rows],
        )
        self.model, self.fails, self.asked = SimpleNamespace(llm=llm), fails, list[tuple[list[str], dict[str, Any]]]()
        self.streams: list[Stream] = []

    def prompt(self, record: Any, modal: str | None) -> Any:
        words = record.messages[0][1]
        if words == "bad":
            raise BadSample("corrupt", f"{record.source}: cut off")
        if words == "broken":
            raise RuntimeError("a secret of the server")
        return SimpleNamespace(words=words, length=29 if words == "long" else 30 if words == "longer" else 9, notes=())

    def ask(self, prompts: Sequence[Any], *, seed: int | None, stopping_criteria: Any, **how: Any) -> list[Answer]:
        words = [prompt.words for prompt in prompts]
        self.asked.append((words, how))
        if set(words) & set(self.fails):
            raise RuntimeError("out of memory")
        return [answer_to(one) for one in words]

    def stream(self, prompt: Any, *, seed: int | None, **how: Any) -> Stream:
        self.streams.append(Stream(prompt.words))
        return self.streams[-1]


@pytest.fixture
def questions(tmp_path: Path) -> Any:
    def make(
        words: str, *, stream: bool = False, seed: int | None = None, stops: tuple[str, ...] = (), **how: Any
    ) -> Any:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        record = record_of([{"role": "user", "content": words}], "request", "messages", folder)
        how = {"max_new_tokens": 20, **how}
        return Question(folder, record, None, how, seed, stops, stream, ())

    return make


def told(answerer: Answerer, questions: Sequence[Question]) -> list[list[dict[str, Any]]]:
    """What each is told."""
    worker = Worker(Path("unused"), 16, None, {})
    worker.answerer = answerer  # type: ignore[assignment]
    rows = list(worker.encode_response(worker.predict(questions)))
    assert all(len(row) == len(questions) for row in rows)
    return [[row[number] for row in rows if row[number] is not None] for number in range(len(questions))]  # type: ignore[misc]


def test_those_with_the_same_options_are_asked_at_once(questions: Any) -> None:
    answerer = Answerer()
    asked = [
        questions("one"),
        questions("two", max_new_tokens=5),
        questions("three"),
        questions("four", max_new_tokens=5),
    ]
    said = told(answerer, asked)
    assert [[message["text"] for message in one] for one in said] == [["ONE"], ["TWO"], ["THREE"], ["FOUR"]]
    assert sorted(words for words, _ in answerer.asked) == [["one", "three"], ["two", "four"]]
    end = said[2][0]["end"]
    assert end["usage"] == {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    assert (end["reason"], end["more"]["weights"], end["more"]["batch"]) == ("stop", {"gate": {"face": 0.5}}, 2)


def test_what_is_sampled_from_a_seed_is_asked_alone(questions: Any) -> None:
    answerer, warm = Answerer(), {"do_sample": True, "temperature": 1.0}
    told(
        answerer,
        [questions(words, seed=seed, **warm) for words, seed in (("a", 1), ("b", 1), ("c", None), ("d", None))],
    )
    assert sorted(words for words, _ in answerer.asked) == [["a"], ["b"], ["c", "d"]]


def test_one_that_fails_leaves_the_others_their_answers(questions: Any, caplog: pytest.LogCaptureFixture) -> None:
    answerer = Answerer(fails=["heavy"])
    asked = [questions(words) for words in ("bad", "one", "heavy", "broken", "two")]
    bad, one, heavy, broken, two = told(answerer, asked)
    assert (one[0]["text"], two[0]["text"]) == ("ONE", "TWO")
    assert bad[0]["error"] == {"code": "corrupt", "message": "messages: cut off.", "status": 400}
    for failed in (heavy, broken):
        assert failed[0]["error"]["status"] == 500 and "secret" not in failed[0]["error"]["message"]
    assert "one by one now" in caplog.text and "a secret of the server" in caplog.text


def test_an_answer_ends_where_the_context_does(questions: Any) -> None:
    answerer = Answerer()
    long, longer = told(answerer, [questions("long"), questions("longer")])
    assert answerer.asked == [(["long"], {"max_new_tokens": 1})] and "end" in long[0]
    assert longer[0]["error"]["code"] == "context_length_exceeded"


def test_who_has_left_is_not_asked_for(questions: Any) -> None:
    answerer, gone = Answerer(), questions("gone")
    gone.folder.rmdir()
    assert told(answerer, [gone, questions("here")])[0] == [] and answerer.asked[0][0] == ["here"]
    leaving = questions("leaving", stream=True)
    worker = Worker(Path("unused"), 16, None, {})
    worker.answerer = answerer  # type: ignore[assignment]
    rows = worker.predict([leaving])
    next(rows)
    leaving.folder.rmdir()
    list(rows)
    assert answerer.streams[0].read < len("leaving")


def test_pieces_make_up_the_answer(questions: Any) -> None:
    said = told(Answerer(), [questions("so be it", stream=True), questions("one")])
    assert "".join(message["text"] for message in said[0]) == "SO BE IT" and len(said[0]) > 5
    assert ["end" in message for message in said[0]] == [False] * (len(said[0]) - 1) + [True]
    assert said[1][0]["text"] == "ONE"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop(questions: Any, stream: bool) -> None:
    answerer = Answerer()
    said = told(answerer, [questions("so be it", stream=stream, stops=("XX", "E I"))])[0]
    assert "".join(message["text"] for message in said) == "SO B"
    assert said[-1]["end"]["reason"] == "stop" and said[-1]["end"]["usage"]["completion_tokens"] == len("SO BE I")
    assert not stream or answerer.streams[0].read < len(" SO BE IT ")


def test_a_key_opens() -> None:
    def request(**headers: str) -> fastapi.Request:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        return fastapi.Request({"type": "http", "headers": pairs})

    worker = Worker(Path("unused"), 1, "s3cret", {})
    worker.authorize(request(authorization="Bearer s3cret"))
    for headers in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "Bearer "}, {"authorization": "Bearer ü"}):
        with pytest.raises(Refused, match="no key, or a wrong one"):
            worker.authorize(request(**headers))
    Worker(Path("unused"), 1, None, {}).authorize(request())


def test_an_empty_queue_is_waited_at() -> None:
    waits = list[float | None]()

    class Counted(Queue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waits.append(timeout if block else None)
            return super().get(block, 0.01 if block else None)

    queue = Counted()
    patient = Patient(queue)
    for _ in range(2):
        with pytest.raises(Empty):
            patient.get_nowait()
    queue.put(1)
    queue.put(2)
    assert [patient.get_nowait(), patient.get_nowait()] == [1, 2]
    with pytest.raises(Empty):
        patient.get_nowait()
    assert waits == [1.0, 1.0, 1.0, None, None]


def test_nothing_to_tell_is_not_sent() -> None:
    sent = list[Any]()
    transport = SimpleNamespace(send=lambda item, consumer_id: sent.append(item))
    Loop().put_response(transport, 0, "a", None, "OK", "STREAMING")
    Loop().put_response(transport, 0, "a", "b", "OK", "STREAMING")
    assert len(sent) == 1


def test_what_was_started_wrongly_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omnihuman.serving.worker.end_with_parent", lambda: None)
    log = logging.getLogger("litserve.loops.loops")
    monkeypatch.setattr(log, "disabled", False)
    with pytest.raises(ValueError, match="holds no finished run"):
        Worker(tmp_path, 1, None, {}).setup("cpu")
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no finished run") and log.disabled
