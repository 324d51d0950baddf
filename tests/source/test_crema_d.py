"""CREMA-D: names of four parts, actors kept apart."""

from .conftest import Dataset, summarize


def test_names_are_labels_and_actors_are_kept_apart(dataset: Dataset) -> None:
    dataset.add(*(f"VideoFlash/{actor}_DFA_{label}_XX.mp4" for actor in range(1001, 1007) for label in ("ANG", "SAD")))
    records = dataset.records("source=crema_d", "fractions=[0.5,0.5,0]")
    rows = summarize(records["train"] + records["val"])
    assert ("VideoFlash/1001_DFA_ANG_XX.mp4", "angry") in rows and ("VideoFlash/1006_DFA_SAD_XX.mp4", "sad") in rows
    people = [{raw["meta"]["person"] for raw in records[split]} for split in ("train", "val")]
    assert len(people[0]) == len(people[1]) == 3 and not people[0] & people[1]
    dataset.add("VideoFlash/notes.mp4")
    assert "1 malformed_name" in dataset.fail("source=crema_d")
