"""Training for a fixed time: AdamW, warm-up, cosine schedule, and running means of the losses."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Trainer:
    """Train parameters until a budget of processor time is spent.

    Args:
        name: of the model, for the log.
        parameters: parameters or parameter groups.
        lr: largest learning rate.
        minutes: of processor time.
        weight_decay: of groups without their own.
        warmup: optimizer steps until the largest learning rate.
        log_every: optimizer steps between two lines of the log.
    """

    def __init__(
        self,
        name: str,
        parameters: Iterable[Any],
        lr: float,
        minutes: float,
        *,
        weight_decay: float,
        warmup: int = 100,
        log_every: int = 50,
    ) -> None:
        self.name, self.lr, self.seconds = name, lr, 60 * minutes
        self.warmup, self.log_every = warmup, log_every
        self.optimizer = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.98), weight_decay=weight_decay)
        self.num_steps = 0
        self.means: dict[str, float] = {}
        self.start = time.process_time()

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        return (time.process_time() - self.start) / self.seconds

    def is_running(self) -> bool:
        """Return True if there is time for another step, and set its learning rate."""
        progress = self.progress
        factor = min(1, (self.num_steps + 1) / self.warmup) * (0.5 + 0.5 * np.cos(np.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        return progress < 1

    def step(self, loss: Tensor, **metrics: Tensor) -> None:
        """Take an optimizer step, and add metrics to their running means."""
        parameters: list[nn.Parameter] = []
        for group in self.optimizer.param_groups:
            parameters += group["params"]
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        for name, metric in metrics.items():
            value = float(metric)
            self.means[name] = 0.98 * self.means.get(name, value) + 0.02 * value
        if self.num_steps % self.log_every == 0:
            means = " ".join(f"{name} {mean:.3f}" for name, mean in self.means.items())
            print(f"{self.name} step {self.num_steps} {self.seconds * self.progress:.0f} s {means}", flush=True)
        self.num_steps += 1
