"""The process that holds the model: batches of questions -> replies to their clients."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fastapi
from litserve import LitAPI
from litserve.loops.streaming_loops import BatchedStreamingLoop

from omnihuman.data.messages import truncate_at_stops
from omnihuman.data.record import BadSample
from omnihuman.serving.completions import Question
from omnihuman.serving.process import end_with_parent
from omnihuman.serving.uploads import RequestError, clean_message

if TYPE_CHECKING:
    from omnihuman.inference.answerer import Answer, Answerer, Prompt

logger = logging.getLogger(__name__)
Reply = dict[str, Any]
"""A message to a client: ``text`` and, in the last one, ``end``; or an ``error``."""


class Job(NamedTuple):
    """A question with its position in LitServe's batch, and its prompt."""

    position: int
    question: Question
    prompt: "Prompt"


class Worker(LitAPI):
    """A model behind LitServe's queue.

    Args:
        folder: of the model.
        batch_size: largest number of questions that are answered together.
        key: API key that every request must send; ``None`` for none.
        model_kwargs: further arguments of ``Answerer.load``.
        **kwargs: of ``LitAPI``.
    """

    def __init__(
        self, folder: Path, batch_size: int, key: str | None, model_kwargs: Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(max_batch_size=batch_size, loop=Loop(), **kwargs)
        self.folder, self.key, self.model_kwargs = folder, key, dict(model_kwargs)
        self.answerer: Answerer

    def setup(self, device: str) -> None:
        """Load the model in this process."""
        import transformers

        from omnihuman.inference.answerer import Answerer

        end_with_parent()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            self.answerer = Answerer.load(self.folder, device=device, **self.model_kwargs)
        except ValueError as error:  # a user's error: one line instead of LitServe's traceback
            print(f"error: {error}", file=sys.stderr)
            logging.getLogger("litserve.loops.loops").disabled = True
            raise

    def authorize(self, request: fastapi.Request) -> None:
        """Check the API key of a request.

        Raises:
            RequestError: the key is missing or wrong.
        """
        import secrets

        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and not secrets.compare_digest(key.encode(), self.key.encode()):
            message = "missing or wrong API key; send the header Authorization: Bearer <key>."
            raise RequestError("invalid_api_key", message, 401)

    def predict(self, x: Sequence[Question]) -> Iterator[list[Reply | None]]:
        """Yield one list of replies after the other, with a place for every question; ``None`` means no reply yet.

        Questions with the same options are answered together. Streamed answers are generated one by one, and so are
        samples from a seed, since the samples of a batch depend on each other.
        """
        jobs: list[Job] = []
        for position, question in enumerate(x):
            if not question.folder.is_dir():  # the client has left
                continue
            try:
                jobs.append(self._build_job(position, question))
            except Exception as error:
                yield _spread_replies(len(x), {position: _build_error(error, question)})
        for replies in self._answer_jobs(jobs):
            yield _spread_replies(len(x), replies)

    def encode_response(self, output: Iterator[list[Reply | None]]) -> Iterator[list[Reply | None]]:  # type: ignore[override]
        """LitServe's hook; replies are encoded by the endpoint."""
        yield from output

    def _build_job(self, position: int, question: Question) -> Job:
        """Decode the media of a question, and limit its answer to the model's context."""
        llm = self.answerer.model.llm
        prompt = self.answerer.build_prompt(question.record, question.view)
        room = getattr(llm.model.config, "max_position_embeddings", 2**31) - prompt.length
        if room < 1:
            message = f"messages: {prompt.length} tokens leave no room for an answer."
            raise RequestError("context_length_exceeded", message)
        max_new_tokens = min(question.generation_kwargs["max_new_tokens"], room)
        generation_kwargs = {**question.generation_kwargs, "max_new_tokens": max_new_tokens}
        return Job(position, replace(question, generation_kwargs=generation_kwargs), prompt)

    def _answer_jobs(self, jobs: Sequence[Job]) -> Iterator[dict[int, Reply]]:
        for (_, is_alone), group in groupby(sorted(jobs, key=_batch_key), key=_batch_key):
            batch = list(group)
            if not is_alone:
                yield from self._answer_batch(batch)
                continue
            for job in batch:
                if job.question.stream:
                    yield from self._stream_answer(job)
                else:
                    yield from self._answer_batch([job])

    def _answer_batch(self, batch: Sequence[Job]) -> Iterator[dict[int, Reply]]:
        """Answer questions with the same options together, or one by one if that fails."""
        from transformers import StoppingCriteriaList

        first = batch[0].question
        criteria = StoppingCriteriaList([_stop_abandoned([job.question for job in batch])])
        try:
            prompts = [job.prompt for job in batch]
            kwargs = first.generation_kwargs
            answers = self.answerer.answer_prompts(prompts, seed=first.seed, stopping_criteria=criteria, **kwargs)
        except Exception as error:
            if len(batch) == 1:
                yield {batch[0].position: _build_error(error, first)}
                return
            logger.warning("a batch of %d questions failed (%s); answering them one by one", len(batch), error)
            for job in batch:
                yield from self._answer_batch([job])
            return
        replies: dict[int, Reply] = {}
        for job, answer in zip(batch, answers, strict=True):
            text = truncate_at_stops(answer.text, job.question.stops)
            replies[job.position] = self._build_final_reply(text, answer, job, len(batch))
        yield replies

    def _stream_answer(self, job: Job) -> Iterator[dict[int, Reply]]:
        """Yield an answer in pieces; text that may be the start of a stop is held back."""
        question = job.question
        stream = self.answerer.stream(job.prompt, seed=question.seed, **question.generation_kwargs)
        num_held = max((len(stop) for stop in question.stops), default=1) - 1
        text, num_sent = "", 0
        try:
            for piece in stream:
                text += piece
                if not num_sent:
                    text = text.lstrip()
                if not question.folder.is_dir() or truncate_at_stops(text, question.stops) != text:
                    break
                end = len(text[: len(text) - num_held].rstrip())
                if end > num_sent:
                    yield {job.position: {"text": text[num_sent:end]}}
                    num_sent = end
        except Exception as error:
            yield {job.position: _build_error(error, question)}
            return
        finally:
            stream.close()
        text = truncate_at_stops(stream.answer.text, question.stops)
        reply = self._build_final_reply(text, stream.answer, job)
        yield {job.position: {**reply, "text": text[num_sent:]}}

    def _build_final_reply(self, text: str, answer: "Answer", job: Job, batch_size: int = 1) -> Reply:
        """Build the last reply: the text, the reason of its end, and its cost."""
        prompt, question = job.prompt, job.question
        is_stopped = text != answer.text
        num_tokens = self._count_tokens(answer, question) if is_stopped else answer.tokens
        usage = {
            "prompt_tokens": prompt.length,
            "completion_tokens": num_tokens,
            "total_tokens": prompt.length + num_tokens,
        }
        notes = [_clean_message(note, question) for note in prompt.notes] + list(question.notes)
        more = {"weights": answer.weights, "notes": notes, "batch": batch_size, "seconds": round(answer.seconds, 3)}
        reason = "stop" if is_stopped or answer.finished else "length"
        return {"text": text, "end": {"reason": reason, "usage": usage, "more": more}}

    def _count_tokens(self, answer: "Answer", question: Question) -> int:
        """Count the tokens up to the first stop; tokens after it are not charged."""
        texts = self.answerer.model.llm.decode([answer.ids[:count] for count in range(answer.tokens + 1)])
        for count, text in enumerate(texts):
            if truncate_at_stops(text, question.stops) != text:
                return count
        return answer.tokens


class Loop(BatchedStreamingLoop):
    """LitServe's loop of batches, which blocks on an empty queue instead of polling it a thousand times a second.

    A batch holds the questions that arrived during the batch before it; it waits for no further ones.
    """

    def __call__(self, lit_api: Any, device: Any, worker_id: Any, request_queue: Any, *args: Any) -> None:
        super().__call__(lit_api, device, worker_id, BlockingQueue(request_queue), *args)

    def put_response(
        self, transport: Any, response_queue_id: Any, uid: Any, response_data: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Send a reply, if there is one."""
        if response_data is not None:
            super().put_response(transport, response_queue_id, uid, response_data, *args, **kwargs)


class BlockingQueue:
    """A queue whose ``get_nowait`` blocks if it was empty the last time."""

    def __init__(self, queue: Any) -> None:
        self._queue, self._was_empty = queue, True

    def get_nowait(self) -> Any:
        """Return the next item, after a second at most."""
        block = self._was_empty
        self._was_empty = True  # stays if the next line raises Empty
        item = self._queue.get(block=block, timeout=1.0)
        self._was_empty = False
        return item


def _batch_key(job: Job) -> tuple[str, bool]:
    """Return a key that questions of one batch share, and True if a question must be answered alone."""
    kwargs = job.question.generation_kwargs
    is_seeded = job.question.seed is not None and "do_sample" in kwargs
    return repr(sorted(kwargs.items())), job.question.stream or is_seeded


def _stop_abandoned(questions: Sequence[Question]) -> Callable[..., Any]:
    """Return a stopping criterion that ends the answers of clients who have left."""
    import torch

    def is_abandoned(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([not question.folder.is_dir() for question in questions], device=input_ids.device)

    return is_abandoned


def _spread_replies(size: int, replies: Mapping[int, Reply]) -> list[Reply | None]:
    return [replies.get(position) for position in range(size)]


def _clean_message(message: str, question: Question) -> str:
    return clean_message(message, dict.fromkeys(question.record.files, "the file"))


def _build_error(error: Exception, question: Question) -> Reply:
    """Build the reply to a question that failed; an unexpected error goes to the log only."""
    if not isinstance(error, ValueError):
        logger.exception("a question could not be answered", exc_info=error)
        error = RequestError("server_error", "the model could not answer; see the server's log.", 500)
    elif not isinstance(error, RequestError):
        reason = error.reason if isinstance(error, BadSample) else "bad_request"
        if reason == "too_long":
            reason = "context_length_exceeded"  # OpenAI's name
        error = RequestError(reason, f"messages: {_clean_message(str(error), question)}")
    return {"error": {"code": error.code, "message": str(error), "status": error.status}}
