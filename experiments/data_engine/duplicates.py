"""Plant near-duplicates of clips of the built-in corpus, and count how many ``dedupe`` drops.

``python experiments/data_engine/duplicates.py`` writes copies to ``data/near_duplicates`` once, and prints how many are
dropped, and which clips of different people count as copies.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from omegaconf import OmegaConf
from torch.nn.functional import normalize

from omnihuman.build import build, compose_part
from omnihuman.operator.base import Operator, Row
from omnihuman.operator.dedupe import Dedupe
from omnihuman.operator.probe import Probe
from omnihuman.operator.thumbnails import find_change, make_thumbnails

KINDS = ("re-encoded", "half size", "0.4 s later", "cropped")
CRF, LATE_SECONDS, CROP = 36, 0.4, 0.1
THRESHOLD, MAX_CHANGE = 0.95, 0.045
"""The defaults of ``dedupe``."""


def write_copy(source: Path, target: Path, kind: str) -> None:
    """Write a copy of a clip without its sound: of worse quality, smaller, or without its beginning or its edges."""
    frames = list(read_frames(source))
    with av.open(str(source)) as file:
        fps = Fraction(file.streams.video[0].average_rate)
    if kind == "0.4 s later":
        frames = frames[round(LATE_SECONDS * fps) :]
    height, width = frames[0].shape[:2]
    if kind == "cropped":
        top, left = round(CROP * height), round(CROP * width)
        frames = [frame[top : height - top, left : width - left] for frame in frames]
    scale = 2 if kind == "half size" else 1
    with av.open(str(target), "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=fps)
        video.height, video.width = (side // scale // 2 * 2 for side in frames[0].shape[:2])
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(CRF if kind == "re-encoded" else 23)}
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            file.mux(video.encode(image.reformat(video.width, video.height, interpolation="AREA")))
        file.mux(video.encode(None))


def read_frames(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def build_operator(name: str) -> Operator:
    node: Any = OmegaConf.to_container(compose_part("operator", name), resolve=True)
    operator: Operator = build({"pipeline": {"operators": {name: node}}})["pipeline"]["operators"][name]
    return operator


@dataclass
class Clips:
    """Embeddings ``[N E]`` and thumbnails of clips."""

    vectors: torch.Tensor
    thumbnails: list[list[bytes]]


def read_clips(files: Sequence[Path], folder: Path) -> Clips:
    """Return clips as ``dedupe`` sees them, by the operators with their presets of nano size."""
    probe, extract, dedupe = Probe(), build_operator("extract_frames"), build_operator("dedupe")
    assert isinstance(dedupe, Dedupe)
    dedupe.setup(folder)
    vectors, thumbnails = [], []
    for file in files:
        row: Row = {"id": file.name, "source": file.name, "file": file, "start": 0.0, "end": None}
        for operator in (probe, extract):
            (outcome,) = operator.apply([row])
            row |= outcome  # type: ignore[arg-type]
        vectors.append(dedupe.embed([frame["jpeg"] for frame in row["frames"]]))
        thumbnails.append(make_thumbnails([frame["jpeg"] for frame in row["face_frames"]]))
    return Clips(torch.stack(vectors), thumbnails)


def read_looks(corpus: Path, files: Sequence[Path]) -> torch.Tensor:
    """Return a number for who is in a clip and what the clip is about, by its records ``[N]``.

    Clips with the same number look alike but for what is said: a pair of them is neither a copy nor a mistake.
    """
    looks = {}
    for split in ("train", "val", "test"):
        for record in json.loads((corpus / f"{split}.json").read_text()):
            if "video" in record:
                looks[record["video"]] = (record["meta"]["identity"], record["meta"]["kind"])
    numbers = {look: number for number, look in enumerate(sorted(set(looks.values()), key=str))}
    return torch.tensor([numbers[looks[file.relative_to(corpus).as_posix()]] for file in files])


def find_interval(number: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.96, number / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return center - half, center + half


def measure(originals: Clips, copies: dict[str, Clips], looks: torch.Tensor, names: Sequence[str]) -> None:
    """Print the pairs of other looks that count as copies, and how many copies are dropped."""
    mean = originals.vectors.mean(0)
    base = normalize(originals.vectors - mean, dim=1)
    cosines = base @ base.T
    cosines[looks[:, None] == looks[None]] = -1
    pairs = (torch.triu(cosines, 1) > THRESHOLD).nonzero().tolist()
    changes = {(i, j): find_change(originals.thumbnails[i], originals.thumbnails[j]) for i, j in pairs}
    print(f"{len(pairs)} pairs of other looks are near (cosine above {THRESHOLD}); the least changes of pixels:")
    for (i, j), change in sorted(changes.items(), key=lambda entry: entry[1])[:4]:
        print(f"{change:.4f} {'false ' * (change <= MAX_CHANGE)}{names[i]} {names[j]}")
    print("\n| copies | original is nearest | dropped | 95 % interval |\n|---|---|---|---|")
    for kind, clips in copies.items():
        near = normalize(clips.vectors - mean, dim=1) @ base.T
        total, num_dropped = len(near), 0
        for number in range(total):
            change = find_change(clips.thumbnails[number], originals.thumbnails[number])
            num_dropped += int(near[number, number] > THRESHOLD and change <= MAX_CHANGE)
        num_first = int((looks[near.argmax(1)] == looks[:total]).sum())
        low, high = find_interval(num_dropped, total)
        print(f"| {kind} | {num_first} of {total} | {num_dropped} of {total} | {low:.1%} to {high:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("data/sample"))
    parser.add_argument("--out", type=Path, default=Path("data/near_duplicates"))
    parser.add_argument("--number", type=int, default=400, help="clips of which copies are made, half of them to test")
    options = parser.parse_args()
    files = sorted(options.corpus.rglob("*.mp4"))
    options.out.mkdir(parents=True, exist_ok=True)
    cache = options.out / f"clips-{len(files)}-{options.number}.pt"
    if not cache.is_file():
        copies = {}
        for kind in KINDS:
            targets = []
            for file in files[: options.number]:
                targets.append(options.out / f"{kind.replace(' ', '_')}-{file.stem}.mp4")
                if not targets[-1].is_file():
                    write_copy(file, targets[-1], kind)
            copies[kind] = read_clips(targets, options.out)
        torch.save({"originals": read_clips(files, options.out), "copies": copies}, cache)
    content = torch.load(cache, weights_only=False)
    measure(content["originals"], content["copies"], read_looks(options.corpus, files), [file.stem for file in files])


if __name__ == "__main__":
    main()
