"""The cache of features, filled for a run before it is trained."""

import logging
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from omegaconf import DictConfig

from omnihuman.build import build
from omnihuman.data.module import OmniData
from omnihuman.model.materialize import materialize
from omnihuman.model.sharding import frozen_encoders
from omnihuman.model.trainable import set_trainable
from omnihuman.nn.deferred import Recording
from omnihuman.training.assembly import build_initial_model, read_trainable
from omnihuman.training.chain import resolve_chain
from omnihuman.training.precision import build_precision


def fill_cache(config: DictConfig, overrides: Sequence[str]) -> None:
    """Compute the features of a run's training and validation clips that its cache lacks, on one device.

    Only the frozen encoders get memory.

    Args:
        config: composed root config of a run.
        overrides: the command line that it was composed from.

    Raises:
        ValueError: a run that this one starts from is not finished: its encoders may have other weights.
    """
    logging.getLogger().setLevel(logging.INFO)
    chain = resolve_chain(config, overrides)
    missing = [parent.run.folder for parent in chain.parents if not parent.run.can_be_parent()]
    if missing:
        raise ValueError(
            f"{missing[0]} is not finished, and the weights of the encoders may come from it: train it first."
        )
    config = chain.config
    precision = build_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    recording = Recording(draws_on_device=bool(config.random_weights))
    model, _ = build_initial_model(config, chain, recording)
    set_trainable(model, read_trainable(config))
    precision.convert_module(model)
    device = select_device(config)
    materialize(model, recording, device, frozen_encoders(model))
    data: OmniData = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template, model.frozen_encoders)
    # all that the data need of a trainer
    strategy = SimpleNamespace(precision_plugin=precision, root_device=device)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy)
    data.setup()


def select_device(config: DictConfig) -> torch.device:
    """Return the first device of a trainer."""
    is_cuda = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if is_cuda else "cpu")
