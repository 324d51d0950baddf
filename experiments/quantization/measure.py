"""Memory and answers with quantised weights: ``python measure.py <run folder> [data/sample]``.

The answers of a run to questions of the built-in benchmark about faces, and the bytes of its language model, as it is
and with ``quantize=8bit`` and ``4bit``; then the bytes of HumanOmni at 7B, on the meta device. Those come from the
shapes of the layers, by a formula that must give the bytes that were measured.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import transformers
from torch import nn

from omnihuman.benchmark.dfew import LABELS
from omnihuman.benchmark.sample import Sample
from omnihuman.build import build, compose_config
from omnihuman.inference.answerer import Answer, Answerer
from omnihuman.llm.quantized import QUANTIZATIONS

NUM_QUESTIONS = 32
"""Of the benchmark, from the first."""

BLOCK, SUPERBLOCK = 64, 256
"""Weights with a common scale in NF4, and scales with a common scale of their own."""


def list_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors of a model's weights; those of quantised layers with their scales."""
    yield from module.parameters()
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if getattr(weight, "quant_state", None) is not None:
            state = weight.quant_state
            yield from (state.absmax, state.code, state.state2.absmax, state.state2.code)
        scales = getattr(getattr(layer, "state", None), "SCB", None)
        scales = getattr(weight, "SCB", None) if scales is None else scales
        if scales is not None:
            yield scales


def count_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in list_tensors(module))


def forecast_bytes(model: Any, kind: str | None, itemsize: int) -> int:
    """Return the bytes of a language model's weights from their shapes."""
    layers = {}
    for name, layer in model.named_modules():
        if kind and type(layer) is nn.Linear and layer is not model.get_output_embeddings():
            layers[f"{name}.weight"] = layer
    total = 0
    for name, parameter in model.named_parameters():
        if name not in layers:
            total += itemsize * parameter.numel()
        elif kind == "8bit":
            total += parameter.numel() + 4 * layers[name].out_features
        else:
            blocks = -(-parameter.numel() // BLOCK)
            total += parameter.numel() // 2 + blocks + 4 * -(-blocks // SUPERBLOCK) + 4 * (16 + 256)
    return total


def answer_all(answerer: Answerer, benchmark: Sample) -> list[Answer]:
    answers = []
    questions = benchmark.questions()[:NUM_QUESTIONS]
    for start in range(0, len(questions), 16):
        batch = questions[start : start + 16]
        prompts = [answerer.build_prompt(question.record, answerer.view) for question in batch]
        options = [tuple(LABELS.values())] * len(prompts)
        answers += answerer.answer_batch(answerer.pack_prompts(prompts), options, max_new_tokens=24)
    return answers


def compare(answers: list[Answer], expected: list[Answer]) -> str:
    same = sum(answer.text == other.text for answer, other in zip(answers, expected, strict=True))
    best, differences = 0, []
    for answer, other in zip(answers, expected, strict=True):
        log_probs, reference = torch.tensor(answer.log_probs), torch.tensor(other.log_probs)
        best += int(log_probs.argmax() == reference.argmax())
        differences.append(float((log_probs - reference).abs().mean()))
    count = len(answers)
    return f"{100 * same / count:.1f} | {100 * best / count:.1f} | {fmean(differences):.3f}"


def count_texts(answers: list[Answer]) -> int:
    return len({answer.text for answer in answers})


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, root = Path(sys.argv[1]), (sys.argv[2:] or ["data/sample"])[0]
    benchmark = Sample(root, task="face", needs="video")
    print("| weights | MB of the LLM | same answer % | same option % | difference | different answers | seconds |")
    print("|---|---|---|---|---|---|---|")
    expected = list[Answer]()
    for kind in (None, *QUANTIZATIONS):
        answerer = Answerer.load(folder, quantize=kind, merge_lora=True, device="cpu")
        started = time.perf_counter()
        answers = answer_all(answerer, benchmark)
        seconds = time.perf_counter() - started
        expected = expected or answers
        size = count_bytes(answerer.model.llm.model)
        shapes = Answerer.load(folder, merge_lora=True, device="cpu").model.llm.model
        assert size == forecast_bytes(shapes, kind, 4), (kind, size, forecast_bytes(shapes, kind, 4))
        row = (
            kind or "float32",
            f"{size / 1e6:.2f}",
            compare(answers, expected),
            count_texts(answers),
            f"{seconds:.0f}",
        )
        print("|", " | ".join(map(str, row)), "|", flush=True)
    with torch.device("meta"):
        model = build(compose_config(["+experiment=humanomni_stage3", "size=7b", "random_weights=true"]).model)
    llm = model.llm.model
    rest = 2 * sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("llm."))
    print("\n| HumanOmni 7B | GB of the LLM | GB of all weights |\n|---|---|---|")
    for kind in (None, *QUANTIZATIONS):
        size = forecast_bytes(llm, kind, 2)
        print(f"| {kind or 'bfloat16'} | {size / 1e9:.2f} | {(size + rest) / 1e9:.2f} |")


if __name__ == "__main__":
    main()
