"""The model of a process: batches of questions -> replies to their clients."""

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from omnihuman.data.messages import truncate_at_stops
from omnihuman.data.record import BadSample
from omnihuman.serving.completions import Question
from omnihuman.serving.pool import Reply
from omnihuman.serving.process import end_with_parent
from omnihuman.serving.uploads import RequestError, clean_message

if TYPE_CHECKING:
    from omnihuman.inference.answer import Answer, Prompt
    from omnihuman.inference.answerer import Answerer

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A question with its position in the batch, and its prompt."""

    position: int
    question: Question
    prompt: "Prompt"


def run_worker(connection: Connection, device: str, *, config: DictConfig) -> None:
    """Load a model and answer questions, as a process of ``Pool``.

    Args:
        connection: to the pool.
        device: of the model.
        config: of the verb.
    """
    import transformers

    from omnihuman.inference.answerer import Answerer

    os.setpgrp()  # signals of the terminal end the server, which then ends this process
    end_with_parent()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        answerer = Answerer.from_config(config, device)
    except ValueError as error:  # of the user
        connection.send(str(error))
        return
    answerer.answer("Hello.", view="text", max_new_tokens=1)  # the first answer is slow, and may fail
    connection.send(None)
    worker = Worker(answerer)
    while True:
        for answer in worker.answer(connection.recv()):
            connection.send(answer)
        connection.send(None)


class Worker:
    """Answers questions with a model.

    Args:
        answerer: the model.
    """

    def __init__(self, answerer: "Answerer") -> None:
        self.answerer = answerer

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Yield replies with the position of their question; the last one to each has an ``end`` or an ``error``.

        Questions with the same options are answered together. Streamed answers are generated one by one, and so are
        samples from a seed, since the samples of a batch depend on each other.
        """
        jobs: list[Job] = []
        for position, question in enumerate(questions):
            if not question.folder.is_dir():  # the client has left
                continue
            try:
                jobs.append(self._build_job(position, question))
            except Exception as error:
                yield position, _build_error(error, question)
        yield from self._answer_jobs(jobs)

    def _build_job(self, position: int, question: Question) -> Job:
        """Decode the media of a question, and limit its answer to the model's context."""
        llm = self.answerer.model.llm
        prompt = self.answerer.build_prompt(question.record, question.view)
        room = getattr(llm.model.config, "max_position_embeddings", 2**31) - prompt.length
        if room < self._count_choice_tokens(question):
            message = f"messages: {prompt.length} tokens leave no room for an answer."
            raise RequestError("context_length_exceeded", message)
        max_new_tokens = min(question.generation_kwargs["max_new_tokens"], room)
        generation_kwargs = {**question.generation_kwargs, "max_new_tokens": max_new_tokens}
        return Job(position, replace(question, generation_kwargs=generation_kwargs), prompt)

    def _count_choice_tokens(self, question: Question) -> int:
        """Return the number of tokens of the longest choice, 1 without choices.

        Raises:
            RequestError: a choice contains a special token.
        """
        if question.choices is None:
            return 1
        llm = self.answerer.model.llm
        ids = [llm.tokenizer.encode(label, add_special_tokens=False) for label in question.choices.labels]
        if {*llm.tokenizer.all_special_ids}.intersection(itertools.chain(*ids)):
            raise RequestError("special_token_in_text", "response_format: a choice contains a special token.")
        return max(map(len, ids))

    def _answer_jobs(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Reply]]:
        for (_, is_alone), group in itertools.groupby(sorted(jobs, key=_batch_key), key=_batch_key):
            batch = list(group)
            if not is_alone:
                yield from self._answer_batch(batch)
                continue
            for job in batch:
                if job.question.stream:
                    yield from self._stream_answer(job)
                else:
                    yield from self._answer_batch([job])

    def _answer_batch(self, batch: Sequence[Job]) -> Iterator[tuple[int, Reply]]:
        """Answer questions with the same options together, or one by one if that fails."""
        first = batch[0].question
        try:
            answers = self._choose(batch) if first.choices else self._generate(batch)
        except Exception as error:
            if len(batch) == 1:
                yield batch[0].position, _build_error(error, first)
                return
            logger.warning("a batch of %d questions failed (%s); answering them one by one", len(batch), error)
            for job in batch:
                yield from self._answer_batch([job])
            return
        for job, answer in zip(batch, answers, strict=True):
            text = truncate_at_stops(answer.text, job.question.stops)
            yield job.position, self._build_final_reply(text, answer, job, len(batch))

    def _generate(self, batch: Sequence[Job]) -> list["Answer"]:
        from transformers import StoppingCriteriaList

        first = batch[0].question
        criteria = StoppingCriteriaList([_stop_abandoned([job.question for job in batch])])
        prompts, kwargs = [job.prompt for job in batch], first.generation_kwargs
        return self.answerer.answer_prompts(prompts, seed=first.seed, stopping_criteria=criteria, **kwargs)

    def _choose(self, batch: Sequence[Job]) -> list["Answer"]:
        options = [job.question.choices.labels for job in batch if job.question.choices]
        return self.answerer.choose([job.prompt for job in batch], options)

    def _stream_answer(self, job: Job) -> Iterator[tuple[int, Reply]]:
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
                    yield job.position, {"text": text[num_sent:end]}
                    num_sent = end
        except Exception as error:
            yield job.position, _build_error(error, question)
            return
        finally:
            stream.close()
        text = truncate_at_stops(stream.answer.text, question.stops)
        reply = self._build_final_reply(text, stream.answer, job)
        yield job.position, {**reply, "text": text[num_sent:]}

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
        if question.choices:
            text = question.choices.encode(answer.text)
            more |= _describe_choices(question.choices.labels, answer.log_probs)
        reason = "stop" if is_stopped or answer.finished else "length"
        return {"text": text, "end": {"reason": reason, "usage": usage, "more": more}}

    def _count_tokens(self, answer: "Answer", question: Question) -> int:
        """Count the tokens up to the first stop; tokens after it are not charged."""
        texts = self.answerer.model.llm.decode([answer.ids[:count] for count in range(answer.tokens + 1)])
        for count, text in enumerate(texts):
            if truncate_at_stops(text, question.stops) != text:
                return count
        return answer.tokens


def _batch_key(job: Job) -> tuple[str, bool]:
    """Return a key that questions of one batch share, and True if a question must be answered alone."""
    if job.question.choices:
        return "choices", False
    kwargs = job.question.generation_kwargs
    is_seeded = job.question.seed is not None and "do_sample" in kwargs
    return repr(sorted(kwargs.items())), job.question.stream or is_seeded


def _describe_choices(labels: Sequence[str], log_probs: Sequence[float]) -> dict[str, dict[str, float]]:
    """Return the log-probability of each label, and its probability if the answer is one of the labels.

    >>> _describe_choices(["a", "b"], [-1.0, -1.0])
    {'log_probs': {'a': -1.0, 'b': -1.0}, 'probabilities': {'a': 0.5, 'b': 0.5}}
    """
    largest = max(log_probs)  # subtracted, so that no exponential underflows
    odds = [math.exp(log_prob - largest) for log_prob in log_probs]
    probabilities = [round(value / sum(odds), 6) for value in odds]
    return {
        "log_probs": dict(zip(labels, log_probs, strict=True)),
        "probabilities": dict(zip(labels, probabilities, strict=True)),
    }


def _stop_abandoned(questions: Sequence[Question]) -> Callable[..., Any]:
    """Return a stopping criterion that ends the answers of clients who have left."""
    import torch

    def is_abandoned(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([not question.folder.is_dir() for question in questions], device=input_ids.device)

    return is_abandoned


def _clean_message(message: str, question: Question) -> str:
    return clean_message(message, dict.fromkeys(question.record.files, "the file"))


def _build_error(error: Exception, question: Question) -> Reply:
    """Build the reply to a question that failed; an unexpected error goes to the log only.

    Raises:
        torch.AcceleratorError: the device answers nothing more: the pool starts another process.
    """
    import torch

    if isinstance(error, torch.AcceleratorError):
        raise error
    if not isinstance(error, ValueError):
        logger.exception("a question could not be answered", exc_info=error)
        error = RequestError("server_error", "the model could not answer; see the server's log.", 500)
    elif not isinstance(error, RequestError):
        reason = error.reason if isinstance(error, BadSample) else "bad_request"
        if reason == "too_long":
            reason = "context_length_exceeded"  # OpenAI's name
        error = RequestError(reason, f"messages: {_clean_message(str(error), question)}")
    return {"error": {"code": error.code, "message": str(error), "status": error.status}}
