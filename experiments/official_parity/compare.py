"""A model folder of ours beside what ``theirs.py ask`` wrote about the same checkpoint: how far apart are they?

python experiments/official_parity/compare.py FOLDER THEIRS
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from omnihuman.evaluation.answerer import Answerer
from omnihuman.generate import record_of
from omnihuman.llm import packed
from omnihuman.types import IGNORE_INDEX, Batch

HEAD = ("clip, modal", "ids", "BERT", "pixels (levels)", "log-mel", "embeddings", "logits", "answer", "",
        "embeddings", "logits", "loss", "answer")  # fmt: skip


def text(ids: Tensor) -> list[int]:
    """Ids with every run of a slot as one, as theirs are before their splice."""
    row = ids.flatten().tolist()
    return [each for place, each in enumerate(row) if each >= 0 or place == 0 or row[place - 1] != each]


def with_tensors(batch: Batch, theirs: dict[str, Tensor]) -> Batch:
    """The same question about their pixels and their log-mel."""
    given = {}
    if "pixels" in theirs:
        given["video"] = ((theirs["pixels"] * 0.5 + 0.5) * 255).round().to(torch.uint8)
    if "mel" in theirs:
        given["audio"] = theirs["mel"][0].T
    signals = {name: replace(signal, values=given[name][None]) if name in given else signal
               for name, signal in batch.signals.items()}  # fmt: skip
    return replace(batch, signals=signals)


def far(one: Tensor, other: Tensor) -> str:
    """The largest difference, or the shapes where they differ."""
    if one.shape != other.shape:
        return f"{list(one.shape)} / {list(other.shape)}"
    return f"{(one - other).abs().max().item():.1e}"


def made(answerer: Answerer, batch: Batch, theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Embeddings, logits and loss of prompt and given answer, and the ids that are generated."""
    model, start = answerer.model, theirs["prompt_ids"].shape[1]
    more = theirs["ids"][:, start:]
    with torch.no_grad():
        prompt, _, _ = model.embedded(batch)
        embeds = torch.cat((prompt, model.llm.embed(more)), dim=1)
        length, count = embeds.shape[1], more.shape[1]
        labels = torch.cat((torch.full((1, length - count), IGNORE_INDEX), more), dim=1)
        loss, _ = model.llm(embeds, labels, torch.arange(length)[None], [0, length])
        model.llm.model.set_attn_implementation("sdpa")
        logits = model.llm.model(inputs_embeds=embeds).logits[:, -count - 1 :]
        model.llm.model.set_attn_implementation(packed.NAME)
        said = model.llm.answer_ids(prompt, [0, prompt.shape[1]], max_new_tokens=theirs["said"].shape[1])
    return embeds, logits, loss / count, [each for each in said[0].tolist() if each != model.llm.end_id]


def row(answerer: Answerer, name: str, asked: dict[str, Any], question: str, theirs: dict[str, Tensor]) -> list[str]:
    record = record_of({"video": asked["clip"], "instruction": question}, name)
    prompt = answerer.prompt(record, asked["modal"])
    batch = answerer.batch([prompt])
    own, same = made(answerer, batch, theirs), made(answerer, with_tensors(batch, theirs), theirs)
    words = batch.signals["instruction"].values[0].tolist()
    said = [each for each in theirs["said"][0].tolist() if each != answerer.model.llm.end_id]
    levels = mel = "-"
    if "pixels" in theirs:
        seen = batch.signals["video"].values[0].float()
        other = (theirs["pixels"] * 0.5 + 0.5) * 255
        levels = f"{(seen - other).abs().max():.2f}" if seen.shape == other.shape else f"{seen.shape} / {other.shape}"
        wrong = ((seen - other).abs() > 0.5).float().mean()
        levels += f", {wrong:.2%} differ"
    if "mel" in theirs:
        heard = batch.signals["audio"].values[0]
        apart = (heard - theirs["mel"][0].T).abs()
        mel = f"{apart.max():.1e}, mean {apart.mean():.1e}"
    equal = {True: "same", False: "DIFFERS"}
    return [name, equal[text(batch.input_ids) == theirs["prompt_ids"][0].tolist()],
            equal[words == theirs["bert"][0].tolist()], levels, mel, far(own[0], theirs["embeds"]),
            far(own[1], theirs["logits"]), equal[own[3] == said], "", far(same[0], theirs["embeds"]),
            far(same[1], theirs["logits"]), far(same[2], theirs["loss"]), equal[same[3] == said]]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="converted, or of a run")
    parser.add_argument("theirs", type=Path, help="what theirs.py ask has written")
    options = parser.parse_args()
    answerer = Answerer.of_run(options.folder, official=True, dtype="float32", device="cpu", merge_lora=True)
    report = json.loads((options.theirs / "report.json").read_text())
    for line in (HEAD, ["---"] * len(HEAD)):
        print("|", " | ".join(line), "|")
    for name, asked in report["answers"].items():
        theirs = load_file(options.theirs / f"{name}.safetensors")
        print("|", " | ".join(row(answerer, name, asked, report["question"], theirs)), "|", flush=True)


if __name__ == "__main__":
    main()
