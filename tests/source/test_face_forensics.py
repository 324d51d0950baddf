"""FaceForensics++: originals and manipulations by pairs."""

from .conftest import Dataset, summarize


def test_pairs_are_in_one_split(dataset: Dataset) -> None:
    originals = "original_sequences/youtube/c23/videos"
    for split, pair in {"train": ("000", "003"), "val": ("010", "011"), "test": ("020", "021")}.items():
        dataset.write(f"splits/{split}.json", f'[["{pair[0]}", "{pair[1]}"]]')
        dataset.add(f"{originals}/{pair[0]}.mp4", f"{originals}/{pair[1]}.mp4")
        for names in (pair, pair[::-1]):
            dataset.add(f"manipulated_sequences/Deepfakes/c23/videos/{'_'.join(names)}.mp4")
    records = dataset.records("source=face_forensics")
    assert summarize(records["train"]) == [
        (f"{originals}/000.mp4", "real"),
        (f"{originals}/003.mp4", "real"),
        ("manipulated_sequences/Deepfakes/c23/videos/000_003.mp4", "fake"),
        ("manipulated_sequences/Deepfakes/c23/videos/003_000.mp4", "fake"),
    ]
    assert {raw["meta"]["person"] for raw in records["test"]} == {"020_021"}
    assert "source.compression=c50: " in dataset.fail("source=face_forensics", "source.compression=c50")
    dataset.write("splits/val.json", '["010"]')
    assert "val.json: [0]" in dataset.fail("source=face_forensics")
