"""A trained run that can be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, register_resolvers
from omnihuman.data.dataset import Samples
from omnihuman.data.module import OmniData
from omnihuman.data.record import Record
from omnihuman.model.omni import OmniModel
from omnihuman.training.runs import Run
from omnihuman.training.weights import load_weights
from omnihuman.types import Batch

SENSES = {"frames": "V", "faces": "F", "waveform": "A"}
"""What an encoder reads -> its letter in the papers' tables."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: its words.
        tokens: how many it took.
        weights: fusion -> stream -> weight, of the fusions that weigh.
        log_probs: of the options, where they were asked for.
    """

    text: str
    tokens: int
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    log_probs: tuple[float, ...] = ()


class Answerer:
    """A model with the data path it was trained with.

    Args:
        model: on its device.
        data: connected to the model.
    """

    def __init__(self, model: OmniModel, data: OmniData) -> None:
        self.model, self.data = model.eval(), data

    @classmethod
    def of_run(
        cls, folder: Path, *, merge_lora: bool = False, faces: str | None = None, device: str | None = None
    ) -> "Answerer":
        """The model of a finished run.

        Args:
            folder: of the run.
            merge_lora: fold LoRA into the weights first.
            faces: another source of faces than the run's own: ``whole``, ``none`` ...
            device: where to; ``None`` for the first GPU or the CPU.

        Raises:
            ValueError: the folder holds no finished run.
        """
        weights = Run(folder, "").weights
        if not weights.is_file():
            runs = {path.parent.name for path in folder.parent.glob("*/weights.safetensors")}
            raise ValueError(
                f"{folder} holds no finished run (its parent holds {sorted(runs) or 'none'}); train it: "
                f"python -m omnihuman.train +experiment={folder.name} size={folder.parent.name}"
            )
        register_resolvers()  # the run's config holds what they resolve
        trained = OmegaConf.load(folder / "config.yaml")
        assert isinstance(trained, DictConfig)
        model: OmniModel = build(trained.model)
        load_weights(model, weights)
        if merge_lora:
            model.llm.merge_lora()
        if faces is not None:
            trained.data.face.source = faces
        model.requires_grad_(False).to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        data: OmniData = build(trained.data, make=None)
        data.connect(model.transforms, model.layouts, model.llm.tokenizer, model.llm.chat, model.frozen)
        return cls(model, data)

    @property
    def senses(self) -> str:
        """The letters of what the model reads: ``VAF``, ``VA`` ..."""
        read = {SENSES[reads] for reads, _ in self.model.transforms.values() if reads in SENSES}
        return "".join(letter for letter in "VAF" if letter in read)

    def plan(self, records: Sequence[Record], views: Sequence[str] = ()) -> Samples:
        """Questions whose size is known; what cannot be asked is in ``skipped`` with the reason."""
        return self.data.questions(records, views)

    def answer(self, batch: Batch, options: Sequence[Sequence[str]] = (), **how: Any) -> list[Answer]:
        """The answers to a batch of prompts.

        Args:
            batch: of ``Samples`` with prompts.
            options: of every sample the answers whose log-probabilities are wanted.
            how: of transformers' ``generate``: ``max_new_tokens``, ``do_sample`` ...
        """
        batch = batch.to(next(self.model.parameters()).device)
        texts = self.model.generate(batch, **how)
        weighed = self.model.weighed()
        log_probs = self.model.option_log_probs(batch, options) if any(options) else [()] * len(texts)
        count = self.model.llm.tokenizer
        return [
            Answer(
                text,
                len(count.encode(text, add_special_tokens=False)),
                {
                    name: {
                        stream: round(weight, 4)
                        for stream, weight in zip(self.model.fusion(name).inputs, weights[row].tolist(), strict=True)
                    }
                    for name, weights in weighed.items()
                },
                tuple(round(value, 4) for value in log_probs[row]),
            )
            for row, text in enumerate(texts)
        ]
