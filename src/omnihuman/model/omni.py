"""The one model: encode, project, fuse, splice, read. Every variant is a choice of parts."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from omnihuman.encoder.base import Encoder
from omnihuman.fusion.base import Fusion
from omnihuman.llm.causal import CausalLM
from omnihuman.model.splice import shortened, splice
from omnihuman.projector.base import Projector
from omnihuman.types import SLOTS, Batch, Features, Layout, Output, Streams, Width

_T = TypeVar("_T")


class OmniModel(nn.Module):
    """A packed ``Batch`` -> ``Output``: encoders, projectors and fusions wired by stream names, then the LLM.

    Widths are never written in a config: the constructor asks each part for its own and tells the next one.

    Args:
        encoders: by name; the name is also the name of its signal in the batch.
        projectors: by the stream they make; called with ``in_dim`` and ``out_dim``.
        llm: the language model; its ``hidden_size`` is the width of every slot.
        sources: which stream a projector reads, where it is not the one of its own name.
        conditions: which stream steers a projector that takes one, such as the instruction's words for a Q-Former.
        early_fusions: run before the projectors, in order; called with ``dims``.
        fusions: run after the projectors, in order; called with ``dims``.

    Raises:
        ValueError: a projector or fusion reads a stream that is not there, widths differ, or a stream ends nowhere.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        projectors: Mapping[str, Callable[..., Projector]],
        llm: CausalLM,
        *,
        sources: Mapping[str, str] | None = None,
        conditions: Mapping[str, str] | None = None,
        early_fusions: Mapping[str, Callable[..., Fusion]] | None = None,
        fusions: Mapping[str, Callable[..., Fusion]] | None = None,
    ) -> None:
        super().__init__()
        self.sources = {name: name for name in projectors} | dict(sources or {})
        self.conditions = dict(conditions or {})
        dims: dict[str, int] = {name: Width(encoder.out_dim, encoder.level_dims) for name, encoder in encoders.items()}
        self.encoders = nn.ModuleDict(encoders)
        self.early_fusions, dims = _chain(early_fusions or {}, dims)
        self._check_sources(projectors, dims)
        self.projectors = nn.ModuleDict(
            {name: make(in_dim=dims[self.sources[name]], out_dim=llm.hidden_size) for name, make in projectors.items()}
        )
        self._check_conditions(dims)
        dims = self._with_projected(dims, dict.fromkeys(projectors, llm.hidden_size))
        self.fusions, dims = _chain(fusions or {}, dims)
        self._check_words()
        self._check_ends(dims, llm.hidden_size)
        self.llm = llm

    def forward(self, batch: Batch) -> Output:
        """The summed loss over the answers of the packed row."""
        embeds, kept, streams = self.embedded(batch)
        bounds, positions, labels = batch.bounds.tolist(), batch.position_ids, batch.labels
        if not kept.all():
            bounds, positions, (embeds, labels) = shortened(kept, bounds, embeds, labels)
        loss, targets = self.llm(embeds, labels, positions, bounds)
        return Output(loss, targets, streams)

    def generate(self, batch: Batch, **options: Any) -> list[str]:
        """Answers to the packed prompts, one per sample; ``options`` are those of transformers' ``generate``."""
        return self.llm.texts(self.answer_ids(batch, **options))

    @torch.no_grad()
    def answer_ids(self, batch: Batch, *, frugal: bool = False, **options: Any) -> Int[Tensor, "B new"]:
        """The ids of the answers.

        Args:
            batch: of prompts.
            frugal: run only the parts that the batch's slots need. Not where parts are sharded: every rank must run
                all of them.
            options: of transformers' ``generate``.
        """
        slots = {slot for slot, number in SLOTS.items() if bool((batch.input_ids == number).any())}
        embeds, kept, _ = self.embedded(batch, self.parts_for(slots) if frugal else None)
        bounds, _, (embeds,) = shortened(kept, batch.bounds.tolist(), embeds)
        return self.llm.answer_ids(embeds, bounds, **options)

    @torch.no_grad()
    def option_log_probs(self, batch: Batch, options: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """How probable each option is as the beginning of the answer to its prompt, as natural logarithms.

        Args:
            batch: of prompts.
            options: of every sample; the log-probabilities of an option's tokens add up.
        """
        embeds, kept, _ = self.embedded(batch)
        bounds, _, (embeds,) = shortened(kept, batch.bounds.tolist(), embeds)
        return self.llm.log_probs(embeds, bounds, options)

    @torch.no_grad()
    def fusion_weights(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What each fusion that weighs gives to its inputs for every sample, ``[B K]``, by the fusion's name."""
        self.embedded(batch)
        return self.weighed()

    def weighed(self) -> dict[str, torch.Tensor]:
        """``fusion_weights`` of the last batch."""
        fusions = [*self.early_fusions.items(), *self.fusions.items()]
        return {name: weights for name, fusion in fusions if isinstance(weights := fusion.weights, torch.Tensor)}

    def fusion(self, name: str) -> Fusion:
        """A fusion by its name."""
        fusion = self.fusions[name] if name in self.fusions else self.early_fusions[name]
        assert isinstance(fusion, Fusion)
        return fusion

    def layouts(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Tokens that each slot takes, from the amount of what each encoder reads (``frames``, ``waveform``).

        A modality whose amount is 0 or missing fills no slot.
        """
        streams: dict[str, Layout | None] = {}
        for name, encoder in self._encoders():
            seen = "frames" if encoder.reads == "faces" else encoder.reads  # at most one face a frame
            amount = 1 if encoder.reads == "instruction" else amounts.get(seen, 0)
            streams[name] = encoder.layout(amount) if amount else None
        streams = _lay_out(self.early_fusions, streams)
        projected = {
            name: self._projector(name).layout(layout)._replace(levels=()) if (layout := streams[source]) else None
            for name, source in self.sources.items()
        }
        streams = _lay_out(self.fusions, self._with_projected(streams, projected))
        return {slot: layout.total if (layout := streams.get(slot)) else 0 for slot in SLOTS}

    @property
    def transforms(self) -> dict[str, tuple[str, Callable[[Any], torch.Tensor]]]:
        """For each signal, the field of a sample that it reads and what makes it of that field."""
        return {name: (encoder.reads, encoder.transform) for name, encoder in self._encoders()}

    @property
    def frozen(self) -> dict[str, tuple[nn.Module, bool]]:
        """The encoders of media that do not learn, each with whether something reads its levels."""
        fusions = [fusion for fusion in self.early_fusions.values() if isinstance(fusion, Fusion)]
        leveled = {name for fusion in fusions for name in (*fusion.inputs, fusion.condition)}
        return {
            name: (encoder, name in leveled)
            for name, encoder in self._encoders()
            if encoder.reads != "instruction" and not any(each.requires_grad for each in encoder.parameters())
        }

    def train(self, mode: bool = True) -> "OmniModel":
        """As usual, but what is frozen stays in eval mode: no dropout, no stochastic depth where nothing learns."""
        super().train(mode)
        eval_frozen(self)
        return self

    def _encoders(self) -> list[tuple[str, Encoder]]:
        return [(name, module) for name, module in self.encoders.items() if isinstance(module, Encoder)]

    def embedded(self, batch: Batch, parts: Set[str] | None = None) -> tuple[Tensor, Tensor, Streams]:
        """The row with its streams in their places; where ``parts`` are named, of these alone."""

        def runs(group: str, name: str) -> bool:
            return parts is None or f"{group}.{name}" in parts

        def fused(group: str, fusions: nn.ModuleDict, streams: Streams) -> Streams:
            for name, fusion in fusions.items():
                if runs(group, name):
                    streams = fusion(streams)
                else:
                    self.fusion(name).weights = None  # those of an earlier batch
            return streams

        read_streams = {name: read(made, name, batch) for name, made in self._encoders() if runs("encoders", name)}
        streams = fused("early_fusions", self.early_fusions, read_streams)
        projected = {
            name: project_real(self._projector(name), streams[source], streams.get(self.conditions.get(name, "")))
            for name, source in self.sources.items()
            if runs("projectors", name)
        }
        streams = fused("fusions", self.fusions, self._with_projected(streams, projected))
        slots = {slot: streams[slot] for slot in SLOTS if slot in streams}
        has_gaps = batch.has_gaps or any(signal.has_gaps for signal in batch.signals.values())
        embeds = self.llm.embed(batch.input_ids)
        return *splice(embeds, batch.input_ids, batch.bounds.tolist(), slots, has_gaps), slots

    def parts_for(self, slots: Set[str]) -> set[str]:
        """The parts that take part in filling these slots, as ``group.name``: from the slots back to the encoders."""
        needed, parts = set(slots), set[str]()

        def back(group: str, fusions: nn.ModuleDict) -> None:
            for name in reversed(list(fusions)):
                fusion = self.fusion(name)
                if fusion.output in needed:
                    parts.add(f"{group}.{name}")
                    needed.remove(fusion.output)
                    needed.update(stream for stream in (*fusion.inputs, fusion.condition) if stream)

        back("fusions", self.fusions)
        projected = [name for name in self.sources if name in needed]
        needed.difference_update(projected)
        for name in projected:
            parts.add(f"projectors.{name}")
            needed.update(stream for stream in (self.sources[name], self.conditions.get(name)) if stream)
        back("early_fusions", self.early_fusions)
        return parts | {f"encoders.{name}" for name in needed}

    def _projector(self, name: str) -> Projector:
        projector = self.projectors[name]
        assert isinstance(projector, Projector)
        return projector

    def _with_projected(self, streams: Mapping[str, _T], projected: Mapping[str, _T]) -> dict[str, _T]:
        """Replace every stream that a projector reads; the instruction, which none reads, stays."""
        read = set(self.sources.values())
        return {name: stream for name, stream in streams.items() if name not in read} | dict(projected)

    def _check_sources(self, projectors: Mapping[str, Any], dims: Mapping[str, int]) -> None:
        if foreign := sorted(set(self.sources) - set(projectors)):
            raise ValueError(f"sources names {foreign}, but the projectors are {sorted(projectors)}.")
        if missing := {name: source for name, source in self.sources.items() if source not in dims}:
            raise ValueError(f"these projectors read streams that are not there: {missing}; there are {dict(dims)}.")

    def _check_words(self) -> None:
        words = {name for name, encoder in self._encoders() if encoder.reads == "instruction"}
        read = {*self.sources.values()}
        for fusion in [*self.early_fusions.values(), *self.fusions.values()]:
            assert isinstance(fusion, Fusion)
            read |= {*fusion.inputs}
        if lost := sorted(words & read):
            raise ValueError(
                f"the streams {lost} are the instruction, which stands in the text already and fills no slot: use them "
                "as the `condition` of a fusion, or in the `conditions` of a projector."
            )

    def _check_conditions(self, dims: Mapping[str, int]) -> None:
        takers = sorted(name for name in self.projectors if self._projector(name).takes_condition)
        if foreign := sorted(set(self.conditions) - set(takers)):
            raise ValueError(f"conditions names {foreign}, but the projectors that take a condition are {takers}.")
        if missing := {name: stream for name, stream in self.conditions.items() if stream not in dims}:
            raise ValueError(
                f"these projectors are steered by streams that are not there: {missing}; there are {dims}."
            )

    def _check_ends(self, dims: Mapping[str, int], hidden_size: int) -> None:
        conditions: set[Any] = {fusion.condition for fusion in [*self.early_fusions.values(), *self.fusions.values()]}
        conditions.update(self.conditions.values())
        if lost := sorted(set(dims) - set(SLOTS) - conditions):
            raise ValueError(
                f"the streams {lost} end nowhere: no fusion reads them and no slot has their name ({', '.join(SLOTS)})."
            )
        if wrong := {slot: dims[slot] for slot in SLOTS if dims.get(slot, hidden_size) != hidden_size}:
            raise ValueError(f"the slots {wrong} do not have the language model's width {hidden_size}: add projectors.")


def eval_frozen(module: nn.Module) -> bool | None:
    """Put every module in eval mode whose parameters are all frozen, with all below it.

    Returns:
        Whether something in it learns, ``None`` where it has no parameters.
    """
    children = [(child, eval_frozen(child)) for child in module.children()]
    learns = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    learns += [learning for _, learning in children if learning is not None]
    if not learns:
        return None
    if not any(learns):
        module.training = False
        for child, learning in children:
            if learning is None:  # dropout, activations: as what they serve
                child.eval()
    return any(learns)


def read(encoder: Encoder, name: str, batch: Batch) -> Features:
    """What an encoder makes of its signals, and what it has made before of the samples without one."""
    kept = batch.features.get(name)
    if kept is not None and name not in batch.signals:
        return kept
    made: Features = encoder(batch.signals[name])
    return made if kept is None else either(kept, made)


def either(one: Features, other: Features) -> Features:
    """The real tokens of two streams, of which each lacks the samples that the other has."""
    moments = max(one.tokens.shape[1], other.tokens.shape[1])
    ours, theirs = (F.pad(each.tokens, (0, 0, 0, 0, 0, moments - each.tokens.shape[1])) for each in (one, other))
    here, there = (F.pad(each.mask, (0, 0, 0, moments - each.mask.shape[1])) for each in (one, other))
    # nobody reads levels that were not kept
    levels = tuple(either(*pair) for pair in zip(one.levels, other.levels, strict=False))
    return Features(torch.where(here[..., None], ours, theirs), here | there, one.grid, levels)


def project_real(projector: Projector, features: Features, condition: Features | None = None) -> Features:
    """Project only the samples that have the stream; without any, one blank sample, so that every rank takes part."""
    real = features.mask.flatten(1).any(dim=1)
    rows = torch.arange(len(real), device=real.device) if real.all() else real.nonzero().squeeze(-1)
    rows = rows if len(rows) else rows.new_zeros(1)
    given = {} if condition is None else {"condition": _rows(condition, rows)}
    part: Features = projector(_rows(features, rows), **given)
    if len(rows) == len(real):
        return part
    size = (len(real), *part.tokens.shape[1:])
    tokens = part.tokens.new_zeros(size).index_copy(0, rows, part.tokens)
    return replace(part, tokens=tokens, mask=part.mask.new_zeros(size[:-1]).index_copy(0, rows, part.mask))


def _rows(features: Features, rows: torch.Tensor) -> Features:
    return replace(features, tokens=features.tokens[rows], mask=features.mask[rows], levels=())


def _chain(makers: Mapping[str, Callable[..., Fusion]], dims: dict[str, int]) -> tuple[nn.ModuleDict, dict[str, int]]:
    """Build fusions in order, each told the widths that the ones before it leave."""
    fusions = nn.ModuleDict()
    for name, make in makers.items():
        fusion = make(dims=dims)
        fusions[name] = fusion
        dims = fusion.without_inputs(dims) | {fusion.output: fusion.out_dim}
    return fusions, dims


def _lay_out(fusions: nn.ModuleDict, streams: dict[str, Layout | None]) -> dict[str, Layout | None]:
    """What ``_chain`` does to widths and ``forward`` to tokens, for layouts."""
    for fusion in fusions.values():
        assert isinstance(fusion, Fusion)
        there = [layout for name in fusion.inputs if (layout := streams[name])]
        merged = fusion.layout(there) if len(there) == len(fusion.inputs) else None
        streams = fusion.without_inputs(streams) | {fusion.output: merged}
    return streams
