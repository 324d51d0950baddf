"""Peak memory and time of converting checkpoints of HumanOmni's real sizes: ``python measure.py [folder for 20 GB]``.

Each conversion runs in a process of its own, whose largest resident set (VmHWM) the kernel reports; ``plan`` is what
the same process needs up to its first tensor.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from omnihuman.build import build, compose_config
from omnihuman.convert.humanomni import to_official

ROOT = Path(__file__).parents[2]
KEYS = ROOT / "tests" / "convert" / "humanomni_7b_keys.tsv"
SHARD = 5_000_000_000


def seven() -> dict[str, tuple[int, ...]]:
    """Every key of the released 7B model as its trainer writes it, towers included."""
    return {key: literal_eval(shape) for key, shape in (line.split("\t") for line in KEYS.read_text().splitlines())}


def half() -> dict[str, tuple[int, ...]]:
    """Every key of 0.5B that is read."""
    with torch.device("meta"):
        model = build(compose_config(["+experiment=humanomni_stage3", "size=0_5b", "random_weights=true"]).model)
    return {str(to_official(name)): tuple(each.shape) for name, each in model.named_parameters()}


def config_of(size: str) -> dict[str, object]:
    """Their config.json."""
    model = compose_config(["+experiment=humanomni_stage3", f"size={size}", "random_weights=true"]).model
    llm = {key: value for key, value in model.llm.architecture.items() if key not in ("model_type", "rope_parameters")}
    form = {"7b": "all_in_one", "0_5b": "all_in_one_small"}[size]
    towers = {"7b": "google/siglip-so400m-patch14-384", "0_5b": "google/siglip-base-patch16-224"}
    return llm | {"model_type": "HumanOmni_qwen2", "rope_theta": 1e6, "mm_projector_type": form,
                  "num_frames": {"7b": 32, "0_5b": 8}[size], "mm_vision_tower": towers[size],
                  "mm_audio_tower": "openai/whisper-large-v3", "mm_hidden_size": model.encoders.video.hidden_size,
                  "audio_hidden_size": 1280}  # fmt: skip


def nbytes(shape: tuple[int, ...]) -> int:
    return 2 * torch.Size(shape).numel()


def write_holes(folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[int]:
    """Shards in bfloat16 whose data is a hole of the file system."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for key, shape in shapes.items():
        if sum(map(nbytes, shards[-1].values())) + nbytes(shape) > SHARD:
            shards.append({})
        shards[-1][key] = shape
    where, sizes = {}, []
    for number, shard in enumerate(shards, start=1):
        name, start, said = f"model-{number:05d}-of-{len(shards):05d}.safetensors", 0, {}
        for key, shape in shard.items():
            said[key] = {"dtype": "BF16", "shape": shape, "data_offsets": (start, start + nbytes(shape))}
            start += nbytes(shape)
        text = json.dumps(said).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text)
        os.truncate(folder / name, 8 + len(text) + start)
        where |= dict.fromkeys(shard, name)
        sizes.append(start)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return sizes


def write_values(folder: Path, shapes: dict[str, tuple[int, ...]], pickled: bool) -> list[int]:
    """One file of random values, as safetensors or as a pickle."""
    from omnihuman.release.shards import Header
    from omnihuman.release.writing import write_safetensors

    if pickled:
        state = {key: torch.randn(shape).bfloat16() for key, shape in shapes.items()}
        torch.save(state, folder / "pytorch_model.bin")
    else:
        headers = {key: Header(shape, torch.bfloat16) for key, shape in shapes.items()}
        write_safetensors(folder / "model.safetensors", headers, lambda key: torch.randn(shapes[key]))
    return [sum(map(nbytes, shapes.values()))]


def write_beside(folder: Path, size: str) -> Path:
    """config.json, a tokenizer that fits, and BERT's folder."""
    (folder / "config.json").write_text(json.dumps(config_of(size)))
    nano = Path(str(files("omnihuman"))) / "foundation" / "nano"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(nano / "llm" / name, folder / name)
    bert = folder / "bert"
    bert.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(nano / "bert" / name, bert / name)
    (bert / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return bert


def child(folder: Path, out: Path, bert: Path, how: str) -> None:
    """Convert in this process; ``holes`` leaves zeros unwritten, ``plan`` stops before the first tensor."""
    from omnihuman.release import convert, writing

    def put(file: BinaryIO, digest: object, data: bytes | memoryview) -> None:
        if not np.frombuffer(data, np.uint8).any():
            file.truncate(file.seek(len(data), 1))
        else:
            file.write(data)

    if how == "holes":
        writing._put = put  # type: ignore[assignment]
    if how == "plan":
        convert.write = lambda *given: None
    convert.convert(convert.Request("humanomni", str(folder), out, {"instruction_encoder": str(bert)}))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(status["VmHWM"].split()[0])  # ru_maxrss has the parent's in it


def measure(root: Path, size: str, what: str, how: str) -> None:
    folder = root / "official"
    folder.mkdir()
    shapes = seven() if size == "7b" else half()
    made = write_holes(folder, shapes) if what == "holes" else write_values(folder, shapes, what == "pickle")
    bert = write_beside(folder, size)
    start = time.perf_counter()
    command = [sys.executable, __file__, "child", str(folder), str(root / "out"), str(bert), how]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = time.perf_counter() - start, int(ran.stdout.splitlines()[-1]) * 1024
    largest = max(map(nbytes, shapes.values()))
    sizes = f"{len(shapes)} | {sum(made) / 1e9:.2f} | {max(made) / 1e9:.2f} | {largest / 1e9:.2f}"
    print(f"| {size} | {sizes} | {what}, {how} | {peak / 1e9:.2f} | {seconds:.0f} |", flush=True)
    for path in (folder, root / "out"):
        shutil.rmtree(path, ignore_errors=True)


def main(where: str | None) -> None:
    print("| size | keys | GB | largest shard | largest tensor | files, conversion | peak GB | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for size, what, how in (("7b", "holes", "plan"), ("7b", "holes", "holes"), ("0_5b", "values", "plan"),
                            ("0_5b", "values", "written"), ("0_5b", "pickle", "written")):  # fmt: skip
        with tempfile.TemporaryDirectory(dir=where) as root:
            measure(Path(root), size, what, how)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        folder, out, bert = map(Path, sys.argv[2:5])
        child(folder, out, bert, sys.argv[5])
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
