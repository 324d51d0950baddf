"""Records of annotated clips: media, times, questions, and what is wrong with a clip."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnihuman.data.record import Record
from omnihuman.source.annotation import Annotation, AnnotationSource
from tests.data.conftest import write_clip


class ListSource(AnnotationSource):
    """Annotated clips from a list."""

    def __init__(self, root: Path, *annotations: Annotation, **options: Any) -> None:
        super().__init__("labels.csv", root, **{"task": "emotion", "options": ["joy", "anger"]} | options)
        self.list = annotations

    def annotations(self) -> Iterator[Annotation]:
        yield from self.list


@pytest.fixture(scope="module")
def media(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with media of every kind. Tests do not change it."""
    folder = tmp_path_factory.mktemp("annotated")
    shutil.copy(root / "talk.mp4", folder / "talk.mp4")
    write_clip(folder / "silent.mp4", num_frames=5, seconds=0)
    write_clip(folder / "tone.wav", num_frames=0, audio_codec="pcm_s16le", sample_rate=16000, layout="mono")
    Image.new("RGB", (32, 32)).save(folder / "face.png")
    (folder / "frames").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "frames" / "1.png")
    (folder / "broken.mp4").write_text("no media")
    return folder


def annotate(media: Path, options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the record of one annotation."""
    source = ListSource(media, Annotation("row 2", "joy", **fields), **(options or {}))
    (item,) = source.annotate()[1]
    assert item.raw is not None, item.error
    assert isinstance(next(source.records()), Record)
    return item.raw


@pytest.mark.parametrize(
    ("files", "tags"),
    [
        ({"video": "talk.mp4"}, ["<video>", "<audio>"]),
        ({"video": "talk.mp4", "audio": ""}, ["<video>", "<audio>"]),
        ({"video": "silent.mp4"}, ["<video>"]),
        ({"video": "frames"}, ["<video>"]),
        ({"audio": "tone.wav"}, ["<audio>"]),
        ({"audio": "talk.mp4"}, ["<audio>"]),
        ({"image": "face.png"}, ["<image>"]),
        ({"video": "silent.mp4", "audio": "tone.wav"}, ["<video>", "<audio>"]),
    ],
)
def test_the_question_has_the_slots_that_the_media_fill(media: Path, files: dict[str, str], tags: list[str]) -> None:
    raw = annotate(media, files=files)
    question = raw["conversations"][0]["value"]
    assert question.split("\n") == [*tags, "Which emotion fits this clip best?", "joy ,anger"]
    assert raw["id"] == next(iter(files.values())) and raw["meta"] == {"options": ["joy", "anger"]}
    assert raw["conversations"][1] == {"from": "gpt", "value": "joy"} and raw["task"] == "emotion"


def test_an_audio_beside_a_video_is_its_track(media: Path) -> None:
    raw = annotate(media, files={"video": "silent.mp4", "audio": "tone.wav"})
    assert (raw["video"], raw["audio_track"]) == ("silent.mp4", "tone.wav") and "audio" not in raw


def test_times_people_and_the_system_prompt_are_kept(media: Path) -> None:
    raw = annotate(media, files={"video": "talk.mp4"}, start="0.5", end="1", person="Ann", system="Be brief.")
    assert (raw["start"], raw["end"], raw["system"]) == (0.5, 1.0, "Be brief.") and raw["meta"]["person"] == "Ann"


def test_a_question_with_tags_keeps_them(media: Path) -> None:
    raw = annotate(media, {"question": "In <video>, who is it?", "options": "open"}, files={"video": "talk.mp4"})
    assert raw["conversations"][0]["value"] == "In <video>, who is it?" and "meta" not in raw


def test_a_question_of_its_own_replaces_that_of_the_source(media: Path) -> None:
    raw = annotate(media, {"question": "Who?"}, files={"audio": "tone.wav"}, question="Why?")
    assert raw["conversations"][0]["value"] == "<audio>\nWhy?\njoy ,anger"


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"files": {"video": "nowhere.mp4"}}, "missing_file", "video 'nowhere.mp4': "),
        ({"files": {"video": "../x.mp4"}}, "outside_root", "root"),
        ({"files": {"video": "broken.mp4"}}, "unreadable", "broken.mp4"),
        ({"files": {"video": ""}}, "no_media", "no file"),
        ({"files": {"video": "tone.wav"}}, "other_kind", "audio="),
        ({"files": {"video": "face.png"}}, "other_kind", "image="),
        ({"files": {"image": "silent.mp4"}}, "other_kind", "video="),
        ({"files": {"audio": "silent.mp4"}}, "no_audio", "silent.mp4"),
        ({"files": {"image": "face.png", "audio": "tone.wav"}}, "malformed_record", "image and audio"),
        ({"start": "1:30"}, "malformed_time", "83.5"),
        ({"start": "1", "end": "0,5"}, "malformed_time", "0,5"),
        ({"start": "1", "end": "0.5"}, "malformed_record", "end 0.5"),
        ({"start": "nan"}, "malformed_time", "nan"),
        ({"start": "-1"}, "malformed_record", "-1"),
        ({"start": "300"}, "outside_file", "start 300"),
        ({"answer": ""}, "empty_answer", "empty"),
        ({"answer": "fear"}, "unknown_label", "'fear'"),
        ({"split": " "}, "empty_split", "empty"),
        ({"person": ""}, "empty_person", "empty"),
        ({"question": ""}, "empty_question", "empty"),
    ],
)
def test_a_clip_that_cannot_be_used_has_a_reason(media: Path, fields: dict[str, Any], reason: str, text: str) -> None:
    annotation = Annotation(**{"place": "labels.csv row 7", "answer": "joy", "files": {"video": "talk.mp4"}} | fields)
    source = ListSource(media, annotation)
    (item,) = source.annotate()[1]
    assert item.raw is None and item.error is not None and item.error.reason == reason
    assert str(item.error).startswith("labels.csv row 7: ") and text in str(item.error)
    assert str(item.error).count("labels.csv") == 1 and "data.root" not in str(item.error)
    assert [entry[1].reason for entry in source.records()] == [reason]


def test_ids_are_paths_with_a_number_where_several_records_have_one(media: Path) -> None:
    files = [{"video": "talk.mp4"}, {"audio": "tone.wav"}, {"video": "gone.mp4"}, {"video": "talk.mp4"}]
    source = ListSource(media, *(Annotation(f"row {number}", "joy", file) for number, file in enumerate(files)))
    ids = [item.raw and item.raw["id"] for item in source.annotate()[1]]
    assert ids == ["talk.mp4#1", "tone.wav", None, "talk.mp4#2"]


def test_links_out_of_the_root_are_followed_on_demand(media: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(media)
    annotation = Annotation("row 2", "joy", {"video": str(tmp_path / "clips" / "talk.mp4")})
    (item,) = ListSource(tmp_path, annotation).annotate()[1]
    assert item.error is not None and "source.follow_links=true" in str(item.error)
    source = ListSource(tmp_path, annotation, follow_links=True)
    (item,) = source.annotate()[1]
    assert item.files == ("clips/talk.mp4",) and isinstance(next(source.records()), Record)


def test_free_text_needs_a_question(media: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv: .*question=.*options="):
        ListSource(media, Annotation("row 2", "joy", {"video": "talk.mp4"}), options=None).annotate()


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root=.*nowhere"):
        ListSource(tmp_path / "nowhere").annotate()
