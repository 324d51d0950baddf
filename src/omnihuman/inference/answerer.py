"""A trained model that answers questions about files."""

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from omnihuman.build import build
from omnihuman.data.collate import pack
from omnihuman.data.dataset import Samples
from omnihuman.data.messages import GENERATION_KEYS, parse_generation_options
from omnihuman.data.module import OmniData
from omnihuman.data.record import Record
from omnihuman.encoder.weights import quiet_loading
from omnihuman.inference.answer import Answer, FusionWeights, Prompt
from omnihuman.inference.prompting import Prompting, choose_max_new_tokens, choose_prompting
from omnihuman.inference.question import build_question
from omnihuman.llm.quantized import check_quantization, quantize_linears
from omnihuman.modality import View
from omnihuman.model.omni import OmniModel
from omnihuman.training.model_folder import load_model
from omnihuman.training.run_search import find_run_folder
from omnihuman.types import Batch

OPTIONS = {
    "merge_lora": "merge_lora",
    "faces": "faces",
    "dtype": "dtype",
    "official": "official_prompt",
    "quantize": "quantize",
}
"""Argument of ``Answerer.load`` -> key of a verb's config."""

MAX_NEW_TOKENS = 128
"""Maximum length of an answer, where neither the user nor the model's authors give one."""


class Answerer:
    """A model with the data path that it was trained with.

    Args:
        model: on its device.
        data: connected to the model.
        name: of the run, for messages.
        prompting: how the model is asked, ``None`` for the way in which it was trained.
        is_sharded: the parameters are those of a rank: all ranks get the same questions and answer them in step.
    """

    def __init__(
        self,
        model: OmniModel,
        data: OmniData,
        name: str = "the run",
        prompting: Prompting | None = None,
        *,
        is_sharded: bool = False,
    ) -> None:
        self.model, self.data, self.name, self.prompting = model.eval(), data, name, prompting
        self.is_sharded = is_sharded
        self._lock = threading.Lock()  # fusions store the weights of the last batch
        self._blanks: Mapping[str, torch.Tensor] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        merge_lora: bool = False,
        faces: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        official: bool | str | None = None,
        quantize: str | None = None,
    ) -> "Answerer":
        """Load the model of a run folder or of a converted checkpoint.

        Args:
            folder: of the model.
            merge_lora: merge LoRA into the weights first.
            faces: source of faces if it is not the run's own: ``whole``, ``none`` ...
            device: ``None`` for the first GPU or the CPU.
            dtype: of the parameters, ``float16`` ...; ``None`` for that of the weights.
            official: ask as the authors of the checkpoint do: ``None`` if nobody has trained it; true, false, or the
                name of a yaml in ``conf/prompting``.
            quantize: ``8bit`` or ``4bit`` weights of the language model's linear layers, after LoRA is merged.

        Raises:
            ValueError: the folder has no complete run, or an option is invalid.
        """
        check_quantization(quantize)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        prompting = choose_prompting(folder, official)
        if prompting is not None and device.startswith("cuda"):
            dtype = dtype or prompting.dtype
        change = None if prompting is None else prompting.apply
        merge_lora = merge_lora or quantize is not None
        with quiet_loading():
            config, model = load_model(folder, merge_lora=merge_lora, dtype=dtype, change=change)
        if faces is not None:
            config.data.face.region = faces
        if quantize is not None:
            quantize_linears(model.llm.model, quantize, device)
        model.to(device)
        data: OmniData = build(config.data)
        data.connect(
            model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template, model.frozen_encoders
        )
        return cls(model, data, folder.name, prompting)

    @classmethod
    def from_config(cls, config: DictConfig, device: str | None = None) -> "Answerer":
        """Load the model that the config of a verb names.

        Raises:
            ValueError: see ``load``.
        """
        options = read_options(config)
        return cls.load(find_run_folder(config), device=device, **options)

    @property
    def view(self) -> View:
        """The modalities that the model reads."""
        return View.of_fields(field for field, _ in self.model.transforms.values())

    @property
    def max_new_tokens(self) -> int:
        """The maximum length of an answer where the user gives none."""
        return choose_max_new_tokens(self.prompting, MAX_NEW_TOKENS)

    def phrase(self, record: Record) -> Record:
        """Return a record in the question form of the model."""
        return record if self.prompting is None else self.prompting.phrase(record)

    def answer(
        self,
        instruction: str,
        *,
        video: str | Path | None = None,
        image: str | Path | Sequence[str | Path] | None = None,
        audio: str | Path | None = None,
        view: str | None = None,
        start: float | None = None,
        end: float | None = None,
        seed: int | None = None,
        **generation_options: Any,
    ) -> Answer:
        """Answer one question about at most one file; ``str()`` of the answer is its text.

        Args:
            instruction: the question.
            video: a file with frames, with or without audio.
            image: an image, or several.
            audio: a file with audio.
            view: the modalities to use: ``VAF``, ``VA``, ``V`` ...; ``text`` without a file; ``None`` for all.
            start: of the clip, in seconds.
            end: of the clip, in seconds.
            seed: of sampling.
            generation_options: ``max_new_tokens`` (that of the model's authors, or 128), ``temperature``, ``top_p`` ...

        Raises:
            ValueError: the file cannot be used, an option is unknown, or the view leaves nothing that the model reads.
        """
        unknown = sorted(generation_options.keys() - {*GENERATION_KEYS})
        if unknown:
            raise ValueError(f"unknown option {', '.join(unknown)}; expected {', '.join(GENERATION_KEYS)}.")
        generation_kwargs, _, _ = parse_generation_options(
            {"max_new_tokens": self.max_new_tokens, **generation_options}
        )
        prompt = self.read_question(instruction, video=video, image=image, audio=audio, view=view, start=start, end=end)
        return self.answer_prompts([prompt], seed=seed, **generation_kwargs)[0]

    def read_question(
        self,
        instruction: str,
        *,
        video: str | Path | None = None,
        image: str | Path | Sequence[str | Path] | None = None,
        audio: str | Path | None = None,
        view: str | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Prompt:
        """Return one question about at most one file with its decoded media; the arguments are those of ``answer``.

        Raises:
            ValueError: the file cannot be used, or the view leaves nothing that the model reads.
        """
        files = {"video": video, "image": image, "audio": audio}
        question: dict[str, Any] = {}
        for key, file in files.items():
            question[key] = str(file) if isinstance(file, str | Path) else file and [str(path) for path in file]
        if view is None and not any(files.values()):
            view = "text"
        question |= {"instruction": instruction, "view": view}
        record = build_question({**question, "start": start, "end": end}, location="answer")
        return self.build_prompt(record, None if view is None else View.parse(view))

    def plan_questions(self, records: Sequence[Record]) -> Samples:
        """Return questions as planned samples; those that cannot be used are in ``skipped`` with the reason."""
        return self.data.plan_questions([self.phrase(record) for record in records])

    def build_prompt(self, record: Record, view: View | None = None) -> Prompt:
        """Decode the media of a question, as far as the model reads them.

        Args:
            record: of the question.
            view: the part of the media to use; ``None`` for all that the file has and the model reads.

        Raises:
            BadSample: the file cannot be used.
            ValueError: the view leaves nothing that the file has and the model reads.
        """
        question, unread = self.phrase(record).prepare(view, self.view, self.name)
        samples = self.data.plan_question(question)
        planned = samples.planned[0]
        sample = samples.sample(planned)
        missing = sorted(set(question.slots) - set(planned.record.slots))
        notes = [*planned.header.notes]
        if gaps := sample.meta["audio_gaps"]:
            notes.append(f"{len(gaps)} gaps of {sum(gaps):.2f} s in the audio of {record.file.name} are silent")
        if samples.is_audio_cut(planned):
            notes.append(f"{record.file.name} has more audio; the first 30 s are read (data.long_audio=first)")
        if missing:
            notes.append(f"{record.file.name} has no {' and no '.join(missing)}; answered without")
        if unread:
            notes.append(f"{self.name} reads no {' and no '.join(unread)}; answered without")
        if samples.num_unlocated:
            notes.append(f"no box locates the faces of {record.file.name}; faces=whole uses whole frames instead")
        self._blanks = self._blanks or samples.blanks
        packable = samples.to_packable(planned, sample)
        counts = {**planned.counts, "video": planned.counts.get("video", 0) * len(planned.record.clips)}
        return Prompt(planned.record, sample, counts, planned.length, tuple(notes), packable)

    def pack_prompts(self, prompts: Sequence[Prompt]) -> Batch:
        """Return prompts as one batch."""
        return pack([prompt.packable for prompt in prompts], self._blanks, step_targets=0)

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "L D"]]:
        """Return the embeddings of questions with those of their media, as the language model gets them."""
        batch = self.pack_prompts(prompts).to(next(self.model.parameters()).device)
        with self._lock:
            embeds, bounds = self.model.embed_prompts(batch, frugal=True)
        return [embeds[0, start:end] for start, end in itertools.pairwise(bounds)]

    def answer_prompts(
        self, prompts: Sequence[Prompt], *, seed: int | None = None, **generation_kwargs: Any
    ) -> list[Answer]:
        """Answer questions in one batch.

        Args:
            prompts: the questions.
            seed: of sampling; a sampled answer depends on the whole batch.
            generation_kwargs: of transformers' ``generate``: ``max_new_tokens``, ``do_sample`` ...
        """
        answers = self.answer_batch(self.pack_prompts(prompts), seed=seed, **generation_kwargs)
        return self._select_weights(prompts, answers)

    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[Answer]:
        """Answer questions in one batch with the most probable of their options, without generating.

        The log-probabilities are those of ``answer_batch``, and so of ``evaluate log_probs=true``.

        Args:
            prompts: the questions.
            options: of every prompt.
        """
        started = time.perf_counter()
        batch = self.pack_prompts(prompts).to(next(self.model.parameters()).device)
        with self._lock:
            log_probs = self.model.option_log_probs(batch, options, frugal=True)
            weights = self._read_weights()
        seconds = time.perf_counter() - started
        answers = []
        for index, (prompt, values) in enumerate(zip(prompts, log_probs, strict=True)):
            text = options[index][values.index(max(values))]
            ids = tuple(self.model.llm.tokenizer.encode(text, add_special_tokens=False))
            own_weights = {name: by_sample[index] for name, by_sample in weights.items()}
            rounded = tuple(round(value, 4) for value in values)
            answers.append(Answer(text, len(ids), own_weights, rounded, ids, prompt.length, seconds))
        return self._select_weights(prompts, answers)

    def _select_weights(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Answer]:
        return [
            replace(answer, weights=self._relevant_weights(answer, prompt))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _relevant_weights(self, answer: Answer, prompt: Prompt) -> FusionWeights:
        """Return the weights of fusions that fill a slot of the prompt: in a batch, fusions run for all samples."""
        relevant = {}
        for name, weights in answer.weights.items():
            if prompt.counts.get(self.model.fusion(name).output, 1):
                relevant[name] = weights
        return relevant

    def stream(self, prompt: Prompt, *, seed: int | None = None, **generation_kwargs: Any) -> "Stream":
        """Answer one question piece by piece."""
        return Stream(self, prompt, {"seed": seed, **generation_kwargs})

    def answer_batch(
        self,
        batch: Batch,
        options: Sequence[Sequence[str]] = (),
        *,
        seed: int | None = None,
        **generation_kwargs: Any,
    ) -> list[Answer]:
        """Answer a batch of prompts.

        Args:
            batch: of ``Samples`` with prompts.
            options: of every sample, the answers whose log-probabilities are computed.
            seed: of sampling.
            generation_kwargs: of transformers' ``generate``: ``max_new_tokens``, ``do_sample`` ...
        """
        started = time.perf_counter()
        batch = batch.to(next(self.model.parameters()).device)
        if self.is_sharded:
            generation_kwargs["synced_gpus"] = True
        with self._lock, fixed_seed(seed):
            generated = self.model.answer_ids(batch, frugal=not self.is_sharded, **generation_kwargs).tolist()
            weights = self._read_weights()
            log_probs = self.model.option_log_probs(batch, options) if any(options) else [()] * len(generated)
        end_ids = {*self.model.llm.end_ids}
        lengths = [_find_end(tokens, end_ids) for tokens in generated]
        ids = [tuple(tokens[:length]) for tokens, length in zip(generated, lengths, strict=True)]
        texts, prompt_tokens = self.model.llm.decode(ids), batch.lengths
        seconds = time.perf_counter() - started
        answers = []
        for index, text in enumerate(texts):
            answers.append(
                Answer(
                    text,
                    len(ids[index]),
                    {name: by_sample[index] for name, by_sample in weights.items()},
                    tuple(round(value, 4) for value in log_probs[index]),
                    ids[index],
                    prompt_tokens[index],
                    seconds,
                    lengths[index] is not None,
                )
            )
        return answers

    def _read_weights(self) -> dict[str, list[dict[str, float]]]:
        """Return, by fusion, the weights of the last batch: stream -> weight for every sample."""
        by_fusion = {}
        for name, weights in self.model.last_fusion_weights().items():
            streams = self.model.fusion(name).inputs
            by_fusion[name] = [_round_weights(streams, values) for values in weights.tolist()]
        return by_fusion


def read_options(config: DictConfig) -> dict[str, Any]:
    """Return the arguments of ``Answerer.load`` that the config of a verb holds.

    Raises:
        ValueError: there is no such choice of ``quantize``.
    """
    check_quantization(config.get("quantize"))
    return {argument: config[key] for argument, key in OPTIONS.items() if key in config}


def _round_weights(streams: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    return {stream: round(weight, 4) for stream, weight in zip(streams, weights, strict=True)}


def _find_end(tokens: Sequence[int], end_ids: set[int]) -> int | None:
    """Return the position of the first end-of-turn token."""
    for position, token in enumerate(tokens):
        if token in end_ids:
            return position
    return None


class Stream(Iterator[str]):
    """Iterates over the pieces of one answer; after the last one, ``answer`` is the complete answer.

    Args:
        answerer: the model.
        prompt: the question.
        options: of ``Answerer.answer_batch``.

    Raises:
        Exception: an error of the model is raised where the next piece is read.
    """

    answer: Answer

    def __init__(self, answerer: Answerer, prompt: Prompt, options: Mapping[str, Any]) -> None:
        from transformers import TextIteratorStreamer

        def is_closed(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), self._closed, device=input_ids.device)

        self._closed, self._error = False, list[BaseException]()
        tokenizer: Any = answerer.model.llm.tokenizer
        self._pieces = TextIteratorStreamer(tokenizer, skip_prompt=False, skip_special_tokens=True)

        def generate() -> None:
            try:
                batch = answerer.pack_prompts([prompt])
                answers = answerer.answer_batch(batch, streamer=self._pieces, stopping_criteria=[is_closed], **options)
                self.answer = answers[0]
            except BaseException as error:  # raised again in the thread that reads the pieces
                self._error.append(error)
                self._pieces.end()

        self._thread = threading.Thread(target=generate, daemon=True)
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
        """Stop generating."""
        self._closed = True
        self._thread.join()


@contextmanager
def fixed_seed(seed: int | None) -> Iterator[None]:
    """Sample with a seed, and leave the global random state as it was; without a seed, change nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
