"""Every rank reads and draws what it stores, and no more."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM

from omnihuman.build import compose_part
from omnihuman.llm.causal import CausalLM
from omnihuman.model import materialize as module
from omnihuman.model.materialize import materialize
from omnihuman.nn.deferred import Recording
from omnihuman.training.weights import load_weights, save_weights, write_weights
from tests.programs import call_on_ranks

CPU = torch.device("cpu")
LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
SLACK = 12 * 2**20
"""Bytes that a process may need beside tensors."""


class Net(nn.Module):
    """A language model with a projector whose output has three rows: of four ranks, one has none of them."""

    def __init__(self, weights: str, lora: dict[str, Any] | None) -> None:
        super().__init__()
        part = compose_part("llm", "causal")
        self.llm = CausalLM(part.tokenizer, template=dict(part.template), weights=weights, lora=lora)
        self.narrow = nn.Linear(self.llm.hidden_size, 3)
        self.wide = nn.Linear(3, self.llm.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        embeds = self.llm.embed(ids)
        embeds = embeds + self.wide(self.narrow(embeds))
        log_probs, _ = self.llm(embeds, ids, torch.arange(ids.shape[1])[None], [0, ids.shape[1]])
        return -log_probs.mean()


def write_checkpoint(folder: Path, *, is_tied: bool = False, **sizes: int) -> str:
    """Write a language model in the layout of the hub, in bfloat16 and several files."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "vocab_size": 2048} | sizes
    config = AutoConfig.for_model(
        "qwen2", num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=is_tied, **sizes
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=f"{sizes['vocab_size'] * sizes['hidden_size'] * 2 // 1000 + 1}KB")
    return str(folder)


def build_net(weights: str, lora: dict[str, Any] | None, *files: Path) -> tuple[Net, Recording]:
    torch.manual_seed(2)
    recording = Recording()
    with recording:
        net = Net(weights, lora)
    recording.finish(net)
    for file in files:
        load_weights(net, file, recording=recording)
    return net, recording


def shard(net: Net) -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in net.llm.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)


def compute_loss(net: Net) -> float:
    return float(net(torch.arange(3, 40)[None]).detach())


def load_and_compute(weights: str, lora: dict[str, Any] | None, *files: Path) -> tuple[float, dict[str, Any]]:
    """Return the loss of a sharded model, and its gathered parameters."""
    net, recording = build_net(weights, lora, *files)
    shard(net)
    materialize(net, recording, CPU)
    assert not any(tensor.is_meta for tensor in [*net.parameters(), *net.buffers()])
    parameters = {}
    for name, parameter in net.named_parameters():
        assert isinstance(parameter, DTensor) and parameter.dtype == torch.float32
        parameters[name] = parameter.detach().full_tensor().numpy()
    return compute_loss(net), parameters


@pytest.mark.parametrize(("lora", "is_tied"), [(None, False), (LORA, True)])
def test_ranks_have_the_values_and_the_loss_of_one_process(
    lora: dict[str, Any] | None, is_tied: bool, tmp_path: Path
) -> None:
    """From a checkpoint in the official layout, with weights of a parent and new parts."""
    weights, file = write_checkpoint(tmp_path / "hub", is_tied=is_tied), tmp_path / "weights.safetensors"
    torch.manual_seed(2)
    expected = Net(weights, lora)
    trained = {name: tensor + 0.5 for name, tensor in expected.state_dict().items() if name.startswith("wide")}
    save_weights(file, trained, trained, {}, max_shard_size=20)
    load_weights(expected, file)
    for num_ranks in (1, 2, 4):
        for loss, parameters in call_on_ranks(num_ranks, load_and_compute, weights, lora, file):
            assert loss == pytest.approx(compute_loss(expected), abs=1e-5)
            assert parameters.keys() == dict(expected.named_parameters()).keys()
            for name, parameter in expected.named_parameters():
                assert torch.equal(torch.from_numpy(parameters[name]), parameter), name


def load_damaged(weights: str) -> str:
    net, recording = build_net(weights, None)
    shard(net)
    try:
        materialize(net, recording, CPU)
    except ValueError as error:
        return str(error)
    return ""


def test_every_rank_raises_what_one_has_read(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        tensors = load_file(file)
        if "lm_head.weight" in tensors:
            tensors["lm_head.weight"][-1, 0] = float("nan")  # in the last rank's shard
            save_file(tensors, file, metadata={"format": "pt"})
    for message in call_on_ranks(2, load_damaged, weights):
        assert weights in message and "llm.model.lm_head.weight is not finite" in message


def write_gathered(weights: str, file: Path, max_shard_size: int, is_broken: bool) -> str:
    net, recording = build_net(weights, None)
    shard(net)
    materialize(net, recording, CPU)
    if is_broken:
        with torch.no_grad():
            net.wide.bias.fill_(float("nan"))
    compute_loss(net)  # leaves the parameters of the root gathered
    objective: Any = SimpleNamespace(model=net, is_sharded=True, trainer=SimpleNamespace())
    objective.trainer.is_global_zero = dist.get_rank() == 0
    objective.trainer.strategy = SimpleNamespace(broadcast=_broadcast)
    names = [name for name, _ in net.named_parameters()]
    try:
        write_weights(file, objective, names, {"experiment": "x"}, max_shard_size)
    except ValueError as error:
        return str(error)
    return ""


def _broadcast(value: Any) -> Any:
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@pytest.mark.parametrize("max_shard_size", [10**9, 50_000])
def test_sharded_weights_are_written_as_one_process_writes_them(max_shard_size: int, tmp_path: Path) -> None:
    weights, file, expected = write_checkpoint(tmp_path / "hub"), tmp_path / "a/w.safetensors", tmp_path / "b"
    torch.manual_seed(2)
    net = Net(weights, None)
    expected.mkdir()
    save_weights(
        expected / "w.safetensors", net.state_dict(), dict(net.named_parameters()), {"experiment": "x"}, max_shard_size
    )
    assert call_on_ranks(2, write_gathered, weights, file, max_shard_size, False) == ["", ""]
    written = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    assert written == {path.name: path.read_bytes() for path in expected.iterdir()}
    assert (len(written) == 1) == (max_shard_size == 10**9)


def test_weights_that_are_not_finite_raise_on_every_rank(tmp_path: Path) -> None:
    weights, file = write_checkpoint(tmp_path / "hub"), tmp_path / "w.safetensors"
    for message in call_on_ranks(2, write_gathered, weights, file, 10**9, True):
        assert "wide.bias is not finite" in message
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def measure(weights: str) -> tuple[int, int, int]:
    """Return the private memory that a rank needs at most while it loads, that of its shards, and of the largest."""
    net, recording = build_net(weights, None)
    shard(net)
    before, peak = read_private_bytes(), [0]
    check = module.check_finite

    def checked(*arguments: Any) -> None:
        peak[0] = max(peak[0], read_private_bytes())
        check(*arguments)

    module.check_finite = checked
    materialize(net, recording, CPU)
    peak[0] = max(peak[0], read_private_bytes())
    shards = sum(parameter.to_local().nbytes for parameter in net.parameters() if isinstance(parameter, DTensor))
    return peak[0] - before, shards, max(parameter.nbytes for parameter in net.parameters())


def read_private_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.mark.slow
def test_rank_needs_the_memory_of_its_shard(tmp_path: Path) -> None:
    """150 MB in bfloat16, 300 MB in float32."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "vocab_size": 30_000}
    weights = write_checkpoint(tmp_path, **sizes)
    for num_ranks in (1, 2, 4):
        for peak, shards, largest in call_on_ranks(num_ranks, measure, weights):
            print(f"{num_ranks} ranks: {peak / 2**20:.0f} MiB private, shards {shards / 2**20:.0f} MiB")
            assert shards < peak < shards + largest + SLACK
