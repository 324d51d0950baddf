"""Blocks that are recomputed or compiled give the same losses and gradients."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

import omnihuman.llm.blocks as blocks
from omnihuman.llm.causal import CausalLM
from tests.llm.test_causal import SIZES, build_llm, draw_samples, pack

Result = tuple[Tensor, ...]


def build(tokenizer: str, num_layers: int = 4, **options: Any) -> CausalLM:
    torch.manual_seed(0)
    return build_llm(tokenizer, architecture=SIZES | {"num_hidden_layers": num_layers}, **options)


def run(llm: CausalLM, *lengths: int) -> Result:
    """Return the loss and the gradients of embeddings and weights."""
    embeds, *rest = pack(draw_samples(llm, *lengths))
    embeds.requires_grad_()
    weights = [parameter for parameter in llm.parameters() if parameter.requires_grad]
    loss = -llm(embeds, *rest)[0].sum()
    return (loss, *torch.autograd.grad(loss, [embeds, *weights], allow_unused=True, materialize_grads=True))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the inputs of the blocks that are recomputed from now on."""
    inputs: list[Any] = []

    def count(*args: Any, **kwargs: Any) -> Any:
        inputs.append(args[1])
        return torch.utils.checkpoint.checkpoint(*args, **kwargs)

    monkeypatch.setattr(blocks, "checkpoint", count)
    return inputs


@pytest.mark.parametrize(("share", "num_recomputed"), [(False, 0), (0.25, 1), (0.5, 2), (0.6, 2), (1, 4), (True, 4)])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_share_of_the_blocks_is_recomputed(
    tokenizer_folder: str, calls: list[Any], share: float, num_recomputed: int, is_frozen: bool
) -> None:
    plain, llm = build(tokenizer_folder), build(tokenizer_folder, activation_checkpointing=share)
    for model in (plain, llm):
        model.train(not is_frozen).requires_grad_(not is_frozen)  # as a frozen part is
    torch.testing.assert_close(run(llm, 7, 3), run(plain, 7, 3), rtol=0, atol=0)
    assert len(set(calls)) == len(calls) == num_recomputed
    assert llm.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        llm(*pack(draw_samples(llm, 4)))
    assert len(calls) == num_recomputed


def test_a_share_that_a_training_chooses_takes_the_place_of_none(tokenizer_folder: str, calls: list[Any]) -> None:
    llm = build(tokenizer_folder, activation_checkpointing=blocks.AUTO)
    expected = run(llm, 7, 3)
    for share, num_recomputed in ((0.5, 2), (1.0, 4), (0.0, 0)):
        calls.clear()
        llm.recompute(share)
        torch.testing.assert_close(run(llm, 7, 3), expected, rtol=0, atol=0)
        assert len(calls) == num_recomputed


def test_a_copy_runs_its_own_blocks(tokenizer_folder: str) -> None:
    llm = build(tokenizer_folder, activation_checkpointing=True)
    copy = deepcopy(llm)
    torch.nn.init.zeros_(llm.model.model.layers[0].mlp.down_proj.weight)
    torch.testing.assert_close(run(copy, 5), run(build(tokenizer_folder), 5))


@pytest.mark.parametrize("share", ["some", -0.1, 1.5, None])
def test_a_share_that_is_none_is_refused(tokenizer_folder: str, share: Any) -> None:
    with pytest.raises(ValueError, match=f"activation_checkpointing={share}"):
        build(tokenizer_folder, activation_checkpointing=share)


def test_an_unknown_compiler_is_refused(tokenizer_folder: str) -> None:
    with pytest.raises(ValueError, match="compile=gcc"):
        build(tokenizer_folder, compile="gcc")


@pytest.mark.slow
def test_compiled_blocks_equal_others_and_share_one_graph(tokenizer_folder: str) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def remember(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.register_backend(compiler_fn=remember, name="remember")
    plain = build(tokenizer_folder)
    llm = build(tokenizer_folder, compile="remember", activation_checkpointing=0.5)
    for lengths in ((7, 12, 3), (4, 9), (6,)):
        torch.testing.assert_close(run(llm, *lengths), run(plain, *lengths))
    assert len(graphs) == 1, "all blocks and lengths share what is compiled"
