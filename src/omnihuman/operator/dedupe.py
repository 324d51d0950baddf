"""Dedupe: near-duplicates among the clips of all partitions."""

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from omnihuman.operator.base import FRAMES, Dropped, Global, Outcome, Row, columns
from omnihuman.operator.rows import select_columns
from omnihuman.operator.thumbnails import find_change, make_thumbnails
from omnihuman.types import Signal

MAX_ROUNDS = 10
TEXT_SIZE = 512
"""Width of the embedding of a text."""

MAX_COMPARED = 16
"""Nearest clips whose pixels are compared with those of a clip."""

MAX_PAIRS = 4096
"""Rows of a cell that are compared at once."""


class Dedupe(Global):
    """Frames or a text -> an embedding; of clips that are near-duplicates, the one with the most pixels stays.

    The embedding is the mean and the deviation of the encoder's tokens, or the words and pairs of words of the text; it
    is centred over all clips. Clips are compared within the cells of a k-means, each in its nearest cells, so that the
    pairs stay few.

    Reference: SemDeDup (Abbas et al., 2023) §3; HumanOmni §3 compares brief captions by a language model. Differs from
    them: a clip is compared with those that stay, in an order that content alone decides, and files with equal bytes
    and spans are dropped first; captions are compared by their words.

    Args:
        encoder: of frames, called without arguments; one of conf/encoder.
        text: column that is compared in place of frames; no encoder is loaded.
        threshold: cosine above which two clips are near-duplicates.
        cell_size: clips of a cell, on average.
        num_probes: cells in which a clip is compared.
        seed: of the k-means.
        batch_size: frames of a forward pass.
        pixels: column with a few frames of each second, by which near clips are compared pixel by pixel as well;
            ``None``: the cosine alone decides.
        max_change: up to which near clips are copies, see ``find_change``.
    """

    writes = columns(embedding=pa.list_(pa.float32()))
    compares = columns(embedding=None, width=None, height=None, seconds=None)
    decides = columns(duplicate_of=pa.string())

    def __init__(
        self,
        encoder: Callable[[], Any],
        text: str | None = None,
        threshold: float = 0.95,
        cell_size: int = 1000,
        num_probes: int = 2,
        seed: int = 0,
        batch_size: int = 32,
        pixels: str | None = None,
        max_change: float = 0.045,
    ) -> None:
        self.encoder, self.threshold, self.batch_size = encoder, threshold, batch_size
        self.cell_size, self.num_probes, self.seed, self.text = cell_size, num_probes, seed, text
        sizes = columns(width=pa.int64(), height=pa.int64(), seconds=pa.float64())
        self.reads = {"frames": FRAMES, **sizes} if text is None else {text: pa.string(), **sizes}

        self.pixels, self.max_change = pixels, max_change
        if pixels is not None:
            thumbnails = {"thumbnails": pa.list_(pa.binary())}
            self.reads = {**self.reads, pixels: FRAMES}
            self.writes, self.compares = {**self.writes, **thumbnails}, {**self.compares, "thumbnails": None}

    def setup(self, folder: Path) -> None:
        if self.text is not None:
            return
        import transformers

        transformers.utils.logging.set_verbosity_error()  # the encoders check their weights themselves
        transformers.utils.logging.disable_progress_bar()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.encoder().eval().requires_grad_(False).to(self.device)

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            if self.text is not None:
                embedding = embed_text(row[self.text] or "")
            else:
                embedding = self.embed([frame["jpeg"] for frame in row["frames"]])
            outcome: Row = {"embedding": embedding.tolist()}
            if self.pixels is not None:
                outcome["thumbnails"] = make_thumbnails([frame["jpeg"] for frame in row[self.pixels]])
            yield outcome

    def embed(self, jpegs: Sequence[bytes]) -> Float[Tensor, " E"]:
        """Return mean and deviation of the tokens of all frames ``[2 D]``."""
        frames = []
        for jpeg in jpegs:
            pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))).permute(2, 0, 1)
            frames.append(self.model.transform(pixels[None])[0])
        tokens = []
        for batch in torch.split(torch.stack(frames), self.batch_size):
            mask = torch.ones(1, len(batch), dtype=torch.bool, device=self.device)
            with torch.inference_mode():
                features = self.model(Signal(batch[None].to(self.device), mask))
            tokens.append(features.tokens[0].flatten(0, 1).float().cpu())
        joined = torch.cat(tokens)
        return torch.cat((joined.mean(0), joined.std(0, correction=0)))

    def decide(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        if not rows:
            return []
        table = select_columns(rows, "id", "source", "width", "height", "seconds", "embedding")
        order = _rank(table)
        embeddings = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = torch.from_numpy(embeddings.astype(np.float32, copy=False).reshape(len(rows), -1)[order])
        vectors -= vectors.mean(0, dtype=torch.float64).float()
        is_copy = None if self.pixels is None else self._compare_pixels(rows, order)
        originals = self.find_originals(normalize(vectors, dim=1), is_copy)
        ids, sources = (table[name].to_pylist() for name in ("id", "source"))
        outcomes: list[Outcome] = [{}] * len(rows)
        copies: dict[str, str] = {}
        for place, number in enumerate(order.tolist()):
            original = originals[place]
            if ids[number] in copies:
                outcomes[number] = Dropped("copy", f"the same bytes as {copies[ids[number]]}")
            elif original is not None:
                twin = ids[order[original[0]]]
                outcomes[number] = Dropped("near_duplicate", f"of {twin}, cosine {original[1]:.3f}")
            copies.setdefault(ids[number], sources[number])
        return outcomes

    def _compare_pixels(self, rows: Sequence[Row], order: Any) -> Callable[[int, int], bool]:
        """Return a function that compares the pixels of two rows, given by their places in the order."""
        thumbnails = select_columns(rows, "thumbnails")["thumbnails"]

        def is_copy(first: int, second: int) -> bool:
            pair = [thumbnails[int(order[place])].as_py() for place in (first, second)]
            return find_change(*pair) <= self.max_change

        return is_copy

    def find_originals(
        self, vectors: Float[Tensor, "N E"], is_copy: Callable[[int, int], bool] | None = None
    ) -> list[tuple[int, float] | None]:
        """Return for each vector the nearest earlier one that stays and is a copy of it, and their cosine.

        Args:
            vectors: of unit length, in the order in which they stay.
            is_copy: says of two vectors nearer than the threshold whether they are copies; ``None``: all are.
        """
        cells = self._assign_cells(vectors)
        originals: list[tuple[int, float] | None] = [None] * len(vectors)
        members: dict[int, list[int]] = {}
        for number, cells_of_vector in enumerate(cells.tolist()):
            near = set[int]()
            for cell in cells_of_vector:
                near.update(members.get(cell, ()))
            originals[number] = self._find_copy(vectors, number, sorted(near), is_copy)
            if originals[number] is None:
                for cell in cells_of_vector:
                    members.setdefault(cell, []).append(number)
        return originals

    def _find_copy(
        self, vectors: Tensor, number: int, candidates: Sequence[int], is_copy: Callable[[int, int], bool] | None
    ) -> tuple[int, float] | None:
        """Return the nearest of the candidates of which a vector is a copy, and their cosine."""
        if not candidates:
            return None
        cosines = vectors[candidates] @ vectors[number]
        for place in cosines.argsort(descending=True)[:MAX_COMPARED].tolist():
            if not cosines[place] > self.threshold:
                return None
            if is_copy is None or is_copy(candidates[place], number):
                return candidates[place], float(cosines[place])
        return None

    def _assign_cells(self, vectors: Float[Tensor, "N E"]) -> Int[Tensor, "N P"]:
        """Return the nearest cells of each vector, of a spherical k-means."""
        num_cells = max(1, round(len(vectors) / self.cell_size))
        if num_cells == 1:
            return torch.zeros(len(vectors), 1, dtype=torch.long)
        generator = torch.Generator().manual_seed(self.seed)
        centers = vectors[torch.randperm(len(vectors), generator=generator)[:num_cells]]
        for _ in range(MAX_ROUNDS):
            nearest = torch.cat([(block @ centers.T).argmax(1) for block in torch.split(vectors, MAX_PAIRS)])
            sums = torch.zeros_like(centers).index_add_(0, nearest, vectors)
            is_empty = torch.bincount(nearest, minlength=num_cells) == 0
            centers = torch.where(is_empty[:, None], centers, normalize(sums, dim=1))
        num_probes = min(self.num_probes, num_cells)
        return torch.cat(
            [(block @ centers.T).topk(num_probes, dim=1).indices for block in torch.split(vectors, MAX_PAIRS)]
        )


def embed_text(text: str) -> Float[Tensor, " E"]:
    """Return the counts of the words and the pairs of words of a text, each at a place that its digest decides.

    >>> bool(torch.equal(embed_text("A man waves."), embed_text("a man waves")))
    True
    """
    words = re.findall(r"\w+", text.lower())
    embedding = torch.zeros(TEXT_SIZE)
    for term in [*words, *map(" ".join, pairwise(words))]:
        digest = int.from_bytes(hashlib.sha256(term.encode()).digest()[:8], "big")
        embedding[digest % TEXT_SIZE] += 1 if digest >> 63 else -1
    return embedding


def _rank(table: pa.Table) -> Any:
    """Return the numbers of the clips in the order in which they stay: most pixels, then the longest."""
    area = pc.multiply(table["width"], table["height"])
    keys = [("area", "descending"), ("seconds", "descending"), ("id", "ascending"), ("source", "ascending")]
    return pc.sort_indices(table.append_column("area", area), keys).to_numpy()
