"""FERV39k: lists of folders of frames."""

from .conftest import Dataset, summarize


def test_lists_name_folders_of_frames(dataset: Dataset) -> None:
    dataset.write("4_setups/All_scenes/train_All.csv", "Action/Happy/0267 Happy", "Crime/Fear/0003 Fear")
    dataset.write("4_setups/All_scenes/test_All.csv", "Action/Sad/0010 Sad")
    for name in ("Action/Happy/0267", "Crime/Fear/0003", "Action/Sad/0010"):
        dataset.add(f"2_ClipsforFaceCrop/{name}/0.jpg", f"2_ClipsforFaceCrop/{name}/1.jpg")
    records = dataset.records("source=ferv39k")
    assert summarize(records["train"])[1] == ("2_ClipsforFaceCrop/Crime/Fear/0003", "fear")
    assert summarize(records["test"]) == [("2_ClipsforFaceCrop/Action/Sad/0010", "sad")]
    assert records["test"][0]["conversations"][0]["value"].startswith("<video>\nAs an")
