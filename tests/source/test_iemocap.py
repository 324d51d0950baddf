"""IEMOCAP: evaluations of turns, sessions as folds."""

from .conftest import Dataset, summarize


def test_a_session_is_the_test_split(dataset: Dataset) -> None:
    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        dataset.write(
            f"Session{session}/dialog/EmoEvaluation/{dialog}.txt",
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]",
            f"[0.2500 - 1.5000]\t{dialog}_F000\tang\t[2.5000, 2.5000, 2.5000]",
            "C-E2:\tNeutral;\t()",
            f"[1.5000 - 1.7500]\t{dialog}_M000\txxx\t[2.5000, 2.5000, 2.5000]",
        )
        dataset.add(f"Session{session}/dialog/avi/DivX/{dialog}.avi")
        dataset.add(f"Session{session}/sentences/wav/{dialog}/{dialog}_F000.wav")
    records = dataset.records("source=iemocap", "fold=2")
    audio = "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav"
    assert summarize(records["test"]) == [(audio, "angry")] and len(records["train"]) == 4
    assert records["test"][0]["meta"]["person"] == "Session2_F"
    assert any(note.endswith(": 5") for note in dataset.report()["notes"])
    records = dataset.records("source=iemocap", "source.modality=video")
    assert summarize(records["test"]) == [("Session5/dialog/avi/DivX/Ses05F_impro01.avi", "angry")]
    assert (records["test"][0]["start"], records["test"][0]["end"]) == (0.25, 1.5)
    assert dataset.report()["seconds"] == {"train": 5.0, "test": 1.2}
