"""Modalities and controls: what a question may use."""

from dataclasses import replace
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Question
from omnihuman.benchmark.sample import Sample
from omnihuman.data.record import Record
from omnihuman.evaluation.control import control_of, donors_of, modality_of, seen_as_asked


def question(number: int) -> Question:
    text = (("user", f"<video>\n<audio>\nquestion {number}"), ("assistant", ""))
    return Question(Record(f"q{number}", Path(f"{number}.mp4"), "video", text, ("video", "audio")), f"a{number}")


def test_the_control_gives_every_question_the_sound_of_another_file() -> None:
    questions = [question(number) for number in range(7)]
    donors = donors_of(questions, "shuffled_audio")
    assert sorted(donors) == [q.id for q in questions]
    assert all(donors[q.id].file != q.record.file for q in questions)
    with pytest.raises(ValueError, match="about one file"):
        donors_of(questions[:1], "shuffled_audio")


def test_a_control_that_is_unknown_or_changes_nothing_is_refused() -> None:
    assert control_of(None, "V") == "" and control_of("shuffled_video", "F") == "shuffled_video"
    with pytest.raises(ValueError, match="choose from shuffled_audio, shuffled_video"):
        control_of("shuffled", "VA")
    for control, modality in (("shuffled_audio", "VF"), ("shuffled_video", "A")):
        with pytest.raises(ValueError, match=f"modality={modality} has nothing that it could shuffle"):
            control_of(control, modality)


def test_a_modality_is_narrowed_to_what_the_model_reads_unless_it_was_asked_for() -> None:
    assert modality_of(Sample(), "VA", None) == "VA" and modality_of(Sample(), "VAF", "F") == "F"
    with pytest.raises(ValueError, match="no encoder for F; it reads VA"):
        modality_of(Sample(), "VA", "VAF")
    with pytest.raises(ValueError, match="choose from V, A, F"):
        modality_of(Sample(), "VA", "X")
    assert modality_of(Sample(), "VA", "AV") == "VA"  # the papers' order


def test_a_shuffled_question_takes_the_clip_of_its_donor_as_well() -> None:
    own = replace(question(1).record, start=1.0, end=2.0, faces=())
    other = replace(question(2).record, start=30.0, end=45.0)
    heard = seen_as_asked(own, "VA", "shuffled_audio", other)
    assert heard is not None and (heard.file, heard.start, heard.end) == (own.file, 1.0, 2.0)
    assert heard.sound == other.file and heard.heard == (30.0, 45.0)
    seen = seen_as_asked(own, "VA", "shuffled_video", other)
    assert seen is not None and (seen.file, seen.start, seen.end, seen.faces) == (other.file, 30.0, 45.0, None)
    assert seen.sound == own.file and seen.heard == (1.0, 2.0)
