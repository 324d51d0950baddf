"""Attention of packed samples: which kernel gets what, and one operation for torch.compile."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnihuman.llm import packed
from omnihuman.llm.causal import CausalLM
from omnihuman.llm.packed import Segments, packed_attention
from tests.llm.test_causal import ARCHITECTURES, SIZES, build_llm, draw_samples, pack

Inputs = tuple[Tensor, Tensor, Tensor]


def draw_heads(length: int, dtype: torch.dtype = torch.float32) -> Inputs:
    torch.manual_seed(0)
    heads = [torch.randn(1, num_heads, length, 8, requires_grad=True) for num_heads in (4, 2, 2)]
    query, key, value = (head.to(dtype) for head in heads)
    return query, key, value


def attend(inputs: Inputs, segments: Segments, **options: Any) -> Tensor:
    return packed_attention(nn.Identity(), *inputs, None, segments=segments, **options)[0]


class Kernel:
    """Stands in for the kernel of CUDA, and remembers its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Inputs, Tensor, dict[str, Any]]] = []

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, starts: Tensor, _: Tensor, *longest: int, **options: Any
    ) -> Tensor:
        self.calls.append(((query, key, value), starts, options))
        heads = [tensor.transpose(0, 1)[None] for tensor in (query, key, value)]
        return packed._attend_each(*heads, starts.tolist(), options["scale"])[0].transpose(0, 1)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(packed, "_is_on_gpu", lambda tensor: True)
    monkeypatch.setattr(packed, "varlen_attn", kernel)
    monkeypatch.setattr(packed, "HAS_GROUPED_QUERIES", True)
    return kernel


def test_kernel_is_reached_in_mixed_precision(kernel: Kernel, tokenizer_folder: str) -> None:
    torch.manual_seed(0)
    llm: CausalLM = build_llm(tokenizer_folder, architecture=SIZES | ARCHITECTURES["qwen2"])
    samples = pack(draw_samples(llm, 7, 12, 3))
    expected, _ = llm(*samples)
    assert not kernel.calls, "float32 has no such kernel"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs, _ = llm(*samples)
    assert len(kernel.calls) == 2
    for inputs, starts, options in kernel.calls:
        assert {tensor.dtype for tensor in inputs} == {torch.bfloat16}
        assert [tensor.shape[1] for tensor in inputs] == [4, 2, 2] and options["enable_gqa"]
        assert starts is kernel.calls[0][1] and starts.dtype == torch.int32 and starts.tolist() == [0, 7, 19, 22]
    torch.testing.assert_close(log_probs, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("has_grouped_queries", [False, True])
def test_kernel_attends_as_single_samples_do(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, has_grouped_queries: bool
) -> None:
    inputs, segments = draw_heads(9, torch.bfloat16), Segments([0, 4, 9], torch.device("cpu"))
    monkeypatch.setattr(packed, "HAS_GROUPED_QUERIES", has_grouped_queries)
    by_kernel = attend(inputs, segments, scaling=0.3)
    assert len(kernel.calls) == 1
    monkeypatch.setattr(packed, "_is_on_gpu", lambda tensor: False)
    torch.testing.assert_close(by_kernel, attend(inputs, segments, scaling=0.3))


def test_kernel_without_dropout_is_not_used_with_it(kernel: Kernel) -> None:
    attend(draw_heads(4, torch.bfloat16), Segments([0, 4], torch.device("cpu")), dropout=0.5)
    assert not kernel.calls


def test_real_kernel_takes_the_arguments() -> None:
    inputs, segments = draw_heads(9, torch.bfloat16), Segments([0, 4, 9], torch.device("meta"))
    attended = packed._attend_by_kernel(*(tensor.to("meta") for tensor in inputs), segments, 0.3)
    assert attended.shape == (1, 9, 4, 8)


@pytest.mark.slow
def test_compiled_attention_is_one_operation_for_all_bounds() -> None:
    segments = [Segments(bounds, torch.device("cpu")) for bounds in ([0, 4, 9], [0, 9], [0, 2, 3, 7])]
    lengths: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        targets = [str(node.target) for node in graph.graph.nodes if "packed_attention" in str(node.target)]
        lengths.append(len(targets))
        return graph

    compiled = torch.compile(attend, backend=backend, fullgraph=True, dynamic=True)
    for entry in segments:
        inputs = draw_heads(entry.bounds[-1])
        results = []
        for call in (compiled, attend):
            output = call(inputs, entry, scaling=0.3)
            results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
        torch.testing.assert_close(*results)
    assert lengths == [1], "other bounds compile nothing anew"
