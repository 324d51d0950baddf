"""The one model: encode, fuse early, project, fuse, splice, and the language model. A variant is a choice of parts."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from omnihuman.encoder.base import Encoder
from omnihuman.fusion.base import Fusion
from omnihuman.llm.causal import CausalLM
from omnihuman.modality import FRAMES, INSTRUCTION, SLOTS
from omnihuman.model.layouts import check_tiles, encoder_layouts, fuse_layouts, project_layouts
from omnihuman.model.selection import select_parts
from omnihuman.model.splice import drop_positions, splice
from omnihuman.model.streams import encode, project_valid
from omnihuman.model.wiring import (
    bind_fields,
    build_fusions,
    build_projectors,
    check_ends,
    check_instruction,
    check_slots,
    encoder_widths,
    replace_inputs,
)
from omnihuman.projector.base import Projector
from omnihuman.types import Batch, Output, Streams


class OmniModel(nn.Module):
    """A packed ``Batch`` -> ``Output``: encoders, projectors and fusions wired by stream names, then the LLM.

    Widths are never written in a config: the constructor asks each part for its width and passes it to the next one.

    Args:
        encoders: by name, which is the name of its signal in the batch and of its stream.
        projectors: by the name of the stream they make; called with ``in_dim`` and ``out_dim``.
        llm: the language model; its ``hidden_size`` is the width of every slot.
        reads: field of a sample that an encoder reads (``{face: faces}``), where it is not the encoder's default.
        projector_inputs: stream that a projector reads, where it is not the one of the projector's name.
        conditions: stream that steers a projector, for projectors that take one: a Q-Former with ``text``.
        early_fusions: run before the projectors, in order; called with ``dims``.
        fusions: run after the projectors, in order; called with ``dims``.

    Raises:
        ValueError: a part reads a stream or a field that does not exist, widths differ, or a stream is never used.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        projectors: Mapping[str, Callable[..., Projector]],
        llm: CausalLM,
        *,
        reads: Mapping[str, str] | None = None,
        projector_inputs: Mapping[str, str] | None = None,
        conditions: Mapping[str, str] | None = None,
        early_fusions: Mapping[str, Callable[..., Fusion]] | None = None,
        fusions: Mapping[str, Callable[..., Fusion]] | None = None,
    ) -> None:
        super().__init__()
        self.reads = bind_fields(encoders, reads or {})
        self.projector_inputs = {name: name for name in projectors} | dict(projector_inputs or {})
        self.conditions = dict(conditions or {})
        self.encoders = nn.ModuleDict(encoders)
        early, dims = build_fusions("early_fusions", early_fusions or {}, encoder_widths(encoders))
        self.early_fusions = nn.ModuleDict(early)
        projected = build_projectors(projectors, self.projector_inputs, self.conditions, dims, llm.hidden_size)
        self.projectors = nn.ModuleDict(projected)
        dims = replace_inputs(dims, self.projector_inputs, dict.fromkeys(projectors, llm.hidden_size))
        late, dims = build_fusions("fusions", fusions or {}, dims)
        self.fusions = nn.ModuleDict(late)
        self._check(dims, llm.hidden_size)
        self.llm = llm

    def forward(self, batch: Batch) -> Output:
        """Return the log-probabilities of the supervised tokens of the packed sequence."""
        embeds, mask, streams = self.embed(batch)
        bounds, positions, labels = batch.bounds, batch.position_ids, batch.labels
        if batch.may_drop and not mask.all():
            bounds, positions, (embeds, labels) = drop_positions(mask, bounds, embeds, labels)
        log_probs, token_positions = self.llm(embeds, labels, positions, bounds)
        return Output(log_probs, token_positions, bounds, streams)

    def embed(self, batch: Batch, parts: Set[str] | None = None) -> tuple[Tensor, Tensor, Streams]:
        """Return the packed sequence with every stream in its slot, a mask of the positions to keep, and the streams.

        Args:
            batch: signals and token ids of the samples.
            parts: names of the parts to run, see ``select_parts``; ``None`` for all.
        """
        streams = self._encode(batch, parts)
        streams = self._fuse("early_fusions", streams, parts)
        streams = self._project(streams, parts)
        streams = self._fuse("fusions", streams, parts)
        if batch.rows:
            self._average_weights(batch.rows)
        return self._splice(batch, streams)

    def generate(self, batch: Batch, **options: Any) -> list[str]:
        """Return an answer to each packed prompt; ``options`` are those of ``generate`` in transformers."""
        return self.llm.decode(self.answer_ids(batch, **options))

    @torch.no_grad()
    def answer_ids(self, batch: Batch, *, frugal: bool = False, **options: Any) -> Int[Tensor, "B new"]:
        """Return the token ids of the answers.

        Args:
            batch: of prompts.
            frugal: run only the parts that the batch's slots need. Not where parts are sharded: every rank must run
                all of them.
            options: of ``generate`` in transformers.
        """
        embeds, bounds = self.embed_prompts(batch, frugal=frugal)
        return self.llm.generate_ids(embeds, bounds, **options)

    def embed_prompts(self, batch: Batch, *, frugal: bool = False) -> tuple[Float[Tensor, "1 L D"], list[int]]:
        """Return the embeddings of the prompts, media in their slots, as a packed sequence with its bounds.

        Args:
            batch: of prompts.
            frugal: as for ``answer_ids``.
        """
        parts = None
        if frugal:
            slots = {slot for slot, slot_id in SLOTS.items() if bool((batch.input_ids == slot_id).any())}
            parts = self.select_parts(slots)
        embeds, mask, _ = self.embed(batch, parts)
        bounds, _, (embeds,) = drop_positions(mask, batch.bounds, embeds)
        return embeds, bounds

    @torch.no_grad()
    def option_log_probs(
        self, batch: Batch, options: Sequence[Sequence[str]], *, frugal: bool = False
    ) -> list[tuple[float, ...]]:
        """Return the natural log-probability of each option as the beginning of the answer to its prompt.

        Args:
            batch: of prompts.
            options: of every sample; the log-probabilities of an option's tokens are summed.
            frugal: see ``answer_ids``.
        """
        embeds, bounds = self.embed_prompts(batch, frugal=frugal)
        return self.llm.compute_log_probs(embeds, bounds, options)

    @torch.no_grad()
    def fusion_weights(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weights ``[B K]`` of the inputs of each fusion that computes any, by the fusion's name."""
        self.embed(batch)
        return self.last_fusion_weights()

    def last_fusion_weights(self) -> dict[str, Tensor]:
        """Return ``fusion_weights`` of the last batch."""
        return {name: fusion.weights for name, fusion in self.all_fusions.items() if fusion.weights is not None}

    def auxiliary_losses(self, batch: Batch, step: int) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """Return the losses of the fusions in the last batch beside that of the answers, by ``gate_balance``.

        Args:
            batch: the last one.
            step: optimizer steps before this one.

        Returns:
            the factor of each loss, and its sum over the samples; one without tokens of the fusion's inputs adds 0.
        """
        num_samples = len(batch.bounds) - 1
        rows = list(batch.rows or (1,) * num_samples)
        tasks: list[str | None] = []
        for index, count in enumerate(rows):
            task = batch.meta[index].get("task") if batch.meta else None
            tasks += [task] * count
        losses = {}
        for name, fusion in self.all_fusions.items():
            for key, (weight, values) in fusion.auxiliary_losses(tasks, step).items():
                assert fusion.is_present is not None
                means = torch.stack([part.mean() for part in torch.split(values, rows)])
                losses[f"{name}_{key}"] = (weight, means.masked_fill(~fusion.is_present, 0).sum())
        return losses

    @property
    def all_fusions(self) -> dict[str, Fusion]:
        """Early fusions and fusions by name."""
        return self._parts("early_fusions") | self._parts("fusions")

    def fusion(self, name: str) -> Fusion:
        """Return a fusion by its name."""
        return self.all_fusions[name]

    def count_tokens(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Return the number of tokens of each slot for these amounts of ``frames`` and ``waveform`` samples.

        A modality whose amount is 0 or missing is absent: its slot has no tokens.
        """
        layouts = encoder_layouts(self._parts("encoders"), self.reads, amounts)
        layouts = fuse_layouts("early_fusions", self._parts("early_fusions"), layouts)
        layouts = project_layouts(self._parts("projectors"), self.projector_inputs, layouts)
        layouts = fuse_layouts("fusions", self._parts("fusions"), layouts)
        check_tiles(layouts)
        counts = dict.fromkeys(SLOTS, 0)
        for slot in SLOTS:
            if (layout := layouts.get(slot)) is not None:
                counts[slot] = layout.num_tokens
        return counts

    def select_parts(self, slots: Set[str]) -> set[str]:
        """Return the parts that fill these slots, as ``group.name``."""
        return select_parts(
            slots,
            early_fusions=self._parts("early_fusions"),
            projector_inputs=self.projector_inputs,
            conditions=self.conditions,
            fusions=self._parts("fusions"),
        )

    @property
    def transforms(self) -> dict[str, tuple[str, Callable[[Any], Tensor]]]:
        """By signal: the field of a sample that it is made of, and the transform."""
        return {name: (self.reads[name], encoder.transform) for name, encoder in self._parts("encoders").items()}

    @property
    def frozen_encoders(self) -> dict[str, tuple[nn.Module, bool]]:
        """Encoders of media without a trainable parameter, and whether a fusion reads their levels."""
        leveled: set[str] = set()
        for fusion in self._parts("early_fusions").values():
            if fusion.reads_levels:
                leveled.update(fusion.inputs)
        frozen = {}
        for name, encoder in self._parts("encoders").items():
            is_trainable = any(parameter.requires_grad for parameter in encoder.parameters())
            if self.reads[name] != INSTRUCTION and not is_trainable:
                frozen[name] = (encoder, name in leveled)
        return frozen

    def train(self, mode: bool = True) -> "OmniModel":
        """Set the mode, but keep frozen parts in eval mode: no dropout, no stochastic depth where nothing trains."""
        super().train(mode)
        eval_frozen(self)
        return self

    def _encode(self, batch: Batch, parts: Set[str] | None) -> Streams:
        streams = {}
        for name, encoder in self._parts("encoders").items():
            if parts is None or f"encoders.{name}" in parts:
                streams[name] = encode(encoder, name, batch)
            if batch.tilings is not None and name in streams and self.reads[name] == FRAMES:
                streams[name] = replace(streams[name], tilings=batch.tilings)
        return streams

    def _fuse(self, group: str, streams: Streams, parts: Set[str] | None) -> Streams:
        for name, fusion in self._parts(group).items():
            if parts is None or f"{group}.{name}" in parts:
                streams = fusion(streams)
            else:
                fusion.weights = fusion.is_present = None  # of an earlier batch
        return streams

    def _project(self, streams: Streams, parts: Set[str] | None) -> Streams:
        projected = {}
        for name, projector in self._parts("projectors").items():
            if parts is None or f"projectors.{name}" in parts:
                condition = streams.get(self.conditions.get(name, ""))
                projected[name] = project_valid(projector, streams[self.projector_inputs[name]], condition)
        return replace_inputs(streams, self.projector_inputs, projected)

    def _average_weights(self, rows: Sequence[int]) -> None:
        """Replace the weights of the fusions ``[R K]`` by their means over the images of each sample ``[B K]``."""
        for fusion in self.all_fusions.values():
            if fusion.weights is not None:
                fusion.weights = torch.stack([part.mean(dim=0) for part in torch.split(fusion.weights, list(rows))])
            if fusion.is_present is not None:
                fusion.is_present = torch.stack([part.any() for part in torch.split(fusion.is_present, list(rows))])

    def _splice(self, batch: Batch, streams: Streams) -> tuple[Tensor, Tensor, Streams]:
        slots = {slot: streams[slot] for slot in SLOTS if slot in streams}
        embeds = self.llm.embed(batch.input_ids)
        embeds, mask = splice(embeds, batch.input_ids, batch.bounds, slots, batch.may_drop, batch.rows)
        return embeds, mask, slots

    def _parts(self, group: str) -> dict[str, Any]:
        """Return the parts of a group by name, typed as what they are and not as plain modules."""
        return dict(getattr(self, group).items())

    def _check(self, dims: Mapping[str, int], hidden_size: int) -> None:
        inputs, conditions = set(self.projector_inputs.values()), set(self.conditions.values())
        for fusion in [*self._parts("early_fusions").values(), *self._parts("fusions").values()]:
            inputs.update(fusion.inputs)
            conditions.add(fusion.condition)
        check_instruction(self.reads, inputs)
        check_ends(dims, conditions, hidden_size)
        encoders_of = {}
        for slot in SLOTS:
            parts = self.select_parts({slot})
            encoders_of[slot] = [name for name in self.encoders if f"encoders.{name}" in parts]
        check_slots(self.reads, encoders_of)


def eval_frozen(module: nn.Module) -> bool | None:
    """Put every module whose parameters are all frozen in eval mode, with all modules below it.

    Returns:
        Whether the module has a trainable parameter, ``None`` where it has no parameters.
    """
    children = [(child, eval_frozen(child)) for child in module.children()]
    flags = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    flags += [is_trainable for _, is_trainable in children if is_trainable is not None]
    if not flags:
        return None
    if not any(flags):
        module.training = False
        for child, is_trainable in children:
            if is_trainable is None:  # dropout and activations follow the module that contains them
                child.eval()
    return any(flags)
