"""CREMA-D: names of four parts, actors kept apart."""

from .conftest import Dataset, summarize


def test_names_are_labels_and_actors_are_kept_apart(dataset: Dataset) -> None:
    for actor in range(1001, 1007):
        dataset.add(f"VideoFlash/{actor}_DFA_ANG_XX.mp4", f"VideoFlash/{actor}_DFA_SAD_XX.mp4")
    records = dataset.records("source=crema_d", "fractions=[0.5,0.5,0]")
    rows = summarize(records["train"] + records["val"])
    assert ("VideoFlash/1001_DFA_ANG_XX.mp4", "angry") in rows and ("VideoFlash/1006_DFA_SAD_XX.mp4", "sad") in rows
    people = {raw["meta"]["person"] for raw in records["train"]}
    assert len(people) == 3 and not people & {raw["meta"]["person"] for raw in records["val"]}
    dataset.add("VideoFlash/notes.mp4")
    assert "1 malformed_name" in dataset.fail("source=crema_d")
