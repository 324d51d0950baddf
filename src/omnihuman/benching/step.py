"""A training step on samples of the data, beside one whose samples are padded and one whose features are cached."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from omegaconf import DictConfig

from omnihuman.benching.compare import build_table, measure_parts, measure_ways
from omnihuman.benching.table import Table
from omnihuman.benching.ways import TrainingStep, Way
from omnihuman.build import build
from omnihuman.llm.blocks import check_share
from omnihuman.model.omni import OmniModel
from omnihuman.training.warm import select_device
from omnihuman.types import Batch

PADDED = "padded, as official"


def measure(config: DictConfig, overrides: Sequence[str]) -> Iterator[Table]:
    """Yield a table of the ways, and one of the parts of the step."""
    device = select_device(config)
    step = TrainingStep(config, device)
    step.load(load_batches(config, step.model))
    share = check_share(config.model.llm.activation_checkpointing)
    base = Way(precision=str(config.trainer.precision), checkpointing=share, compiler=config.model.llm.compile)
    ways = {
        PADDED: replace(base, packing=False, compiler=None),
        "packed": base,
        "packed, features cached": replace(base, cache=True),
    }
    results = measure_ways(step, ways, int(config.repeats))
    num_samples = sum(len(batch.bounds) - 1 for batch in step.batches)
    title = f"{config.name}, size={config.size}: a step of {num_samples} samples in {len(step.batches)} micro-batches"
    yield build_table(title, step, results, PADDED)
    step.use(base)
    largest = max(step.batches, key=lambda batch: batch.input_ids.shape[1])
    yield measure_parts("parts of its largest micro-batch, each alone", step, largest)


def load_batches(config: DictConfig, model: OmniModel) -> list[Batch]:
    """Return the micro-batches of the first step of a training on one device."""
    config = config.copy()
    config.data.features = config.data.index_folder = None
    data = build(config.data)
    data.connect(model.transforms, model.count_tokens, model.llm.tokenizer, model.llm.template)
    return [data.train_samples[micro_batch] for micro_batch in data.plan_epoch(1, 0, 0)[0]]
