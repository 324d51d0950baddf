"""Padding and balance of packed steps, beside those of samples that are padded in the order in which they come."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from omnihuman.benching.table import Table
from omnihuman.build import build
from omnihuman.cost.forecast import build_meta_model
from omnihuman.data.packing import EpochPlan, Indices, check_lengths, shuffle_indices, sort_windows
from omnihuman.model.omni import OmniModel
from omnihuman.model.sharding import iterate_blocks

NUM_STEPS = 16
"""Steps of each row. Their samples have the lengths of the data, which are drawn as often as that needs."""

COLUMNS = (
    "ranks",
    "window",
    "samples a step",
    "micro-batches",
    "least possible",
    "fill",
    "balance in tokens",
    "balance in FLOPs",
    "padded / packed positions",
    "balance of padded",
)

Numbers = NDArray[np.float64]


def measure(config: DictConfig, overrides: Sequence[str]) -> Iterator[Table]:
    """Yield a table with a row for every number of ranks and every window.

    ``fill`` is the share of the limit of tokens that a micro-batch has; ``balance`` the mean load of the ranks by that
    of the fullest one, in the tokens and in the FLOPs of the language model. The padded way is the official one: as
    many samples in each micro-batch, in the order in which they come, each as long as the longest.
    """
    model = build_meta_model(config)
    config.data.features = config.data.index_folder = None
    data = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
    lengths, max_tokens = data.train_samples.lengths, int(config.data.max_tokens)
    check_lengths(lengths, max_tokens)
    shortest, middle, longest = np.percentile(lengths, [5, 50, 95])
    title = f"{len(lengths):,} samples of {shortest:.0f}, {middle:.0f}, {longest:.0f} tokens (5, 50, 95 %)"
    table = Table(f"{title}; {NUM_STEPS} steps of {max_tokens} tokens a micro-batch", COLUMNS)
    for num_ranks in map(int, config.ranks):
        batch_size = num_ranks * int(config.samples_per_rank)
        drawn_lengths = np.random.default_rng(0).choice(lengths, batch_size * NUM_STEPS * 2)
        for window in map(int, config.windows):
            order = shuffled = shuffle_indices(len(drawn_lengths), int(config.seed), 0)
            if window > 1:
                order = sort_windows(shuffled, drawn_lengths, batch_size, window, int(config.seed), 0)
            limits: dict[str, Any] = {"batch_size": batch_size, "max_tokens": max_tokens, "world": num_ranks}
            plan = EpochPlan(drawn_lengths, np.ones_like(drawn_lengths), order, **limits)
            figures = measure_steps(plan, shuffled, count_flops(model, drawn_lengths))
            table.rows.append((num_ranks, window, batch_size, *figures))
    yield table


def count_flops(model: OmniModel, lengths: NDArray[np.int32]) -> Numbers:
    """Return the FLOPs of a forward pass of the language model's blocks for samples of these lengths."""
    blocks = list(iterate_blocks(model.llm))
    weights = sum(parameter.numel() for parameter in nn.ModuleList(blocks).parameters())
    tokens = lengths.astype(np.float64)
    # 2 for a multiplication with its addition; scores and values of causal attention are one square together
    flops: Numbers = 2 * weights * tokens + 2 * len(blocks) * model.llm.hidden_size * tokens**2
    return flops


def measure_steps(plan: EpochPlan, shuffled: Indices, flops: Numbers) -> Iterator[float]:
    """Yield the means over the steps of all columns that are measured.

    Args:
        plan: the steps.
        shuffled: the samples as they come.
        flops: of every sample.
    """
    rows = []
    for number in range(NUM_STEPS):
        bins = plan.pack(number)
        counts = np.array([len(members) for members in bins])
        tokens = np.array([plan.lengths[members].sum() for members in bins]).reshape(-1, plan.world)
        work = np.array([flops[members].sum() for members in bins]).reshape(-1, plan.world)
        members = shuffled[number * plan.batch_size : (number + 1) * plan.batch_size]
        padded = pad_samples(plan.lengths[members], len(bins))
        least = -(-tokens.sum() // (plan.world * plan.max_tokens))
        row = [len(tokens), least, tokens.sum() / (counts > 0).sum() / plan.max_tokens]
        row += [find_balance(tokens.sum(axis=0)), find_balance(work.sum(axis=0))]
        rows.append([*row, padded.sum() / tokens.sum(), find_balance(padded.reshape(-1, plan.world).sum(axis=0))])
    yield from map(float, np.mean(rows, axis=0))


def pad_samples(lengths: NDArray[np.int32], num_bins: int) -> Numbers:
    """Return the positions of every micro-batch of a step if samples are padded in the order in which they come.

    >>> pad_samples(np.array([5, 3, 2, 4]), 2).tolist()
    [10.0, 8.0]
    """
    parts = np.array_split(lengths, num_bins)
    return np.array([len(part) * part.max(initial=0) for part in parts], np.float64)


def find_balance(loads: Numbers) -> float:
    """Return the mean load by the largest one.

    >>> find_balance(np.array([1.0, 3.0, 2.0, 2.0])).item()
    0.6666666666666666
    """
    balance: float = loads.mean() / loads.max()
    return balance
