"""A sharded model has the losses and gradients of one process, and communicates no more than its units need."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from omnihuman.build import build, compose_config
from omnihuman.model.omni import OmniModel
from omnihuman.model.sharding import replicated_parameters, shard_model, sharded_units
from omnihuman.model.trainable import set_trainable
from omnihuman.training.bad_loss import compute_gradient_norm
from tests.model.test_omni import make_batch
from tests.programs import call_on_ranks

STAGE3 = {"projectors.*": 1e-3, "fusions.*": 1e-3, "llm.*": 1e-3}
ENCODERS = {"encoders.video.*": 1e-3, "projectors.audio.*": 1e-3}
ADAPTERS = "model.llm.lora={r: 2, target_modules: all-linear}"
UNTIED = (
    "model.llm.weights=null",
    "model.llm.architecture={model_type: qwen2, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, "
    "num_key_value_heads: 2, intermediate_size: 64, tie_word_embeddings: false}",
)


def build_model(table: dict[str, float], *overrides: str) -> OmniModel:
    torch.manual_seed(0)
    model: OmniModel = build(compose_config(["+experiment=humanomni_stage3", *overrides]).model)
    set_trainable(model, table)
    return model.train()


class Traffic(TorchDispatchMode):
    """Counts collectives, and the bytes that are gathered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()
        self.gathered = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            name = function._schema.name.partition("::")[2].strip("_")
            self.counts[name] += 1
            if name == "allgather_base":
                self.gathered += args[0].nbytes
        return function(*args, **(kwargs or {}))


def train_steps(model: OmniModel, indices: Sequence[Sequence[int]], steps: int = 3) -> tuple[list[float], list[float]]:
    """Return losses, and gradient norms before and after clipping, of steps on these samples in micro-batches."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    losses, norms = [], []
    for _ in range(steps):
        total = torch.zeros(())
        for micro_batch in indices:
            loss = model(make_batch(model, list(micro_batch))).loss / 10
            total += loss.detach()
            (loss * world).backward()
        if world > 1:
            dist.all_reduce(total)
        losses.append(float(total))
        norms.append(float(compute_gradient_norm(optimizer)))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        norms.append(float(compute_gradient_norm(optimizer)))
        optimizer.step()
        optimizer.zero_grad()
    return losses, norms


def train_sharded(
    table: dict[str, float], num_replicas: int, *overrides: str
) -> tuple[list[float], list[float], list[str]]:
    """Train on the ranks of a group, each with samples of other modalities; return also what is not sharded."""
    model = build_model(table, *overrides)
    world = dist.get_world_size()
    sizes, names = (world,), ("shard",)
    if num_replicas > 1:
        sizes, names = (num_replicas, world // num_replicas), ("replicate", "shard")
    shard_model(model, init_device_mesh("cpu", sizes, mesh_dim_names=names))
    unsharded = [name for name, p in model.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
    losses, norms = train_steps(model, [[[0], [1, 2], [3], [4]][dist.get_rank()]])
    return losses, norms, unsharded


@pytest.mark.parametrize(
    ("table", "num_ranks", "num_replicas", "overrides"),
    [
        (STAGE3, 2, 1, ()),
        (STAGE3, 4, 2, (ADAPTERS,)),
        (ENCODERS, 2, 1, UNTIED),
    ],
    ids=["stage 3, tied embeddings", "replicas with LoRA", "an encoder"],
)
def test_sharded_model_has_the_losses_and_norms_of_one_process(
    table: dict[str, float], num_ranks: int, num_replicas: int, overrides: tuple[str, ...]
) -> None:
    samples = [[0], [1, 2], [3], [4]][:num_ranks]
    losses, norms = train_steps(build_model(table, *overrides), samples)
    for sharded in call_on_ranks(num_ranks, train_sharded, table, num_replicas, *overrides):
        assert sharded[0] == pytest.approx(losses, abs=1e-5) and sharded[1] == pytest.approx(norms, rel=1e-4)
        assert sharded[2] == []


def has_gradients(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def measure_traffic(dtype: torch.dtype | None, num_micro_batches: int) -> tuple[Counter[str], int, int]:
    """Return the collectives of a step whose gradients are reduced at its end, gathered bytes, and trainable units."""
    model = build_model(STAGE3)
    num_trainable = len([unit for unit in sharded_units(model) if has_gradients(unit)])
    shard_model(model, init_device_mesh("cpu", (dist.get_world_size(),)), dtype)
    with Traffic() as traffic, torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None, cache_enabled=False):
        for number in range(num_micro_batches):
            model.set_requires_gradient_sync(number == num_micro_batches - 1)
            model(make_batch(model, [0])).loss.backward()
    gradients = {p.grad.dtype for p in model.parameters() if p.grad is not None}
    assert gradients == {torch.float32}
    return traffic.counts, traffic.gathered, num_trainable


def test_parameters_are_gathered_in_bfloat16_and_gradients_reduced_once() -> None:
    wide, narrow, several = (
        call_on_ranks(2, measure_traffic, dtype, num)[0]
        for dtype, num in ((None, 1), (torch.bfloat16, 1), (torch.bfloat16, 3))
    )
    assert narrow[1] * 2 == wide[1] and several[1] == 3 * narrow[1]
    num_units = narrow[2] + 1  # and the rest
    assert wide[0]["reduce_scatter_base"] == narrow[0]["reduce_scatter_base"] == num_units
    assert several[0]["reduce_scatter_base"] == num_units


def list_units(model: OmniModel) -> list[str]:
    units = set(sharded_units(model))
    return [name for name, module in model.named_modules() if module in units]


def test_units_are_parts_blocks_and_the_ends_of_the_llm() -> None:
    model = build_model(STAGE3)
    names = list_units(model)
    assert {"projectors.interaction", "projectors.face", "projectors.audio", "fusions.gate"} <= set(names)
    assert not any(name.startswith("encoders") for name in names)
    blocks = [f"llm.model.model.layers.{number}" for number in range(4)]
    assert [name for name in names if name.startswith("llm")] == blocks  # its embedding is its head
    assert not any(parameter.requires_grad for parameter in replicated_parameters(model))
    untied = list_units(build_model(ENCODERS, *UNTIED))
    assert {"llm.model.model.embed_tokens", "llm.model.lm_head", "encoders.video"} <= set(untied)
