"""The blocks of the language model that a training recomputes, chosen by the memory of its GPUs."""

import logging

import torch
from omegaconf import DictConfig

from omnihuman.llm.blocks import AUTO
from omnihuman.model.omni import OmniModel
from omnihuman.training.devices import count_ranks

log = logging.getLogger(__name__)


def choose_recomputation(config: DictConfig, model: OmniModel) -> None:
    """Set the share of the blocks that are recomputed, where the config leaves it open, and log it.

    All devices must have the memory of this one, so that all processes choose the same share.

    Args:
        config: composed root config of the run.
        model: that is trained; its language model may be frozen.
    """
    if config.model.llm.activation_checkpointing != AUTO:
        return
    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        log.info("activation_checkpointing=auto: no GPU, nothing is recomputed")
        return
    from omnihuman.cost.checkpointing import choose_share

    num_devices = count_ranks(config.trainer.devices, config.trainer.num_nodes)
    free, total = torch.cuda.mem_get_info()
    memory = free if num_devices == 1 else total
    share = choose_share(config, memory, num_devices)
    log.info(
        "activation_checkpointing=auto: %.0f %% of the blocks are recomputed, by the forecast for %.0f GiB",
        100 * share,
        memory / 2**30,
    )
    model.llm.recompute(share)
