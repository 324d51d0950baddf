"""The process that holds the model: questions of strangers -> what to tell each of them, several asked at once."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import fastapi
from litserve import LitAPI
from litserve.loops.streaming_loops import BatchedStreamingLoop

from omnihuman.data.messages import cut
from omnihuman.data.record import BadSample
from omnihuman.serving.completions import Question
from omnihuman.serving.process import end_with_parent
from omnihuman.serving.uploads import Refused, plain

if TYPE_CHECKING:
    from omnihuman.evaluation.answerer import Answer, Answerer, Prompt

logger = logging.getLogger(__name__)
Said = dict[str, Any]
"""A message to one who waits: ``text`` and, with the last, ``end``; or an ``error``."""


class Worker(LitAPI):
    """A finished run behind LitServe's queue.

    Args:
        folder: of the model.
        batch_size: questions that are asked at once.
        key: that every request must bring; ``None`` for none.
        how: further arguments of ``Answerer.of_run``.
        **given: of ``LitAPI``.
    """

    def __init__(self, folder: Path, batch_size: int, key: str | None, how: Mapping[str, Any], **given: Any) -> None:
        super().__init__(max_batch_size=batch_size, loop=Loop(), **given)
        self.folder, self.key, self.how = folder, key, dict(how)
        self.answerer: Answerer

    def setup(self, device: str) -> None:
        """Load the model in this process."""
        import transformers

        from omnihuman.evaluation.answerer import Answerer

        end_with_parent()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            self.answerer = Answerer.of_run(self.folder, device=device, **self.how)
        except ValueError as error:  # of whoever started it: one line, where LitServe would show the way to it
            print(f"error: {error}", file=sys.stderr)
            logging.getLogger("litserve.loops.loops").disabled = True
            raise

    def authorize(self, request: fastapi.Request) -> None:
        """Let a request in that brings the key.

        Raises:
            Refused: it does not.
        """
        import secrets

        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and not secrets.compare_digest(given.encode(), self.key.encode()):
            raise Refused("invalid_api_key", "the request brings no key, or a wrong one (Authorization: Bearer).", 401)

    def predict(self, x: Sequence[Question]) -> Iterator[list[Said | None]]:
        """Questions -> rows of messages, one place for each question; ``None`` where there is nothing to tell.

        Answers that are wanted whole are asked together where their options are the same; those that are wanted piece
        by piece come one after the other. What is sampled from a seed is asked alone: chance runs through a batch.
        """
        prompts = list[tuple[int, Question, "Prompt"]]()
        for number, question in enumerate(x):
            if question.folder.is_dir():  # somebody waits
                try:
                    prompts.append((number, *self._prompt(question)))
                except Exception as error:
                    yield _row(len(x), {number: _error(error, question)})
        for (_, alone), group in groupby(sorted(prompts, key=_likeness), key=_likeness):
            for together in [[one] for one in group] if alone else [list(group)]:
                for told in self._streamed(*together[0]) if together[0][1].stream else self._asked(together):
                    yield _row(len(x), told)

    def encode_response(self, output: Iterator[list[Said | None]]) -> Iterator[list[Said | None]]:  # type: ignore[override]
        """LitServe's hook; the messages are written where the answers are sent."""
        yield from output

    def _prompt(self, question: Question) -> "tuple[Question, Prompt]":
        """A question whose media are decoded, and whose answer has room behind it."""
        llm = self.answerer.model.llm
        prompt = self.answerer.prompt(question.record, question.modal)
        room = getattr(llm.model.config, "max_position_embeddings", 2**31) - prompt.length
        if room < 1:
            raise Refused("context_length_exceeded", f"messages: {prompt.length} tokens leave no room for an answer.")
        how = {**question.how, "max_new_tokens": min(question.how["max_new_tokens"], room)}
        return replace(question, how=how), prompt

    def _asked(self, together: "Sequence[tuple[int, Question, Prompt]]") -> Iterator[dict[int, Said]]:
        """Answers to questions with the same options, at once, or one by one where that fails."""
        from transformers import StoppingCriteriaList

        _, first, _ = together[0]
        left = StoppingCriteriaList([_left([question for _, question, _ in together])])
        try:
            prompts = [prompt for _, _, prompt in together]
            answers = self.answerer.ask(prompts, seed=first.seed, stopping_criteria=left, **first.how)
        except Exception as error:
            if len(together) == 1:
                yield {together[0][0]: _error(error, first)}
                return
            logger.warning("%d questions could not be asked at once (%s); one by one now", len(together), error)
            for one in together:
                yield from self._asked([one])
            return
        yield {
            number: self._end(cut(answer.text, question.stops), answer, question, prompt, len(together))
            for (number, question, prompt), answer in zip(together, answers, strict=True)
        }

    def _streamed(self, number: int, question: Question, prompt: "Prompt") -> Iterator[dict[int, Said]]:
        """An answer, piece by piece; nothing is sent that a stop may still take away."""
        stream = self.answerer.stream(prompt, seed=question.seed, **question.how)
        held, text, sent = max((len(stop) for stop in question.stops), default=1) - 1, "", 0
        try:
            for piece in stream:
                text = (text + piece) if sent else (text + piece).lstrip()
                if not question.folder.is_dir() or cut(text, question.stops) != text:
                    break
                safe = len(text[: len(text) - held].rstrip())
                if safe > sent:
                    yield {number: {"text": text[sent:safe]}}
                    sent = safe
        except Exception as error:
            yield {number: _error(error, question)}
            return
        finally:
            stream.close()
        whole = cut(stream.answer.text, question.stops)
        yield {number: {**self._end(whole, stream.answer, question, prompt), "text": whole[sent:]}}

    def _end(self, text: str, answer: "Answer", question: Question, prompt: "Prompt", batch: int = 1) -> Said:
        """The last message: what was said, why it ended, and what it took."""
        stopped, tokens = text != answer.text, answer.tokens
        if stopped:  # a stop came first; what was made behind it does not count
            texts = self.answerer.model.llm.texts([answer.ids[:count] for count in range(tokens + 1)])
            tokens = next((n for n, part in enumerate(texts) if cut(part, question.stops) != part), tokens)
        usage = {
            "prompt_tokens": prompt.length,
            "completion_tokens": tokens,
            "total_tokens": prompt.length + tokens,
        }
        notes = [_plain(note, question) for note in prompt.notes] + list(question.notes)
        more = {"weights": answer.weights, "notes": notes, "batch": batch, "seconds": round(answer.seconds, 3)}
        reason = "stop" if stopped or answer.finished else "length"
        return {"text": text, "end": {"reason": reason, "usage": usage, "more": more}}


class Loop(BatchedStreamingLoop):
    """LitServe's loop of batches, which waits for a question where it would ask the queue a thousand times a second.

    A batch is what has come while the one before was asked: nobody waits for others to come.
    """

    def __call__(self, lit_api: Any, device: Any, worker_id: Any, request_queue: Any, *rest: Any) -> None:
        super().__call__(lit_api, device, worker_id, Patient(request_queue), *rest)

    def put_response(
        self, transport: Any, response_queue_id: Any, uid: Any, response_data: Any, *rest: Any, **more: Any
    ) -> None:
        """Send what there is to tell."""
        if response_data is not None:
            super().put_response(transport, response_queue_id, uid, response_data, *rest, **more)


class Patient:
    """A queue that makes who has just found it empty wait."""

    def __init__(self, queue: Any) -> None:
        self._queue, self._was_empty = queue, True

    def get_nowait(self) -> Any:
        """The next item, after a second at most."""
        try:
            item = self._queue.get(timeout=1.0) if self._was_empty else self._queue.get_nowait()
        except Empty:
            self._was_empty = True
            raise
        self._was_empty = False
        return item


def _likeness(one: "tuple[int, Question, Prompt]") -> tuple[str, bool]:
    """What questions share that are asked together, and whether none may be."""
    _, question, _ = one
    seeded = question.seed is not None and "do_sample" in question.how
    return repr(sorted(question.how.items())), question.stream or seeded


def _left(questions: Sequence[Question]) -> Callable[..., Any]:
    """Ends the rows that nobody waits for any more."""
    import torch

    def gone(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([not question.folder.is_dir() for question in questions], device=input_ids.device)

    return gone


def _row(size: int, told: Mapping[int, Said]) -> list[Said | None]:
    return [told.get(number) for number in range(size)]


def _plain(said: str, question: Question) -> str:
    return plain(said, dict.fromkeys(question.record.files, "the file"))


def _error(error: Exception, question: Question) -> Said:
    if not isinstance(error, ValueError):
        logger.exception("a question could not be answered", exc_info=error)
        error = Refused("server_error", "the model could not answer; the server's log says why.", 500)
    elif not isinstance(error, Refused):
        reason = error.reason if isinstance(error, BadSample) else "bad_request"
        reason = "context_length_exceeded" if reason == "too_long" else reason  # OpenAI's word for it
        error = Refused(reason, f"messages: {_plain(str(error), question)}")
    return {"error": {"code": error.code, "message": str(error), "status": error.status}}
