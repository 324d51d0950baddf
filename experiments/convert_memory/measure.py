"""Peak memory and time of converting checkpoints of HumanOmni's real sizes: ``python measure.py [folder for 20 GB]``.

Each conversion runs in its own process, whose largest resident set (VmHWM) the kernel reports; ``prepare`` is what
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
from omnihuman.official.humanomni.keys import map_to_official

ROOT = Path(__file__).parents[2]
KEYS = ROOT / "tests" / "official" / "humanomni" / "7b_keys.tsv"
MAX_SHARD_SIZE = 5_000_000_000
CASES = (
    ("7b", "sparse", "prepare"),
    ("7b", "sparse", "sparse"),
    ("0_5b", "safetensors", "prepare"),
    ("0_5b", "safetensors", "write"),
    ("0_5b", "pickle", "write"),
)
"""Size, files of the checkpoint, mode of the conversion."""

FIELDS = {
    "7b": {"mm_projector_type": "all_in_one", "num_frames": 32, "mm_vision_tower": "google/siglip-so400m-patch14-384"},
    "0_5b": {
        "mm_projector_type": "all_in_one_small",
        "num_frames": 8,
        "mm_vision_tower": "google/siglip-base-patch16-224",
    },
}

Shapes = dict[str, tuple[int, ...]]


def read_7b_shapes() -> Shapes:
    """Return every key of the released 7B model as its trainer writes it, towers included."""
    shapes = {}
    for line in KEYS.read_text().splitlines():
        key, shape = line.split("\t")
        shapes[key] = literal_eval(shape)
    return shapes


def build_0_5b_shapes() -> Shapes:
    """Return every key of 0.5B that is read."""
    with torch.device("meta"):
        model = build(compose_config(["+experiment=humanomni_stage3", "size=0_5b", "random_weights=true"]).model)
    return {str(map_to_official(name)): tuple(parameter.shape) for name, parameter in model.named_parameters()}


def build_config(size: str) -> dict[str, object]:
    """Return the official config.json."""
    model = compose_config(["+experiment=humanomni_stage3", f"size={size}", "random_weights=true"]).model
    fields = {str(key): value for key, value in model.llm.architecture.items() if key != "rope_parameters"}
    return fields | {
        "model_type": "HumanOmni_qwen2",
        "rope_theta": 1e6,
        "mm_audio_tower": "openai/whisper-large-v3",
        "mm_hidden_size": model.encoders.video.hidden_size,
        "audio_hidden_size": 1280,
        **FIELDS[size],
    }


def nbytes(shape: tuple[int, ...]) -> int:
    return 2 * torch.Size(shape).numel()


def write_sparse(folder: Path, shapes: Shapes) -> list[int]:
    """Write shards in bfloat16 as sparse files, and return their sizes."""
    shards: list[Shapes] = [{}]
    for key, shape in shapes.items():
        if sum(map(nbytes, shards[-1].values())) + nbytes(shape) > MAX_SHARD_SIZE:
            shards.append({})
        shards[-1][key] = shape
    weight_map, sizes = {}, []
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        start = 0
        header = {}
        for key, shape in shard.items():
            header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": (start, start + nbytes(shape))}
            start += nbytes(shape)
        text = json.dumps(header).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text)
        os.truncate(folder / name, 8 + len(text) + start)
        weight_map |= dict.fromkeys(shard, name)
        sizes.append(start)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return sizes


def write_values(folder: Path, shapes: Shapes, is_pickle: bool) -> list[int]:
    """Write one file of random values, as safetensors or as a pickle, and return its size."""
    from omnihuman.training.safetensors_writer import Header, write_safetensors

    if is_pickle:
        state = {key: torch.randn(shape).bfloat16() for key, shape in shapes.items()}
        torch.save(state, folder / "pytorch_model.bin")
    else:
        headers = {key: Header(shape, torch.bfloat16) for key, shape in shapes.items()}
        write_safetensors(folder / "model.safetensors", headers, lambda key: torch.randn(shapes[key]))
    return [sum(map(nbytes, shapes.values()))]


def write_config(folder: Path, size: str) -> Path:
    """Write config.json, a tokenizer and BERT's folder, and return the latter."""
    (folder / "config.json").write_text(json.dumps(build_config(size)))
    nano = Path(str(files("omnihuman"))) / "foundation" / "nano"
    bert = folder / "bert"
    bert.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(nano / "llm" / name, folder / name)
        shutil.copyfile(nano / "bert" / name, bert / name)
    (bert / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return bert


def run_conversion(folder: Path, out: Path, bert: Path, mode: str) -> None:
    """Convert in this process; ``sparse`` leaves zeros unwritten, ``prepare`` stops before the first tensor."""
    from omnihuman.release import convert, safetensors_writer

    def write_sparsely(stream: BinaryIO, digest: object, data: bytes | memoryview) -> None:
        if np.frombuffer(data, np.uint8).any():
            stream.write(data)
        else:
            stream.truncate(stream.seek(len(data), 1))

    if mode == "sparse":
        safetensors_writer._write = write_sparsely  # type: ignore[assignment]
    if mode == "prepare":
        convert.write_folder = lambda *args: None
    convert.convert(convert.Request("humanomni", str(folder), out, {"instruction_encoder": str(bert)}))
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "VmHWM":  # not ru_maxrss, which includes the parent's
            print(value.split()[0])


def measure(root: Path, size: str, layout: str, mode: str) -> None:
    folder = root / "official"
    folder.mkdir()
    shapes = read_7b_shapes() if size == "7b" else build_0_5b_shapes()
    shards = write_sparse(folder, shapes) if layout == "sparse" else write_values(folder, shapes, layout == "pickle")
    bert = write_config(folder, size)
    start = time.perf_counter()
    command = [sys.executable, __file__, "child", str(folder), str(root / "out"), str(bert), mode]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = time.perf_counter() - start, int(process.stdout.splitlines()[-1]) * 1024
    largest = max(map(nbytes, shapes.values()))
    sizes = f"{len(shapes)} | {sum(shards) / 1e9:.2f} | {max(shards) / 1e9:.2f} | {largest / 1e9:.2f}"
    print(f"| {size} | {sizes} | {layout}, {mode} | {peak / 1e9:.2f} | {seconds:.0f} |", flush=True)


def main(folder: str | None) -> None:
    print("| size | keys | GB | largest shard | largest tensor | files, conversion | peak GB | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for size, layout, mode in CASES:
        with tempfile.TemporaryDirectory(dir=folder) as root:
            measure(Path(root), size, layout, mode)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        run_conversion(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
