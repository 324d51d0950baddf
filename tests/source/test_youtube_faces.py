"""YouTube Faces: pairs of folders of frames."""

from .conftest import Dataset


def test_pairs_are_two_clips(dataset: Dataset) -> None:
    dataset.write("splits.txt", "split, pair, first, second, same", "1, 1, Ann/0, Ann/1, 1", "2, 2, Ann/0, Bob/3, 0")
    for name in ("Ann/0", "Ann/1", "Bob/3"):
        dataset.add(f"frame_images_DB/{name}/0.1.jpg", f"frame_images_DB/{name}/0.2.jpg")
    records = dataset.records("source=youtube_faces", "fold=2")
    (raw,) = records["test"]
    assert (raw["video"], raw["second_clip"]) == ("frame_images_DB/Ann/0", "frame_images_DB/Bob/3")
    assert raw["conversations"][1]["value"] == "No" and raw["meta"]["options"] == ["Yes", "No"]
    assert records["train"][0]["conversations"][1]["value"] == "Yes"
    dataset.write("splits.txt", "split, pair", "1, Ann/0, Ann/1, 1, maybe")
    assert "splits.txt:2" in dataset.fail("source=youtube_faces")
