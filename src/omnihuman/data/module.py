"""The data of a run: records, mixture, plan, and loaders that resume exactly; without the slow import of Lightning."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from omnihuman.data.augment import AudioAugment, select_augment
from omnihuman.data.ceiling import check_budgets, check_positive, check_share, check_skipped, summarize_reasons
from omnihuman.data.chat import Chat, Markers, describe_difference
from omnihuman.data.dataset import Samples, Transforms
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.exclusion import Description, Exclusions
from omnihuman.data.face import FaceInput
from omnihuman.data.features import FeatureCache, Frozen, select_first
from omnihuman.data.loader import Loader
from omnihuman.data.mixture import MixtureEntry, MixturePart, build_source, open_sources, plan_mixture, select_epoch
from omnihuman.data.notices import Notices
from omnihuman.data.packing import EpochPlan, Indices, MicroBatch, Step, arrange_epoch, check_group, check_lengths
from omnihuman.data.plan.planned import JoinedPlan, TaskColumn
from omnihuman.data.plan.planning import Layouts, Policy
from omnihuman.data.plan.source_plans import SourcePlans
from omnihuman.data.reader.base import LongAudio
from omnihuman.data.record import Entry, Record
from omnihuman.data.resume import build_state, check_state
from omnihuman.data.tasks import RecordSource, Tasks, TaskSelection, count_tasks, explain_no_sample, select_questions
from omnihuman.data.views import Missing
from omnihuman.modality import View
from omnihuman.nn.tiles import parse_tiles
from omnihuman.template import Template
from omnihuman.types import Batch

log = logging.getLogger(__name__)


class OmniData:
    """Training and validation batches, packed.

    Args:
        records: a path that ``source`` reads, or a source; or a list of these, of ``{path, weight}`` and
            ``{source, weight}``. A weight of 0.5 uses half of the records in each epoch (another half in the next), 2
            uses them twice.
        root: folder of the media; paths in records are relative to it and may not leave it. ``None``: the source knows.
        source: builds the source of a path, called with it and ``root``; ``None`` where ``records`` has no path.
        val_records: path or source of the validation samples, ``None`` for no validation.
        path: of the records folder or file that the three keys above come from, for messages; ``None`` without one.
        index: folder of ``omnihuman index`` that the records come from, likewise.
        num_frames: frames of a video.
        sampling: of these frames: ``midpoints``, ``steps``, ``ends`` or ``fps``, see ``data.decode.sampling``.
        face: crops faces, for encoders that read them; ``None``: by the boxes of the records.
        augment: changes the audio of training samples.
        batch_size: samples of an optimizer step, over all devices and micro-batches.
        max_tokens: of a packed sequence; a step takes as many micro-batches as that needs.
        budgets: limits of a packed sequence beside its tokens: ``{frames, audio_seconds}``, ``None`` for no limit.
        sort_window: steps whose samples are sorted by length and divided again, see ``sort_windows``; 1: not.
        group: ``clip``: the samples of a part of a clip are in the same step, where they share one decode; ``None``:
            each comes at its own place.
        tasks: use only records of these tasks, ``None`` for all; the others are skipped and counted. A mapping also
            says how often each task is used in an epoch (as the weight of a file). A record without a task is always
            used, once.
        views: each record is used once per view that leaves something of it: ``VAF``, ``VF``, ``A`` ...
        on_bad_sample: ``raise``, ``skip`` or ``quarantine``.
        quarantine_folder: lists of the files in quarantine, one for each source.
        max_skipped: share of the samples that may be skipped.
        missing: ``absent`` or ``fill``, see ``Samples``.
        long_audio: ``windows`` or ``first``, see ``Samples``.
        max_length: tokens of one sample, ``None`` for the limit of a packed sequence.
        markers: wrap slots in plain-text markers, or in other texts by kind of slot.
        separator: text between the slots and the rest of a turn.
        supervise_newline: supervise the newline after an answer, too.
        time_instruction: text after a video, with ``{num_frames}`` and their ``{seconds}``; ``None`` for none.
        tiles: ``{size, grids}`` of the tiles of images, see ``nn.tiles``; ``None`` for images that are one frame.
        instruction: text for encoders of the instruction, see ``Chat``.
        val_limit: number of validation records, ``None`` for all.
        num_workers: processes that decode.
        prefetch_mb: 10^6 bytes of the batches that all of them load ahead; each loads at least one.
        timeout: seconds per file.
        seed: of order and mixture.
        features: folder in which features of frozen encoders are cached, for all runs; ``None`` for no cache.
        features_gb: 10^9 bytes of that folder; features that were used least recently make room. ``None``: no limit.
        index_folder: folder of the tables of planned samples, for all runs; ``None`` plans in memory.
        index_days: tables that nothing has opened for so long are deleted when others are made; ``None``: never.
        index_processes: that make the tables.
        exact: frames of videos equal those of the official code; false: a little faster, and nearly equal.

    Attributes:
        trainer: Lightning's, which knows ranks and device; ``None`` outside of a training.

    Raises:
        ValueError: an option, a source or the mixture is invalid.
    """

    trainer: Any = None
    _mixture: Sequence[MixturePart] = ()
    _connected: tuple[Transforms, Layouts, Chat] | None = None
    _feature_cache: FeatureCache | None = None
    _frozen: Frozen | None = None

    def __init__(
        self,
        records: MixtureEntry | Sequence[MixtureEntry],
        root: str | None,
        *,
        num_frames: int,
        batch_size: int,
        max_tokens: int,
        budgets: Mapping[str, Any] | None = None,
        sort_window: int = 1,
        group: str | None = None,
        source: Callable[[str, str], RecordSource] | None = None,
        val_records: str | RecordSource | None = None,
        path: str | None = None,
        index: str | None = None,
        sampling: Sampling = "midpoints",
        face: FaceInput | None = None,
        augment: AudioAugment | None = None,
        tasks: Tasks = None,
        views: Sequence[str] = ("VAF",),
        on_bad_sample: Policy = "raise",
        quarantine_folder: str | None = None,
        max_skipped: int | float = 0.2,
        missing: Missing = "absent",
        long_audio: LongAudio = "windows",
        max_length: int | None = None,
        markers: Markers = True,
        separator: str = "\n",
        supervise_newline: bool = False,
        time_instruction: str | None = None,
        tiles: Mapping[str, Any] | None = None,
        instruction: str | Mapping[str, str] = "{question}",
        val_limit: int | None = None,
        num_workers: int = 1,
        prefetch_mb: int | float = 1000,
        timeout: float = 60.0,
        seed: int = 42,
        features: str | None = None,
        features_gb: int | float | None = None,
        index_folder: str | None = None,
        index_days: int | float | None = 90,
        index_processes: int = 1,
        exact: bool = True,
    ) -> None:
        check_positive(num_frames=num_frames, batch_size=batch_size, max_tokens=max_tokens, sort_window=sort_window)
        check_positive(max_length=max_length, timeout=timeout, prefetch_mb=prefetch_mb, features_gb=features_gb)
        self.path, self.features, self.num_workers, self.sort_window = path or index, features, num_workers, sort_window
        self.max_skipped, self.augment = check_share(max_skipped), select_augment(augment, features, missing)
        self.budgets, self.features_gb, self.prefetch_mb = check_budgets(budgets or {}), features_gb, prefetch_mb
        self.exclusions, self.group = Exclusions.for_policy(on_bad_sample, quarantine_folder), check_group(group)
        self.sources, self.val_source = open_sources(records, val_records, partial(build_source, source, root))
        self.batch_size, self.max_tokens, self.seed, self.val_limit = batch_size, max_tokens, seed, val_limit
        self.tasks, self.views = TaskSelection(tasks), [View.parse(view, "data.views") for view in views]
        self.plans = SourcePlans(index_folder, self.exclusions, self.tasks, index_days, index_processes)
        self.options = dict[str, Any](num_frames=num_frames, sampling=sampling, time_instruction=time_instruction)
        self.options |= dict(face=face, missing=missing, long_audio=long_audio, policy=on_bad_sample, timeout=timeout)
        self.options |= dict(tiles=parse_tiles(tiles), exact=exact)
        self.chat_options = dict[str, Any](markers=markers, separator=separator, instruction=instruction)
        self.chat_options |= dict(supervise_newline=supervise_newline, max_length=max_length or max_tokens)
        self._cache, self._skipped = dict[Any, Samples](), dict[str, list[Description]]()

    def connect(
        self,
        transforms: Transforms,
        layouts: Layouts,
        tokenizer: Any,
        template: Template,
        frozen: Frozen | None = None,
    ) -> None:
        """Take from the model what samples depend on.

        Args:
            transforms: by encoder name, the field of a sample that it reads and its transform.
            layouts: amounts by field -> tokens by slot.
            tokenizer: of the language model.
            template: chat template of the language model; a difference to the tokenizer's own is a warning.
            frozen: frozen encoders, whose features can be cached.
        """
        self._frozen, self._feature_cache = dict(frozen or {}), None
        chat = Chat(tokenizer, template, **self.chat_options)
        difference = describe_difference(chat)
        if difference is not None:
            log.warning(difference)
        self._connected = (transforms, layouts, chat)

    def setup(self) -> None:
        """Cache features of all samples that the trainer uses before training, each rank a share."""
        if self.features and self._feature_cache is None:
            steps = getattr(self.trainer, "max_steps", -1)
            self.cache_features(self.train_samples, select_first(self.order(0), steps, self.batch_size))
            steps = getattr(self.trainer, "limit_val_batches", 1.0)
            self.cache_features(self.val_samples, select_first(range(len(self.val_samples)), steps, self.batch_size))

    def cache_features(
        self, samples: Samples, indices: Sequence[int] | None = None, share: tuple[int, int] | None = None
    ) -> None:
        """Compute features of frozen encoders that the cache lacks; from then on samples read the cache.

        Args:
            samples: planned samples.
            indices: of the samples; ``None``: of all.
            share: number of processes that compute them, and the number of this one; ``None``: all ranks.
        """
        if not self.features or not self._frozen:
            return
        if self._feature_cache is None:
            self._feature_cache = FeatureCache.open(self.features, self.features_gb, self._frozen, self.trainer)
        self._feature_cache.fill(samples, self._build_loader, share or self._world_and_rank(), indices)

    # ------------------------------------------------------------------------------------------------------- training

    @property
    def train_samples(self) -> Samples:
        """All training samples, planned."""
        if "train" not in self._cache:
            samples, self._mixture = self._plan_mixture()
            self._cache["train"] = samples
            num_with_frames = samples.planned.report.num_with_frames
            if num_with_frames and samples.num_unlocated == num_with_frames:
                raise ValueError(
                    f"the model reads faces, but none of the {num_with_frames} samples has boxes (`faces`): "
                    "choose face@data.face=whole, or a detector (yunet, mediapipe)."
                )
            locations = [entry.source.location for entry in self.sources]
            self._check_skipped(samples, ", ".join(locations))
            if not self._epoch_size:
                views = list(map(str, self.views))
                raise ValueError(
                    explain_no_sample(self.tasks.tasks, count_tasks(self.tasks.unlisted), locations)
                    or f"no sample is left of {locations} with tasks {self.tasks.tasks} and views {views}; "
                    f"{len(samples.skipped)} were skipped."
                )
        return self._cache["train"]

    def _plan_mixture(self) -> tuple[Samples, list[MixturePart]]:
        """Return the samples of all sources, and the parts of the mixture."""
        planned, tasks = list[Samples](), list[TaskColumn]()
        for number, entry in enumerate(self.sources):
            build = partial(self._plan_samples, views=self.views, augment=self.augment)
            samples = self.plans.plan_split(f"train/{number}", entry.source, "train", build)
            self._skipped.setdefault(entry.source.location, []).extend(samples.skipped)
            planned.append(samples)
            tasks.append(samples.planned.tasks)
        mixture = plan_mixture(self.sources, tasks, self.tasks.tasks)
        if len(planned) > 1:
            planned[0].planned = JoinedPlan([samples.planned for samples in planned])
        return planned[0], mixture

    @property
    def mixture(self) -> Sequence[MixturePart]:
        """The training samples by source and task, with how often each is used in an epoch."""
        _ = self.train_samples  # plans the mixture
        return self._mixture

    def describe_tasks(self) -> Iterator[str]:
        """Yield lines on records that are skipped for their task, and on listed tasks that no record has."""
        yield from self.tasks.describe({part.task for part in self._mixture})

    def order(self, epoch: int) -> Indices:
        """Return the indices of an epoch's samples: every source and task by its weight, in shuffled order."""
        order = select_epoch(self.mixture, self.seed, epoch)
        lengths, groups = self.train_samples.lengths, self._get_groups(self.train_samples)
        return arrange_epoch(order, lengths, groups, self.batch_size, self.sort_window, self.seed, epoch)

    def check_lengths(self) -> None:
        """Check that every training sample fits into a packed sequence.

        Raises:
            ValueError: one does not.
        """
        check_lengths(self.train_samples.lengths, self.max_tokens)

    def freeze(self, file: Path, notices: Notices, *, is_resumed: bool) -> None:
        """Plan the training samples, and exclude from now on the same ones as the first start of the run.

        Args:
            file: list of the excluded samples, in the folder of the run.
            notices: of the process that writes the list, which the others read.
            is_resumed: the run goes on, so the list of its start counts.
        """
        self.plans.share(file.with_name("plans.json"), notices, is_resumed=is_resumed)
        if not notices.is_main:
            notices.wait("excluded")
        has_list = file.is_file() and (is_resumed or not notices.is_main)
        if has_list:
            self.exclusions.restore(file)
        _ = self.train_samples  # plans them
        if not notices.is_main:
            return
        if not has_list:
            if self.val_source is not None:
                location = self.val_source.location
                self._skipped.setdefault(location, list(self.exclusions.read(location).values()))
            self.exclusions.freeze(file, self._skipped)
        notices.publish("excluded", str(file))

    def state_dict(self) -> dict[str, Any]:
        return build_state(self.train_samples, self.exclusions)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_state(state_dict, self.train_samples, self.exclusions)

    @property
    def fingerprint(self) -> str:
        """A hash of the samples of the first epoch in their order."""
        ids = self.train_samples.planned.read_ids(self.order(0))
        return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]

    @property
    def _epoch_size(self) -> int:
        return sum(part.num_used for part in self.mixture)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self._epoch_size // self.batch_size)

    def count_planned(self, steps: int) -> int:
        """Return the number of samples that are planned for so many optimizer steps."""
        size = self._epoch_size
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * size + min(size, rest * self.batch_size)

    def train_dataloader(self) -> Loader:
        plan = partial(self.plan_epoch, *self._world_and_rank())
        return self._build_loader(self.train_samples, plan, keep_workers=True)

    def plan_epoch(self, world: int, rank: int, epoch: int) -> EpochPlan:
        """Return the steps of an epoch on one of so many ranks."""
        return self._plan_steps(self.train_samples, self.order(epoch), world, rank, epoch)

    def _plan_steps(self, samples: Samples, order: Any, world: int, rank: int, epoch: int = 0) -> EpochPlan:
        options: dict[str, Any] = {"batch_size": self.batch_size, "max_tokens": self.max_tokens}
        options |= {"world": world, "rank": rank}
        options |= {"budgets": samples.limit(self.budgets), "groups": self._get_groups(samples)}
        return EpochPlan(samples.lengths, samples.targets, order, epoch=epoch, **options)

    def _get_groups(self, samples: Samples) -> Any:
        return None if self.group is None else samples.planned.groups

    # ----------------------------------------------------------------------------------------------------- validation

    @property
    def val_samples(self) -> Samples:
        """All validation samples, planned."""
        if "val" not in self._cache:
            samples = self._plan_samples(())
            if self.val_source is not None:
                build = partial(self._plan_samples, views=self.views)
                samples = self.plans.plan_split("val", self.val_source, "val", build, self.val_limit)
            self._check_skipped(samples, "data.val_records")
            self._cache["val"] = samples
        return self._cache["val"]

    def val_dataloader(self) -> Loader | list[Any]:
        if self.val_source is None:
            return []
        samples = self.val_samples
        steps = self._plan_steps(samples, range(len(samples)), *self._world_and_rank())
        return self._build_loader(samples, lambda epoch: steps)

    def prompts(
        self,
        tasks: Sequence[str],
        view: View,
        *,
        needs: Sequence[str] = (),
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 16,
    ) -> Iterator[Batch]:
        """Yield batches of validation questions in one view; ``meta`` holds the answers.

        Args:
            tasks: of the records.
            view: the part of the records that the model gets.
            needs: only records whose text names all these slots, so that views are compared on the same questions.
            limit: number of questions, ``None`` for all.
            rank: whose share.
            world: number of ranks.
            batch_size: questions per batch.
        """
        if self.val_source is None:
            return
        key = (tuple(tasks), view, tuple(needs), limit)
        if key not in self._cache:
            select = partial(select_questions, self.val_source, *key)
            build = partial(self._plan_samples, views=[view], needs=needs, prompts=True)
            choice = {"tasks": list(tasks), "limit": limit}
            name = f"prompts/{','.join(tasks)}/{view}/{','.join(needs)}/{limit}"
            self._cache[key] = self.plans.plan(name, self.val_source, select, choice, build)
        samples = self._cache[key]
        indices = range(rank, len(samples), world)
        self.cache_features(samples, indices, share=(1, 0))
        for start in range(0, len(indices), batch_size):
            yield samples[MicroBatch(tuple(indices[start : start + batch_size]), 0)]

    # ------------------------------------------------------------------------------------------------------ questions

    def plan_question(self, record: Record) -> Samples:
        """Return one question as a planned sample.

        Raises:
            BadSample: the record cannot be used.
        """
        return self._plan_samples([record], prompts=True, policy="raise")

    def plan_questions(self, records: Sequence[Record]) -> Samples:
        """Return questions as planned samples; those that cannot be used are in ``skipped``."""
        samples = self._plan_samples(records, prompts=True, policy="skip")
        self.cache_features(samples)
        return samples

    def read_entries(self, split: Literal["train", "val"]) -> Iterator[tuple[str, Entry]]:
        """Yield the entries that training or validation uses, each with the location of its source."""
        sources = [entry.source for entry in self.sources] if split == "train" else [self.val_source]
        limit = None if split == "train" else self.val_limit
        for source in filter(None, sources):
            yield from ((source.location, entry) for entry in islice(self.tasks.select(source, split), limit))

    def plan_entries(self, entries: Sequence[Entry]) -> Samples:
        """Return entries as training plans them; those that cannot be used are in ``skipped``."""
        return self._plan_samples(entries, views=self.views, policy="skip", augment=self.augment)

    def _check_skipped(self, samples: Samples, place: str) -> None:
        cause = summarize_reasons(samples.skipped)
        check_skipped(len(samples), len(samples.skipped), self.max_skipped, place, cause, is_final=True)

    def _plan_samples(self, records: Iterable[Entry], **options: Any) -> Samples:
        if self._connected is None:
            raise RuntimeError("call OmniData.connect first: the number of tokens depends on the model.")
        transforms, layouts, chat = self._connected
        return Samples(records, transforms, layouts, chat, **(self.options | options))

    def _build_loader(self, samples: Samples, plan: Callable[[int], Sequence[Step]], **options: Any) -> Loader:
        options |= {"num_workers": self.num_workers, "prefetch_mb": self.prefetch_mb}
        return Loader(samples, plan, timeout=self.options["timeout"], **options)

    def _world_and_rank(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
