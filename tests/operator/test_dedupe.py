"""Near-duplicates are dropped, the clip of most pixels stays, and the cells miss few pairs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from omnihuman.operator.base import Dropped, Row
from omnihuman.operator.dedupe import Dedupe


def build_rows(vectors: torch.Tensor, widths: Sequence[int]) -> list[Row]:
    rows = []
    for number, (vector, width) in enumerate(zip(vectors, widths, strict=True)):
        fields: dict[str, Any] = {"id": f"{number:03d}", "source": f"{number}.mp4", "height": 48, "seconds": 1.0}
        rows.append(fields | {"width": width, "embedding": vector.tolist()})
    return rows


def test_the_largest_of_near_duplicates_stays() -> None:
    vectors = torch.eye(6)
    vectors[3] = vectors[1] + 0.01
    outcomes = Dedupe(partial(int)).decide(build_rows(vectors, [64, 64, 64, 128, 64, 64]))
    dropped = {number: outcome for number, outcome in enumerate(outcomes) if isinstance(outcome, Dropped)}
    assert list(dropped) == [1] and dropped[1].why == "near_duplicate" and "of 003" in dropped[1].detail


def test_equal_ids_are_copies() -> None:
    rows = build_rows(torch.eye(3), [64, 64, 64])
    rows[2] |= {"id": "000", "source": "z.mp4"}
    outcomes = Dedupe(partial(int)).decide(rows)
    assert outcomes[:2] == [{}, {}] and outcomes[2] == Dropped("copy", "the same bytes as 0.mp4")


def test_the_order_of_rows_does_not_matter() -> None:
    vectors = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    rows = build_rows(vectors, [64] * 40)
    outcomes = Dedupe(partial(int), threshold=0.9).decide(rows)
    assert any(isinstance(outcome, Dropped) for outcome in outcomes)
    assert list(Dedupe(partial(int), threshold=0.9).decide(rows[::-1])) == list(outcomes)[::-1]


def test_cells_miss_few_duplicates() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(400, 16, generator=generator)
    twins = vectors[:200] + 0.05 * torch.randn(200, 16, generator=generator)
    operator = Dedupe(partial(int), cell_size=60)
    originals = operator.find_originals(normalize(torch.cat((vectors, twins)).double(), dim=1))
    hits = [original is not None and original[0] == number for number, original in enumerate(originals[400:])]
    assert sum(hits) >= 190 and not any(originals[:400])
    assert operator._assign_cells(normalize(vectors, dim=1)).shape == (400, 2)


def test_texts_are_compared_by_their_words(tmp_path: Path) -> None:
    operator = Dedupe(partial(int), text="brief_caption", threshold=0.9)
    assert set(operator.reads) == {"brief_caption", "width", "height", "seconds"}
    texts = ["A man waves in a park.", "A woman reads a book.", "a man waves, in a park", "A dog barks.", ""]
    rows: list[Row] = [{"brief_caption": text} for text in texts]
    operator.setup(tmp_path)
    embeddings = [outcome["embedding"] for outcome in operator.apply(rows) if isinstance(outcome, dict)]
    outcomes = operator.decide(build_rows(torch.tensor(embeddings), [64, 64, 48, 64, 64]))
    assert [isinstance(outcome, Dropped) for outcome in outcomes] == [False, False, True, False, False]


def test_near_clips_of_other_pixels_stay() -> None:
    rows = build_rows(torch.ones(3, 4) + torch.eye(3, 4) * 1e-4, [64, 64, 64])
    thumbnails = [bytes(range(0, 144)), bytes(range(0, 144)), bytes(range(144, 0, -1))]
    for row, thumbnail in zip(rows, thumbnails, strict=True):
        row["thumbnails"] = [thumbnail] * 3
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    operator = Dedupe(partial(int), pixels="face_frames")
    is_copy = operator._compare_pixels(rows, torch.arange(3).numpy())
    assert operator.find_originals(vectors, is_copy) == [None, (0, 1.0), None]
    assert operator.find_originals(vectors) == [None, (0, 1.0), (0, 1.0)]
    assert "thumbnails" in operator.writes and "face_frames" in operator.reads
