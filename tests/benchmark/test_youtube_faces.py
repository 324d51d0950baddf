"""YouTube Faces: pairs, segments and scores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.youtube_faces import PROMPT, YouTubeFaces
from omnihuman.build import build, compose_part
from omnihuman.data.media import merge_headers, probe, read_clip

PEOPLE = {"Ann_Lee": {0: 60, 1: 50}, "Bob_Ray": {2: 100}, "Cy_Doe": {0: 40, 3: 36, 5: 37}}
SPLITS = """split number, pair number, first name, second name, is same, same
1, 1, Ann_Lee/0, Ann_Lee/1, 1, 1
1, 2, Ann_Lee/0, Bob_Ray/2, 0, 0
2, 3, Cy_Doe/0, Cy_Doe/3, 1, 1
2, 4, Ann_Lee/0, Bob_Ray/2, 0, 0
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("YouTubeFaces")
    for name, videos in PEOPLE.items():
        for video, count in videos.items():
            names = [f"{video}.{number + 990}.jpg" for number in range(count)]
            pictures(root / "frame_images_DB" / name / str(video), names)
        (root / "frame_images_DB" / f"{name}.labeled_faces.txt").write_text("")
    (root / "splits.txt").write_text(SPLITS)
    return root


def test_official_pairs(faces: Path) -> None:
    questions = YouTubeFaces(str(faces)).questions()
    assert [(q.id, q.reference, q.group) for q in questions] == [
        ("1/1", "Yes", "fold_1"),
        ("1/2", "No", "fold_1"),
        ("2/3", "Yes", "fold_2"),
        ("2/4", "No", "fold_2"),
    ]
    record = questions[1].record
    assert record.file == faces / "frame_images_DB" / "Ann_Lee" / "0"
    assert record.second_clip == faces / "frame_images_DB" / "Bob_Ray" / "2"
    assert record.messages[0][1] == f"<video>\n{PROMPT}"
    headers = {file: probe(file) for file in record.files}
    clip = read_clip(record, merge_headers(record, headers), 8, 0)
    frames, times, first = clip.frames, clip.times, clip.num_first
    assert (len(frames), first) == (8, 4), "half of the frames from each clip"
    assert max(times[:4]) < 60 / 25 < max(times[4:]) < 100 / 25


def test_yaml_builds_the_class(faces: Path) -> None:
    built = build(compose_part("benchmark", "youtube_faces"), root=str(faces))
    assert built.prompt == PROMPT and len(built.questions()) == 4 and built.log_probs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1, 1, Ann_Lee/0, Ann_Lee/1, 1, yes", r"other\.txt:2: .*<fold>, <pair>"),
        ("1, 1, Ann_Lee, 0, 1, 1", r"other\.txt:2: .*<fold>"),
        ("1\t1\tAnn_Lee/0\tAnn_Lee/1\t1", r"other\.txt:2: .*<fold>"),
        ("1, 1, Ann_Lee/0, Ann_Lee/7, 1, 1", r"other\.txt:2: .*no file .*Ann_Lee/7.*missing_media=skip"),
        ("1, 2, Ann_Lee/0, Ann_Lee/1, 1, 1", r"'1/2'.*duplicated \(.*txt:2 and .*txt:3\)"),
    ],
)
def test_an_invalid_line_raises(line: str, message: str, faces: Path) -> None:
    (faces / "other.txt").write_text(SPLITS.replace("1, 1, Ann_Lee/0, Ann_Lee/1, 1, 1", line))
    with pytest.raises(ValueError, match=message):
        YouTubeFaces(str(faces), splits="other.txt").questions()


def test_missing_files_raise_or_are_skipped(faces: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.txt: .*no such file.*splits.*pairs=favchat_like"):
        YouTubeFaces(str(faces), splits="gone.txt").questions()
    with pytest.raises(ValueError, match=r"0 people with videos"):
        YouTubeFaces(str(faces), pairs="favchat_like", media="aligned_images_DB").questions()
    (faces / "other.txt").write_text(SPLITS.replace("Cy_Doe/3", "Cy_Doe/4"))
    benchmark = YouTubeFaces(str(faces), splits="other.txt", missing_media="skip")
    assert len(benchmark.questions()) == 3 and benchmark.protocol()["missing media"].startswith("1 of 8 skipped")


def test_favchat_like_pairs(faces: Path) -> None:
    questions = YouTubeFaces(str(faces), pairs="favchat_like").questions()
    assert [q.reference for q in questions] == ["Yes", "No"] * 3
    for question in questions:
        first, second = (video.split("/")[0] for video in question.meta["videos"])
        assert (first == second) == (question.reference == "Yes")
        record = question.record
        for file, (start, end) in (
            (record.file, (record.start, record.end)),
            (record.second_clip, record.second_clip_span),
        ):
            frames = [n for n in range(probe(file).num_frames) if start <= n / 25 < (end or 1e9)]
            assert len(frames) == 36, "a segment has 36 frames"
    bob = next(question for question in questions if question.id == "Bob_Ray/same")
    assert bob.meta["same_video"] and (bob.record.end or 0) < bob.record.second_clip_span[0], (
        "start and end do not overlap"
    )
    assert sum(question.meta["same_video"] for question in questions) == 1
    again, other = (YouTubeFaces(str(faces), pairs="favchat_like", seed=seed).questions() for seed in (0, 3))
    assert [q.meta for q in again] == [q.meta for q in questions] != [q.meta for q in other]
    without = YouTubeFaces(str(faces), pairs="favchat_like", same_video_positive=False).questions()
    assert len(without) == 4 and not any("Bob_Ray" in question.id for question in without)


def test_scores_by_hand(faces: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = YouTubeFaces(str(faces))
    predictions = answered(benchmark.questions(), ["Yes.", "yes", "I think no", None])
    assert [benchmark.parse(prediction)[0] for prediction in predictions] == ["Yes", "Yes", "No", None]
    assert {score.name: score.value for score in benchmark.scores(predictions)} == {
        "accuracy": 25.0,
        "accuracy/fold_1": 50.0,
        "accuracy/fold_2": 0.0,
    }
    assert benchmark.scores(predictions)[0].note.endswith(
        "only one of yes and no; mean of 2 folds, standard error 25.00"
    )
    log_probs: list[tuple[float, ...]] = [(-0.1, -2.0), (-0.5, -0.9), (-0.7, -0.6), ()]
    with_log_probs = [replace(p, log_probs=values) for p, values in zip(predictions, log_probs, strict=True)]
    scores = {score.name: score.value for score in benchmark.scores(with_log_probs)}
    # P(Yes) .87 .60 .48, and 1 for the failed generation: 1 of 4 pairs of a positive and a negative is in order
    assert scores["auc"] == pytest.approx(25.0) and scores["accuracy"] == 25.0


def test_score_without_pairs_from_one_video(faces: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = YouTubeFaces(str(faces), pairs="favchat_like")
    questions = benchmark.questions()
    answers = ["Yes" if q.meta["same_video"] else "No" for q in questions]
    scores: dict[str, Any] = {score.name: score for score in benchmark.scores(answered(questions, answers))}
    assert scores["accuracy"].value == pytest.approx(400 / 6)  # 3 No and the one from one video
    assert scores["accuracy_two_videos"].value == pytest.approx(300 / 5)


def test_a_list_without_a_header(faces: Path) -> None:
    (faces / "bare.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(SPLITS.splitlines()[1:]).encode())
    assert [q.id for q in YouTubeFaces(str(faces), splits="bare.txt").questions()] == ["1/1", "1/2", "2/3", "2/4"]
    (faces / "bare.txt").write_text(SPLITS.split("\n", 1)[1].replace("1, 1, Ann", "x, 1, Ann", 1))
    with pytest.raises(ValueError, match=r"bare\.txt:1: .*<fold>"):
        YouTubeFaces(str(faces), splits="bare.txt").questions()
