"""Quantised layers: their weights, memory and answers, on packed and padded samples."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from omnihuman.inference.answerer import Answerer, read_options
from omnihuman.llm.quantized import check_quantization, quantize_linears
from tests.llm.test_causal import ARCHITECTURES, SIZES, build_llm, draw_samples, pack

OPTIONS = ("happy", "sad", "neutral")
WEIGHTS = {"8bit": torch.int8, "4bit": torch.uint8}
ERROR = {"8bit": 0.02, "4bit": 0.15}
"""Relative, of a layer's output."""

TOLERANCE = {"8bit": 0.2, "4bit": 0.6}
"""Of the log-probability of an option, in nats."""

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs omnihuman[quantize]")


def list_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that are linear, quantised or not."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


@needs_bitsandbytes
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_but_the_output_is_quantised(kind: str, architecture: str, tokenizer_folder: str) -> None:
    torch.manual_seed(0)
    llm = build_llm(tokenizer_folder, architecture=SIZES | ARCHITECTURES[architecture]).eval()
    before = {name: layer.weight for name, layer in list_layers(llm.model).items()}
    samples = draw_samples(llm, 7, 12, 3)
    with torch.no_grad():
        expected, _ = llm(*pack(samples))
        quantize_linears(llm.model, kind, "cpu")
        log_probs, _ = llm(*pack(samples))
        single = torch.cat([llm(*pack([sample]))[0] for sample in samples])
    layers = list_layers(llm.model)
    assert layers.keys() == before.keys() and len(layers) == 15
    for name, layer in layers.items():
        is_output = name == "lm_head"
        assert layer.weight.dtype == (torch.float32 if is_output else WEIGHTS[kind]), name
        ratio = before[name].nbytes / layer.weight.nbytes
        assert ratio == (1 if is_output else {"8bit": 4, "4bit": 8}[kind])
        inputs = torch.randn(50, layer.in_features)
        output = F.linear(inputs, before[name], layer.bias)
        assert (layer(inputs) - output).norm() < ERROR[kind] * output.norm(), name
    assert not any(parameter.requires_grad for name, parameter in llm.model.named_parameters() if "_proj" in name)
    torch.testing.assert_close(log_probs, single, rtol=0, atol=1e-3)  # samples of a packed sequence stay apart
    assert not torch.equal(log_probs, expected)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", WEIGHTS)
def test_generation_in_a_padded_batch_equals_single_prompts(kind: str, tokenizer_folder: str) -> None:
    torch.manual_seed(0)
    llm = build_llm(tokenizer_folder, architecture=SIZES | ARCHITECTURES["qwen2"]).eval()
    quantize_linears(llm.model, kind, "cpu")
    samples = draw_samples(llm, 9, 5)
    embeds, _, _, bounds = pack(samples)
    batch = llm.generate_ids(embeds, bounds, max_new_tokens=6)
    for row, (prompt, _) in zip(batch, samples, strict=True):
        single = llm.generate_ids(prompt, [0, prompt.shape[1]], max_new_tokens=6)[0]
        assert torch.equal(row[: len(single)], single)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", WEIGHTS)
def test_model_answers_nearly_as_before(
    kind: str, make_run: Callable[[str], Path], corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = min((corpus / "media").glob("train_talk*.mp4"))
    log_probs = []
    for quantize in (None, kind):
        answerer = Answerer.load(make_run("favchat_stage3"), quantize=quantize, device="cpu")
        batch = answerer.pack_prompts([answerer.read_question("What is the main emotion?", video=clip)])
        answer = answerer.answer_batch(batch, [OPTIONS], max_new_tokens=4)[0]
        log_probs.append(torch.tensor(answer.log_probs))
    assert not any("lora" in name for name, _ in answerer.model.named_parameters())
    kinds = {layer.weight.dtype for layer in list_layers(answerer.model.llm.model).values()}
    assert kinds == {WEIGHTS[kind], torch.float32}
    for name, parameter in answerer.model.named_parameters():
        assert name.startswith("llm.") or parameter.dtype == torch.float32
    torch.testing.assert_close(log_probs[1], log_probs[0], rtol=0, atol=TOLERANCE[kind])
    assert not torch.equal(log_probs[1], log_probs[0])
    assert "MatMul8bitLt" not in caplog.text


def test_invalid_choice_and_missing_package_raise(
    monkeypatch: pytest.MonkeyPatch, make_run: Callable[[str], Path]
) -> None:
    for call in (check_quantization, lambda kind: read_options(OmegaConf.create({"quantize": kind}))):
        with pytest.raises(ValueError, match=r"quantize=3bit: .*8bit, 4bit"):
            call("3bit")
    check_quantization(None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModuleNotFoundError, match="bitsandbytes"):
        Answerer.load(make_run("favchat_stage3"), quantize="4bit")
