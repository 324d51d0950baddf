"""Views and controls of an evaluation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.benchmark.base import Question
from omnihuman.benchmark.sample import Sample
from omnihuman.data.record import Record
from omnihuman.evaluation.control import apply_view, change_branch, parse_control, select_donors, select_view
from omnihuman.fusion.base import Fusion
from omnihuman.fusion.clip_concat import ClipConcat
from omnihuman.fusion.weighted_sum import WeightedSum
from omnihuman.modality import View
from omnihuman.types import Features, Streams


def question(number: int) -> Question:
    text = (("user", f"<video>\n<audio>\nquestion {number}"), ("assistant", ""))
    return Question(Record(f"q{number}", Path(f"{number}.mp4"), "video", text, ("video", "audio")), f"a{number}")


def test_control_uses_the_audio_of_another_file() -> None:
    questions = [question(number) for number in range(7)]
    donors = select_donors(questions, "shuffled_audio")
    assert sorted(donors) == [q.id for q in questions]
    assert all(donors[q.id].file != q.record.file for q in questions)
    with pytest.raises(ValueError, match="about one file"):
        select_donors(questions[:1], "shuffled_audio")


def test_unknown_or_useless_control_raises() -> None:
    assert parse_control(None, View("V")) == "" and parse_control("shuffled_video", View("F")) == "shuffled_video"
    with pytest.raises(ValueError, match=r"control=shuffled: .*shuffled_audio, shuffled_video"):
        parse_control("shuffled", View("VA"))
    for control, view in (("shuffled_audio", "VF"), ("shuffled_video", "A")):
        with pytest.raises(ValueError, match=rf"control={control}: view={view} .*nothing"):
            parse_control(control, View(view))


@pytest.mark.parametrize(
    ("model_view", "requested", "expected"),
    [("VA", None, "VA"), ("VAF", "F", "F"), ("VA", "VAF", "VA"), ("VA", "av", "VA"), ("VAF", "video", "VF")],
)
def test_view_is_limited_to_the_modalities_of_the_model(model_view: str, requested: str | None, expected: str) -> None:
    assert str(select_view(Sample(), View(model_view), requested)) == expected


@pytest.mark.parametrize(("requested", "message"), [("F", r"view=F\b.*\bVA\b"), ("X", "unknown view")])
def test_view_that_the_model_cannot_use_raises(requested: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_view(Sample(), View("VA"), requested)


def test_shuffled_question_takes_the_clip_of_its_donor() -> None:
    record = replace(question(1).record, start=1.0, end=2.0, faces=())
    donor = replace(question(2).record, start=30.0, end=45.0)
    audio = apply_view(record, View("VA"), "shuffled_audio", donor)
    assert audio is not None and (audio.file, audio.span) == (record.file, (1.0, 2.0))
    assert audio.audio_track == donor.file and audio.audio_span == (30.0, 45.0)
    video = apply_view(record, View("VA"), "shuffled_video", donor)
    assert video is not None and (video.file, video.span, video.faces) == (donor.file, (30.0, 45.0), None)
    assert video.audio_track == record.file and video.audio_span == (1.0, 2.0)


def build_streams() -> Streams:
    """Return streams of the values 1 and 10."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    return {name: Features.of(torch.full((1, 2, 3, 4), value), mask) for name, value in (("face", 1.0), ("body", 10.0))}


def merge(fusion: type[Fusion], control: str, **options: Any) -> list[float]:
    """Return the first and the last token that a fusion makes of the streams under a control."""
    module = fusion({"face": 4, "body": 4}, ["face", "body"], "video", **options)
    change_branch([module], control)
    tokens = module(build_streams())["video"].tokens.flatten()
    return [float(tokens[0]), float(tokens[-1])]


def test_a_branch_is_dropped_or_stands_for_all() -> None:
    assert merge(WeightedSum, "shuffled_audio") == [5.5, 5.5]
    assert merge(WeightedSum, "drop_branch:face") == [5.0, 5.0]
    assert merge(WeightedSum, "drop_branch:body") == [0.5, 0.5]
    assert merge(WeightedSum, "only_branch:body", weights=[0.9, 0.1]) == [10.0, 10.0]
    assert merge(ClipConcat, "drop_branch:body") == [1.0, 0.0] and merge(ClipConcat, "only_branch:body") == [10.0, 10.0]


@pytest.mark.parametrize("control", ["drop_branch:nose", "only_branch"])
def test_unknown_branch_raises(control: str) -> None:
    assert parse_control(control, View("V")) == control and select_donors([question(1)], control) == {}
    with pytest.raises(ValueError, match=rf"control={control}: .*\['body', 'face'\]"):
        merge(WeightedSum, control)


def test_branch_of_another_shape_replaces_none() -> None:
    module = ClipConcat({"face": 4, "body": 4}, ["face", "body"], "video")
    change_branch([module], "only_branch:face")
    streams = build_streams()
    streams["body"] = replace(streams["body"], tokens=streams["body"].tokens[:, :, :1], mask=torch.ones(1, 2, 1) > 0)
    with pytest.raises(ValueError, match=r"only_branch:face: .*\(1, 2, 3, 4\)"):
        module(streams)
