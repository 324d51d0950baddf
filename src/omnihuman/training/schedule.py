"""Learning-rate schedules."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.03, floor: float = 0.0) -> LambdaLR:
    """Linear rise over the first ``warmup`` of the steps, then half a cosine down to ``floor`` times the peak.

    Reference: HumanOmni ``scripts/train/finetune_omni.sh`` (cosine, warm-up 0.03).
    """
    rise = math.ceil(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = (step - rise) / max(1, total_steps - rise)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
