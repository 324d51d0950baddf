"""Print the differences between a model folder of ours and the output of ``run_official.py infer``.

python experiments/official_parity/compare.py FOLDER OFFICIAL
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from omnihuman.inference.answerer import Answerer
from omnihuman.inference.question import build_question
from omnihuman.llm import packed
from omnihuman.modality import View
from omnihuman.types import IGNORE_INDEX, Batch

State = dict[str, Tensor]

HEADER = (
    "clip, view",
    "ids",
    "BERT",
    "pixels (levels)",
    "log-mel",
    "embeddings",
    "logits",
    "answer",
    "",
    "embeddings",
    "logits",
    "loss",
    "answer",
)


@dataclass
class Outputs:
    """Outputs for a prompt followed by the official answer; ``generated`` are the ids of our own answer."""

    embeds: Tensor
    logits: Tensor
    loss: Tensor
    generated: list[int]


def merge_slots(ids: Tensor) -> list[int]:
    """Return ids with every run of a slot as one placeholder, as the official ids before the splice."""
    merged: list[int] = []
    for token in ids.flatten().tolist():
        if token >= 0 or not merged or merged[-1] != token:
            merged.append(token)
    return merged


def remove_end(ids: Tensor, answerer: Answerer) -> list[int]:
    return [token for token in ids[0].tolist() if token != answerer.model.llm.end_id]


def denormalize(pixels: Tensor) -> Tensor:
    return (pixels * 0.5 + 0.5) * 255


def replace_signals(batch: Batch, official: State) -> Batch:
    """Return the batch with the official pixels and log-mel."""
    signals = dict(batch.signals)
    if "pixels" in official:
        frames = denormalize(official["pixels"]).round().to(torch.uint8)
        signals["video"] = replace(signals["video"], values=frames[None])
    if "mel" in official:
        signals["audio"] = replace(signals["audio"], values=official["mel"][0].T[None])
    return replace(batch, signals=signals)


def format_difference(first: Tensor, second: Tensor) -> str:
    """Return the largest difference, or the shapes if they differ."""
    if first.shape != second.shape:
        return f"{list(first.shape)} / {list(second.shape)}"
    return f"{(first - second).abs().max().item():.1e}"


def format_equality(is_equal: bool) -> str:
    return "same" if is_equal else "DIFFERS"


@torch.no_grad()
def compute_outputs(answerer: Answerer, batch: Batch, official: State) -> Outputs:
    model = answerer.model
    answer = official["ids"][:, official["prompt_ids"].shape[1] :]
    prompt, _, _ = model.embed(batch)
    embeds = torch.cat((prompt, model.llm.embed(answer)), dim=1)
    length, count = embeds.shape[1], answer.shape[1]
    labels = torch.cat((torch.full((1, length - count), IGNORE_INDEX), answer), dim=1)
    log_probs, _ = model.llm(embeds, labels, torch.arange(length)[None], [0, length])
    model.llm.model.set_attn_implementation("sdpa")
    logits = model.llm.model(inputs_embeds=embeds).logits[:, -count - 1 :]
    model.llm.model.set_attn_implementation(packed.NAME)
    ids = model.llm.generate_ids(prompt, [0, prompt.shape[1]], max_new_tokens=official["generated"].shape[1])
    return Outputs(embeds, logits, -log_probs.sum() / count, remove_end(ids, answerer))


def compare_pixels(batch: Batch, official: State) -> str:
    if "pixels" not in official:
        return "-"
    frames, expected = batch.signals["video"].values[0].float(), denormalize(official["pixels"])
    if frames.shape != expected.shape:
        return f"{frames.shape} / {expected.shape}"
    difference = (frames - expected).abs()
    return f"{difference.max():.2f}, {(difference > 0.5).float().mean():.2%} differ"


def compare_mel(batch: Batch, official: State) -> str:
    if "mel" not in official:
        return "-"
    difference = (batch.signals["audio"].values[0] - official["mel"][0].T).abs()
    return f"{difference.max():.1e}, mean {difference.mean():.1e}"


def compare(answerer: Answerer, name: str, answer: dict[str, Any], question: str, official: State) -> list[str]:
    """Return a row of the table: with our decoding of the file, and with the official tensors."""
    record = build_question({"video": answer["clip"], "instruction": question}, name)
    batch = answerer.pack_prompts([answerer.build_prompt(record, View.parse(answer["modal"]))])
    from_file = compute_outputs(answerer, batch, official)
    from_tensors = compute_outputs(answerer, replace_signals(batch, official), official)
    instruction = batch.signals["instruction"].values[0].tolist()
    generated = remove_end(official["generated"], answerer)
    return [
        name,
        format_equality(merge_slots(batch.input_ids) == official["prompt_ids"][0].tolist()),
        format_equality(instruction == official["bert"][0].tolist()),
        compare_pixels(batch, official),
        compare_mel(batch, official),
        format_difference(from_file.embeds, official["embeds"]),
        format_difference(from_file.logits, official["logits"]),
        format_equality(from_file.generated == generated),
        "",
        format_difference(from_tensors.embeds, official["embeds"]),
        format_difference(from_tensors.logits, official["logits"]),
        format_difference(from_tensors.loss, official["loss"]),
        format_equality(from_tensors.generated == generated),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model folder: converted, or of a run")
    parser.add_argument("official", type=Path, help="output of run_official.py infer")
    options = parser.parse_args()
    answerer = Answerer.load(options.folder, official="humanomni", dtype="float32", device="cpu", merge_lora=True)
    report = json.loads((options.official / "report.json").read_text())
    print("|", " | ".join(HEADER), "|")
    print("|", " | ".join(["---"] * len(HEADER)), "|")
    for name, answer in report["answers"].items():
        official = load_file(options.official / f"{name}.safetensors")
        print("|", " | ".join(compare(answerer, name, answer, report["question"], official)), "|", flush=True)


if __name__ == "__main__":
    main()
