"""Learning-rate schedules."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.03, floor: float = 0.0) -> LambdaLR:
    """Return a schedule: a linear rise over ``warmup`` of the steps, then half a cosine to ``floor`` times the peak.

    Reference: HumanOmni ``scripts/train/finetune_omni.sh`` (cosine, warm-up 0.03).
    """
    warmup_steps = math.ceil(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)
