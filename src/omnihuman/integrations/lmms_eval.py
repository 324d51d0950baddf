"""A trained run as a model of lmms-eval: ``python -m lmms_eval --model omnihuman --model_args run=...``."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from omnihuman.data.messages import build_record, parse_generation_options, truncate_at_stops
from omnihuman.modality import View

if TYPE_CHECKING:
    from omnihuman.data.record import Record

log = logging.getLogger(__name__)


def manifest() -> ModelManifest:
    """Return the manifest for the entry point ``lmms_eval.models``; imports nothing heavy."""
    return ModelManifest("omnihuman", chat_class_path=f"{__name__}.OmniHumanChat", aliases=("omnihuman_chat",))


class OmniHumanChat(lmms):  # type: ignore[misc]
    """Chat requests -> answers of a trained run, batched by length.

    Reference: lmms-eval 0.7.3, chat models: a request is ``(context, doc_to_messages, options, doc_id, task, split)``.
    Differs from its ``ChatMixin``: errors are raised and not turned into empty answers.

    A document may have further fields of the record, as JSON in ``record``: ``{"faces": ..., "rate": ...}``.

    Args:
        run: folder of a trained run, or its name, see ``find_run_folder``.
        size: of the run, if ``run`` is a name; ``None`` for any.
        runs: folder of all runs.
        view: what the checkpoint may use: ``V``, ``VA`` ...; ``None`` for all that it reads.
        faces: replaces the run's faces: ``whole``, ``none``.
        merge_lora: fold LoRA into the weights first.
        quantize: ``8bit`` or ``4bit`` weights of the language model.
        num_workers: decoding processes.
        max_tokens: of a batch, including padding.
        batch_size: questions per batch.
        device: ``None`` for this rank's GPU, or the CPU.
        max_batch_size: for lmms-eval's automatic batch size, which is not supported.

    Raises:
        ValueError: the folder is not a trained run, or the run cannot use the view.
    """

    is_simple = False

    def __init__(
        self,
        run: str,
        size: str | None = None,
        runs: str = "runs",
        view: str | None = None,
        faces: str | None = None,
        merge_lora: bool = False,
        quantize: str | None = None,
        num_workers: int = 1,
        max_tokens: int = 65536,
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        import torch
        import transformers

        from omnihuman.build import register_resolvers
        from omnihuman.inference.answerer import Answerer
        from omnihuman.training.run_search import find_run_folder

        super().__init__()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        register_resolvers()
        if not str(batch_size).isdigit() or max_batch_size is not None:
            raise ValueError(f"batch_size={batch_size}: expected a number, the size of batches of similar length.")
        if device is None and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        folder = find_run_folder({"run": run, "size": size, "runs": runs})
        self.answerer = Answerer.load(folder, merge_lora=merge_lora, faces=faces, device=device, quantize=quantize)
        self.device, self.batch_size = torch.device(device or "cpu"), int(batch_size)
        self.num_workers, self.max_tokens = num_workers, max_tokens
        model_view = self.answerer.view
        self.view = model_view if view is None else View.parse(view) & model_view
        if not self.view:
            raise ValueError(f"view={view}: the run reads {model_view} only.")
        self._ignored: set[str] = set()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the answers in the order of the requests.

        Raises:
            ValueError: a prompt or its file is invalid; the message names the task and the document.
        """
        records: list[Record] = []
        groups: dict[str, list[int]] = {}
        with TemporaryDirectory(prefix="omnihuman_") as folder:
            for number, request in enumerate(requests):
                _, doc_to_messages, options, doc_id, task, split = request.args
                doc, location = self.task_dict[task][split][doc_id], f"{task}[{doc_id}]"
                extra = json.loads(doc.get("record") or "{}") if isinstance(doc, dict) else {}
                record = build_record(doc_to_messages(doc), str(number), location, Path(folder), extra)
                records.append(self._select_view(record, location))
                groups.setdefault(json.dumps(options, sort_keys=True, default=str), []).append(number)
            answers: dict[int, str] = {}
            for numbers in groups.values():  # different options cannot share a batch
                generation_kwargs, stops, ignored = parse_generation_options(requests[numbers[0]].args[2])
                self._warn(ignored)
                batch = [records[number] for number in numbers]
                for name, text in self._answer(batch, generation_kwargs):
                    answers[int(name)] = truncate_at_stops(text, stops)
        return [answers[number] for number in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not supported: lmms-eval requests no likelihoods from chat models."""
        raise NotImplementedError(
            "lmms-eval sends chat models generation requests only; for the log-probabilities of options: "
            "omnihuman evaluate benchmark=mvbench_human log_probs=true"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not supported: a run answers one turn."""
        raise NotImplementedError("a run of omnihuman answers one turn; choose a task without several rounds.")

    def _select_view(self, record: "Record", location: str) -> "Record":
        restricted = record.restrict(self.view)
        if restricted is None:
            raise ValueError(f"{location}: the {record.kind} has no content for view={self.view}.")
        return restricted

    def _answer(self, records: Sequence["Record"], generation_kwargs: dict[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield ids and answers, the longest prompts first."""
        from torch.utils.data import DataLoader
        from tqdm import tqdm  # type: ignore[import-untyped]

        from omnihuman.evaluation.answering import group_by_length

        samples = self.answerer.plan_questions(records)
        _raise_if_skipped(samples.skipped, len(records))
        if samples.num_unlocated:
            log.warning("%d files have no face boxes; faces=whole uses full frames instead", samples.num_unlocated)
        micro_batches = list(group_by_length(samples.lengths, self.batch_size, self.max_tokens))
        loader = DataLoader(samples, sampler=micro_batches, batch_size=None, num_workers=self.num_workers)  # type: ignore[arg-type]
        with tqdm(total=len(records), desc="omnihuman", disable=self.rank != 0) as bar:
            for micro_batch, batch in zip(micro_batches, loader, strict=True):
                _raise_if_skipped(batch.skipped, len(records))
                answers = self.answerer.answer_batch(batch, **generation_kwargs)
                for index, answer in zip(micro_batch.indices, answers, strict=True):
                    yield samples.planned[index].record.id, answer.text
                bar.update(len(answers))

    def _warn(self, ignored: Iterable[str]) -> None:
        new = sorted(set(ignored) - self._ignored)
        if new:
            log.warning("omnihuman ignores the generation options %s", ", ".join(new))
            self._ignored.update(new)


def _raise_if_skipped(skipped: Sequence[Any], count: int) -> None:
    if skipped:
        raise ValueError(f"{len(skipped)} of {count} questions cannot be answered, the first: {skipped[0]['message']}")
