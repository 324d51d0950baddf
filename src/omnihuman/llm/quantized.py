"""Linear layers with weights of 8 or 4 bits, for inference."""

import logging
from importlib import import_module
from typing import Any

import torch
from torch import nn

QUANTIZATIONS = ("8bit", "4bit")
"""Choices of ``quantize``."""

OUTLIER_THRESHOLD = 6.0
"""Columns of the input with a larger value are multiplied in the dtype of the model, with weights of 8 bits."""


def check_quantization(kind: str | None) -> None:
    """Check a choice of ``quantize`` and that bitsandbytes is there, before weights are read.

    Raises:
        ValueError: there is no such choice.
        ModuleNotFoundError: bitsandbytes is not installed.
    """
    if kind is None:
        return
    if kind not in QUANTIZATIONS:
        raise ValueError(f"quantize={kind}: choose from {', '.join(QUANTIZATIONS)}; null for the weights as they are.")
    import_module("bitsandbytes")


def quantize_linears(model: nn.Module, kind: str, device: torch.device | str) -> None:
    """Replace the linear layers of a causal language model of transformers, but not its output layer.

    The layers move to the device one by one, which needs memory for the quantised model and one layer there. The
    others, such as embeddings and norms, stay where they are.

    Reference: bitsandbytes' LLM.int8() (arXiv 2208.07339), and NF4 with double quantisation (QLoRA, arXiv 2305.14314).

    Args:
        model: with parameters in memory; it cannot be trained afterwards.
        kind: ``8bit`` or ``4bit``.
        device: on which it answers.

    Raises:
        ValueError: see ``check_quantization``.
    """
    check_quantization(kind)
    # it repeats for every layer and token that 8 bits compute in float16
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    layers = {name: part for name, part in model.named_modules() if type(part) is nn.Linear and part is not output}
    for name, layer in layers.items():
        model.set_submodule(name, _build_layer(layer, kind).to(device))


def _build_layer(layer: nn.Linear, kind: str) -> nn.Module:
    """Return a layer of bitsandbytes whose weight is quantised when it moves to a device."""
    import bitsandbytes

    sizes = {"input_features": layer.in_features, "output_features": layer.out_features, "bias": False}
    weight = layer.weight.data
    quantized: Any
    with torch.device("meta"):  # its own weight is replaced
        if kind == "8bit":
            quantized = bitsandbytes.nn.Linear8bitLt(**sizes, has_fp16_weights=False, threshold=OUTLIER_THRESHOLD)
        else:
            quantized = bitsandbytes.nn.Linear4bit(**sizes, compute_dtype=weight.dtype)
    if kind == "8bit":
        quantized.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        quantized.weight = bitsandbytes.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=quantized
        )
    quantized.bias = layer.bias
    quantized.requires_grad_(False)
    built: nn.Module = quantized
    return built
