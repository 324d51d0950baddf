"""A trained run that can be asked."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from omnihuman.build import build
from omnihuman.data.collate import Packable, pack
from omnihuman.data.dataset import Samples
from omnihuman.data.module import OmniData
from omnihuman.data.record import Record
from omnihuman.evaluation.official import DTYPE, as_released
from omnihuman.model.omni import OmniModel
from omnihuman.training.finished import load_model
from omnihuman.training.runs import run_folder
from omnihuman.types import Batch, Sample

SENSES = {"frames": "V", "faces": "F", "waveform": "A"}
"""What an encoder reads -> its letter in the papers' tables."""

FILLS = {"frames": "video", "faces": "video", "waveform": "audio"}
"""What an encoder reads -> the slot that it helps to fill."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: its words.
        tokens: how many it took.
        weights: fusion -> stream -> weight, of the fusions that weigh.
        log_probs: of the options, where they were asked for.
        ids: its tokens, without the mark that ends it.
        prompt_tokens: of the question, media included.
        seconds: that the batch took in which it was asked.
        finished: the model ended it; ``False`` where ``max_new_tokens`` did.
    """

    text: str
    tokens: int
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    log_probs: tuple[float, ...] = ()
    ids: tuple[int, ...] = ()
    prompt_tokens: int = 0
    seconds: float = 0.0
    finished: bool = True


@dataclass(frozen=True)
class Prompt:
    """A question whose media are decoded.

    Attributes:
        record: as it is asked: without the slots that nothing fills.
        sample: frames, faces, sound and their seconds.
        counts: tokens of each slot.
        length: tokens of the whole prompt.
        notes: what was wanted and is not there.
        packable: its signals and ids.
    """

    record: Record
    sample: Sample
    counts: Mapping[str, int]
    length: int
    notes: tuple[str, ...]
    packable: Packable


class Answerer:
    """A model with the data path it was trained with.

    Args:
        model: on its device.
        data: connected to the model.
        name: of the run, for messages.
    """

    def __init__(self, model: OmniModel, data: OmniData, name: str = "the run") -> None:
        self.model, self.data, self.name = model.eval(), data, name
        self._lock = threading.Lock()  # fusions remember the weights of the last batch
        self._blanks: Mapping[str, torch.Tensor] = {}

    @classmethod
    def of_run(
        cls,
        folder: Path,
        *,
        merge_lora: bool = False,
        faces: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        official: bool = False,
    ) -> "Answerer":
        """The model of a finished run or of a converted checkpoint.

        Args:
            folder: of the model.
            merge_lora: fold LoRA into the weights first.
            faces: another source of faces than the run's own: ``whole``, ``none`` ...
            device: where to; ``None`` for the first GPU or the CPU.
            dtype: of the parameters, ``float16`` ...; ``None`` leaves what they are.
            official: ask as HumanOmni's released inference does.

        Raises:
            ValueError: the folder holds no finished run, or an option does not hold.
        """
        dtype = DTYPE if official and dtype is None else dtype
        change = as_released if official else None
        config, model = load_model(folder, merge_lora=merge_lora, dtype=dtype, change=change)
        if faces is not None:
            config.data.face.source = faces
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        data: OmniData = build(config.data, make=None)
        data.connect(model.transforms, model.layouts, model.llm.tokenizer, model.llm.chat, model.frozen)
        return cls(model, data, folder.name)

    @classmethod
    def of_config(cls, config: DictConfig, device: str | None = None) -> "Answerer":
        """The model that a verb's config names, opened as it says (``how_of``).

        Raises:
            ValueError: see ``of_run``.
        """
        return cls.of_run(run_folder(config), device=device, **how_of(config))

    @property
    def senses(self) -> str:
        """The letters of what the model reads: ``VAF``, ``VA`` ..."""
        read = {SENSES[reads] for reads, _ in self.model.transforms.values() if reads in SENSES}
        return "".join(letter for letter in "VAF" if letter in read)

    @property
    def slots(self) -> set[str]:
        """The slots that the model can fill."""
        return {FILLS[reads] for reads, _ in self.model.transforms.values() if reads in FILLS}

    def plan(self, records: Sequence[Record], views: Sequence[str] = ()) -> Samples:
        """Questions whose size is known; what cannot be asked is in ``skipped`` with the reason."""
        return self.data.questions(records, views)

    def prompt(self, record: Record, modal: str | None = None) -> Prompt:
        """A question, its media decoded, as far as the model reads them.

        Args:
            record: of the question.
            modal: what of its media is used; ``None`` for all that the file has and the model reads.

        Raises:
            BadSample: the file cannot be used.
            ValueError: there is no such modal, or neither the file nor the model can give it.
        """
        asked, unread = record.asked(modal, self.slots, self.name)
        samples = self.data.question(asked)
        planned = samples.planned[0]
        sample = samples.sample(planned, {reads for reads, _ in samples.transforms.values()})
        notes = []
        if lost := sorted({*asked.slots} - {*planned.record.slots}):
            notes.append(f"{record.file.name} has no {' and no '.join(lost)}; answered without")
        if unread:
            notes.append(f"{self.name} reads no {' and no '.join(unread)}; answered without")
        if samples.without_boxes:
            notes.append(
                f"nothing says where the faces of {record.file.name} are; faces=whole takes whole frames for them"
            )
        packable = samples.packable(planned, sample)
        self._blanks = self._blanks or samples.blanks
        return Prompt(planned.record, sample, planned.counts, planned.length, tuple(notes), packable)

    def batch(self, prompts: Sequence[Prompt]) -> Batch:
        """Several questions as one batch."""
        return pack([prompt.packable for prompt in prompts], self._blanks, step_targets=0)

    def ask(self, prompts: Sequence[Prompt], *, seed: int | None = None, **how: Any) -> list[Answer]:
        """The answers to questions, asked at once.

        Args:
            prompts: the questions.
            seed: of sampling; what is sampled depends on the whole batch.
            how: of transformers' ``generate``: ``max_new_tokens``, ``do_sample`` ...
        """
        answers = self.answer(self.batch(prompts), seed=seed, **how)
        return [
            replace(
                answer,
                weights={
                    name: weights
                    for name, weights in answer.weights.items()
                    if prompt.counts.get(self.model.fusion(name).output, 1)  # in a batch all fusions ran, for all rows
                },
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def stream(self, prompt: Prompt, *, seed: int | None = None, **how: Any) -> "Stream":
        """The answer to one question, piece by piece."""
        return Stream(self, prompt, {"seed": seed, **how})

    def answer(
        self, batch: Batch, options: Sequence[Sequence[str]] = (), *, seed: int | None = None, **how: Any
    ) -> list[Answer]:
        """The answers to a batch of prompts.

        Args:
            batch: of ``Samples`` with prompts.
            options: of every sample the answers whose log-probabilities are wanted.
            seed: of sampling.
            how: of transformers' ``generate``: ``max_new_tokens``, ``do_sample`` ...
        """
        started = time.perf_counter()
        batch = batch.to(next(self.model.parameters()).device)
        with self._lock, seeded(seed):
            rows = self.model.answer_ids(batch, frugal=True, **how).tolist()
            weighed = self.model.weighed()
            log_probs = self.model.option_log_probs(batch, options) if any(options) else [()] * len(rows)
        marks, lengths = {*self.model.llm.end_ids}, batch.bounds.diff().tolist()
        ends = [next((place for place, token in enumerate(row) if token in marks), None) for row in rows]
        ids = [tuple(row[:end]) for row, end in zip(rows, ends, strict=True)]
        texts, seconds = self.model.llm.texts(ids), time.perf_counter() - started
        return [
            Answer(
                text,
                len(ids[row]),
                {
                    name: {
                        stream: round(weight, 4)
                        for stream, weight in zip(self.model.fusion(name).inputs, weights[row].tolist(), strict=True)
                    }
                    for name, weights in weighed.items()
                },
                tuple(round(value, 4) for value in log_probs[row]),
                ids[row],
                lengths[row],
                seconds,
                ends[row] is not None,
            )
            for row, text in enumerate(texts)
        ]


def how_of(config: DictConfig) -> dict[str, Any]:
    """What a verb's config says about how its model is opened, as arguments of ``Answerer.of_run``."""
    named = {"merge_lora": "merge_lora", "faces": "faces", "dtype": "dtype", "official": "official_prompt"}
    return {ours: config[key] for ours, key in named.items() if key in config}


class Stream(Iterator[str]):
    """The pieces of one answer as they come; then ``answer`` is the whole.

    Args:
        answerer: who is asked.
        prompt: the question.
        how: options of ``Answerer.answer``.

    Raises:
        Exception: what went wrong in the model, when the next piece is asked for.
    """

    answer: Answer

    def __init__(self, answerer: Answerer, prompt: Prompt, how: Mapping[str, Any]) -> None:
        from transformers import TextIteratorStreamer

        def closed(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), self._closed, device=input_ids.device)

        self._closed, self._error = False, list[BaseException]()
        tokenizer: Any = answerer.model.llm.tokenizer
        self._pieces = TextIteratorStreamer(tokenizer, skip_prompt=False, skip_special_tokens=True)

        def run() -> None:
            try:
                batch = answerer.batch([prompt])
                self.answer = answerer.answer(batch, streamer=self._pieces, stopping_criteria=[closed], **how)[0]
            except BaseException as error:  # it is raised where the pieces are read
                self._error.append(error)
                self._pieces.end()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def __next__(self) -> str:
        try:
            return str(next(self._pieces))
        except StopIteration:
            self._thread.join()
            if self._error:
                raise self._error[0] from None
            raise

    def close(self) -> None:
        """End the answer here: nobody reads it any more."""
        self._closed = True
        self._thread.join()


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Sampling that a seed decides, and that leaves the state of chance outside as it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
