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

from omnihuman.data.messages import cut, options_of, record_of

if TYPE_CHECKING:
    from omnihuman.data.record import Record

log = logging.getLogger(__name__)


def manifest() -> ModelManifest:
    """What the entry point ``lmms_eval.models`` tells: the model's name and class; nothing heavy is imported."""
    return ModelManifest("omnihuman", chat_class_path=f"{__name__}.OmniHumanChat", aliases=("omnihuman_chat",))


class OmniHumanChat(lmms):  # type: ignore[misc]
    """Chat requests -> answers of a trained run, batched by length.

    Reference: lmms-eval 0.7.3, chat models: a request is ``(context, doc_to_messages, options, doc_id, task, split)``.
    Differs from its ``ChatMixin``: what goes wrong is raised, it does not become an empty answer.

    A document may hold what messages have no place for, as JSON in ``record``: ``{"faces": ..., "rate": ...}``.

    Args:
        run: the folder of a trained run, or its name below ``<runs>/<size>``.
        size: of the run, where its name is given.
        runs: folder of all runs.
        modality: what the checkpoint may use: ``V``, ``VA`` ...; ``None`` for all that it reads.
        faces: another source of faces than the run's own: ``whole``, ``none``.
        merge_lora: fold LoRA into the weights first.
        num_workers: processes that decode.
        max_tokens: of a batch, prompts padded to the longest.
        batch_size: questions at a time.
        device: ``None`` for this rank's GPU, or the CPU.
        max_batch_size: of lmms-eval's automatic batch size, which there is none of here.

    Raises:
        ValueError: the folder holds no finished run, or the run cannot use the modality.
    """

    is_simple = False

    def __init__(
        self,
        run: str,
        size: str = "nano",
        runs: str = "runs",
        modality: str | None = None,
        faces: str | None = None,
        merge_lora: bool = False,
        num_workers: int = 1,
        max_tokens: int = 65536,
        batch_size: int | str = 16,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        import torch
        import transformers

        from omnihuman.benchmark.base import MODALITIES
        from omnihuman.build import register_resolvers
        from omnihuman.evaluation.answerer import Answerer
        from omnihuman.training.runs import run_folder

        super().__init__()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        register_resolvers()
        if not str(batch_size).isdigit() or max_batch_size is not None:
            raise ValueError(f"batch_size={batch_size}: give a number; batches of like length are formed from it.")
        if device is None and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        folder = run_folder({"run": run, "size": size, "runs": runs})
        self.answerer = Answerer.of_run(folder, merge_lora=merge_lora, faces=faces, device=device)
        self.device, self.batch_size = torch.device(device or "cpu"), int(batch_size)
        self.num_workers, self.max_tokens = num_workers, max_tokens
        senses = self.answerer.senses
        self.modality = senses if modality is None else str(modality)
        if self.modality not in MODALITIES or set(self.modality) - set(senses):
            able = [name for name in MODALITIES if not set(name) - set(senses)]
            raise ValueError(f"modality={modality}: the run can be asked with {', '.join(able)}.")
        self._ignored: set[str] = set()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers, in the order of the requests.

        Raises:
            ValueError: a prompt or its file cannot be used; the message names the task and the document.
        """
        records, ways = list["Record"](), dict[str, list[int]]()
        with TemporaryDirectory(prefix="omnihuman_") as folder:
            for number, request in enumerate(requests):
                _, doc_to_messages, given, doc_id, task, split = request.args
                doc, source = self.task_dict[task][split][doc_id], f"{task}[{doc_id}]"
                extra = json.loads(doc.get("record") or "{}") if isinstance(doc, dict) else {}
                record = record_of(doc_to_messages(doc), str(number), source, Path(folder), extra)
                records.append(self._seen(record, source))
                ways.setdefault(json.dumps(given, sort_keys=True, default=str), []).append(number)
            found: dict[int, str] = {}
            for numbers in ways.values():  # different options cannot share a batch
                how, stops, ignored = options_of(requests[numbers[0]].args[2])
                self._warn(ignored)
                for name, text in self._answers([records[number] for number in numbers], how):
                    found[int(name)] = cut(text, stops)
        return [found[number] for number in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not there: lmms-eval asks chat models for no likelihoods."""
        raise NotImplementedError(
            "lmms-eval sends chat models generation requests only; for the log-probabilities of options: "
            "python -m omnihuman.evaluate benchmark=mvbench_human log_probs=true"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not there: a run answers one turn."""
        raise NotImplementedError("a run of omnihuman answers one turn; choose a task without several rounds.")

    def _seen(self, record: "Record", source: str) -> "Record":
        from omnihuman.benchmark.base import MODALITIES

        form = record.seen_as(MODALITIES[self.modality])
        if form is None:
            raise ValueError(
                f"{source}: there is nothing in its {record.kind} that modality={self.modality} could use."
            )
        return form

    def _answers(self, records: Sequence["Record"], how: dict[str, Any]) -> Iterable[tuple[str, str]]:
        """Ids and answers, the longest prompts first."""
        from torch.utils.data import DataLoader
        from tqdm import tqdm  # type: ignore[import-untyped]

        from omnihuman.evaluation.ask import batches

        samples = self.answerer.plan(records)
        _refuse(samples.skipped, len(records))
        if lost := samples.without_boxes:
            log.warning("nothing says where the faces of %d files are; faces=whole takes whole frames for them", lost)
        rows = list(batches(samples.lengths, self.batch_size, self.max_tokens))
        loader = DataLoader(samples, sampler=rows, batch_size=None, num_workers=self.num_workers)  # type: ignore[arg-type]
        with tqdm(total=len(records), desc="omnihuman", disable=self.rank != 0) as bar:
            for row, batch in zip(rows, loader, strict=True):
                _refuse(batch.skipped, len(records))
                answers = self.answerer.answer(batch, **how)
                for index, answer in zip(row.samples, answers, strict=True):
                    yield samples.planned[index].record.id, answer.text
                bar.update(len(answers))

    def _warn(self, ignored: Iterable[str]) -> None:
        if new := sorted(set(ignored) - self._ignored):
            log.warning("these generation options mean nothing to omnihuman: %s", ", ".join(new))
            self._ignored.update(new)


def _refuse(skipped: Sequence[Any], count: int) -> None:
    if skipped:
        raise ValueError(f"{len(skipped)} of {count} questions cannot be asked, the first: {skipped[0]['message']}")
