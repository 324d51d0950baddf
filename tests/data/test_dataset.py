"""Every bad input under every policy: raised with a name, or skipped and counted, never replaced."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from omnihuman.build import build, compose_config
from omnihuman.data.chat import Chat
from omnihuman.data.datafile import read_records
from omnihuman.data.dataset import Samples
from omnihuman.data.face import FaceInput
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample, Record, Sighting
from omnihuman.types import SLOTS

from .conftest import TRANSFORMS, layouts, picture, plain_frames, plain_sound

BOTH = "<video>\n<audio>\nWho?"
PLANNED = {
    "truncated, moov last": ({"video": "cut_back.mp4"}, "unreadable"),
    "zero bytes": ({"video": "empty.mp4"}, "unreadable"),
    "text renamed": ({"video": "text.mp4"}, "unreadable"),
    "missing": ({"video": "gone.mp4"}, "missing_file"),
    "outside": ({"video": "../outside.mp4"}, "outside_root"),
    "no sound at all": ({"audio": "silent.mp4", "text": "<audio>\nWho?"}, "no_media"),
    "0 s of sound": ({"audio": "nothing.wav", "text": "<audio>\nWho?"}, "no_media"),
    "sound alone as a video": ({"video": "sound.m4a", "text": "<video>\nWho?"}, "no_media"),
    "needed sound": ({"video": "silent.mp4", "needs": ["audio"]}, "no_media"),
    "no sound in the clip": ({"video": "talk.mp4", "start": 7}, "empty_audio"),
    "unknown role": ({"video": "talk.mp4", "role": "robot"}, "unknown_role"),
    "answer cut away": ({"video": "talk.mp4", "text": BOTH + " Who?" * 400}, "answer_truncated"),
    "media longer than the limit": ({"video": "talk.mp4", "frames": 200}, "too_long"),
}
FETCHED = {
    "truncated, moov first": ({"video": "cut_front.mp4"}, "truncated"),
    "clip behind the pictures": ({"video": "talk.mp4", "text": "<video>\nWho?", "start": 7}, "empty_clip"),
}
GOOD = {"video": "talk.mp4"}


def make(root: Path, folder: Path, tokenizer: Any, entries: list[dict[str, Any]], **options: Any) -> Samples:
    """Samples of short-hand records."""
    lines = []
    for number, given in enumerate(entries):
        entry = {"text": BOTH, "role": "human"} | given
        turns = [{"from": entry.pop("role"), "value": entry.pop("text")}, {"from": "gpt", "value": "A man."}]
        options.setdefault("num_frames", entry.pop("frames", 4))
        lines.append(json.dumps({"id": f"r{number}", "conversations": turns, **entry}))
    (folder / "train.jsonl").write_text("\n".join(lines))
    chat = Chat(tokenizer, max_length=700)
    options = {"num_frames": 4, **options}
    return Samples(read_records(folder / "train.jsonl", root), TRANSFORMS, layouts, chat, **options)


@pytest.fixture
def samples(media_root: Path, tmp_path: Path, tokenizer: Any) -> Any:
    return lambda entries, **options: make(media_root, tmp_path, tokenizer, entries, **options)


@pytest.mark.parametrize("name", PLANNED)
def test_what_planning_finds(name: str, samples: Any) -> None:
    entry, reason = PLANNED[name]
    with pytest.raises(BadSample, match=r"data\.on_bad_sample=skip") as caught:
        samples([entry])
    assert caught.value.reason == reason
    assert "train.jsonl:1" in str(caught.value), "the message names file and line"
    left = samples([entry, GOOD | entry.get("also", {})], policy="skip") if "frames" not in entry else None
    if left is not None:
        assert [(skip["id"], skip["reason"]) for skip in left.skipped] == [("r0", reason)]
        assert [planned.record.id for planned in left.planned] == ["r1"], "nothing takes its place"


@pytest.mark.parametrize("name", FETCHED)
def test_what_only_decoding_finds(name: str, samples: Any) -> None:
    entry, reason = FETCHED[name]
    with pytest.raises(BadSample, match=r"train\.jsonl:1.*data\.on_bad_sample=skip") as caught:
        samples([entry])[Row((0,), 1)]
    assert caught.value.reason == reason
    some = samples([entry, GOOD], policy="skip")
    batch = some[Row((0, 1), 5)]
    assert [skip["reason"] for skip in batch.skipped] == [reason]
    assert [meta["id"] for meta in batch.meta] == ["r1"] and batch.bounds.tolist() == [0, some.lengths[1]]
    assert batch.step_targets == 5, "the plan's, whatever was skipped"


def test_planned_is_trained_plus_skipped(samples: Any) -> None:
    entries = [entry for entry, _ in [*PLANNED.values(), *FETCHED.values()] if "frames" not in entry]
    some = samples([*entries, GOOD, GOOD, {"image": "still.png", "text": "<image>?"}], policy="skip")
    batch = some[Row(tuple(range(len(some))), 1)]
    assert len(batch.meta) == 3
    assert len(batch.meta) + len(batch.skipped) + len(some.skipped) == len(entries) + 3
    assert all(skip["reason"] and skip["message"] and skip["id"] for skip in [*batch.skipped, *some.skipped])


def test_quarantine_is_never_opened_again(samples: Any, tmp_path: Path) -> None:
    options = {"policy": "quarantine", "quarantine_file": tmp_path / "deep" / "quarantine.jsonl"}
    entries = [{"video": "cut_front.mp4"}, {"video": "empty.mp4"}, GOOD]
    first = samples(entries, **options)
    assert [skip["reason"] for skip in first.skipped] == ["unreadable"]
    assert [skip["id"] for skip in first[Row((0, 1), 1)].skipped] == ["r0"]
    again = samples(entries, **options)
    assert [(skip["id"], skip["reason"]) for skip in again.skipped] == [("r0", "quarantined"), ("r1", "quarantined")]
    assert len(again) == 1
    assert len(options["quarantine_file"].read_text().splitlines()) == 2, "what stands there is not added again"
    with pytest.raises(BadSample):
        samples(entries, quarantine_file=options["quarantine_file"])
    options["quarantine_file"].write_text("oops\n")
    with pytest.raises(ValueError, match=r"quarantine\.jsonl:1.*remove the line"):
        samples(entries, **options)


@pytest.mark.parametrize("name", ["silent.mp4", "sound.m4a", "sound.wav"])
def test_a_slot_that_the_file_cannot_fill_is_dropped_and_counted(name: str, samples: Any) -> None:
    some = samples([{"video": name}])
    kept = "video" if name == "silent.mp4" else "audio"
    assert some.dropped_slots == 1
    assert some.planned[0].record.slots == (kept,)
    batch = some[Row((0,), 1)]
    assert set(batch.input_ids[batch.input_ids < 0].tolist()) == {SLOTS[kept]}
    assert batch.signals[kept].mask.any() and not batch.signals["audio" if kept == "video" else "video"].mask.any()


@pytest.mark.parametrize("name", ["silent.mp4", "sound.wav"])
def test_the_official_filler_is_an_option(name: str, samples: Any) -> None:
    some = samples([{"video": name}], missing="fill")
    batch = some[Row((0,), 1)]
    lacking = "audio" if name == "silent.mp4" else "video"
    assert some.planned[0].record.slots == ("video", "audio")
    signal = batch.signals[lacking]
    assert signal.mask.sum() == (1000 if lacking == "audio" else 1) and not signal.values.any()


@pytest.mark.parametrize(("key", "tag"), [("image", "<image>"), ("video", "<video>")])
@pytest.mark.parametrize("name", ["still.png", "still.jpg"])
def test_a_still_is_a_video_of_one_frame(name: str, key: str, tag: str, samples: Any) -> None:
    batch = samples([{key: name, "text": f"{tag}\nWhat?"}])[Row((0,), 1)]
    assert batch.signals["video"].mask.sum() == 1
    assert (batch.input_ids == SLOTS["video"]).sum() == 4


def test_a_clip_is_what_was_planned(samples: Any, media_root: Path) -> None:
    some = samples([GOOD | {"start": 0.5, "end": 1.5}, {"video": "one.mp4", "text": "<video>\nWho?"}])
    assert some.planned[0].amounts == {"frames": 4, "waveform": 16000}
    sample = some.sample(some.planned[0])
    inside = [frame for time, frame in plain_frames(media_root / "talk.mp4") if 0.5 <= time < 1.5]
    assert torch.equal(sample.frames, torch.stack([inside[i] for i in (3, 9, 15, 21)]))
    assert torch.allclose(sample.waveform, plain_sound(media_root / "talk.mp4")[8000:24000], atol=2e-3)
    assert sample.meta["times"] == pytest.approx([0.62, 0.86, 1.1, 1.34], abs=0.021)
    batch = some[Row((0, 1), 3)]
    assert batch.bounds.tolist() == [0, *torch.tensor(some.lengths).cumsum(0).tolist()], "lengths hold before decoding"
    supervised = (batch.labels != -100).sum()
    assert supervised == sum(some.targets)
    counts = [(batch.input_ids == SLOTS[slot]).sum().item() for slot in ("video", "audio")]
    assert counts == [4 * 4 + 4 * 4, 10]


def test_views_use_a_record_once_for_each_that_leaves_something(samples: Any) -> None:
    views = ["video_audio", "video", "audio"]
    some = samples([GOOD, {"video": "silent.mp4"}, GOOD | {"needs": ["audio"]}], views=views)
    assert [(planned.record.id, planned.record.slots) for planned in some.planned] == [
        ("r0", ("video", "audio")), ("r0#video", ("video",)), ("r0#audio", ("audio",)),
        ("r1", ("video",)),
        ("r2", ("video", "audio")), ("r2#audio", ("audio",)),
    ]  # fmt: skip
    assert some.dropped_slots == 1 and not some.skipped


def test_a_view_that_the_model_cannot_read_says_so(samples: Any, tokenizer: Any, media_root: Path) -> None:
    deaf = {"video": 8, "audio": 0}
    records = list(samples([GOOD]).planned)
    with pytest.raises(BadSample, match=r"no encoder for \['audio'\]; choose data\.views"):
        Samples([records[0].record], TRANSFORMS, lambda amounts: deaf, Chat(tokenizer), num_frames=2)


def test_prompts_end_where_the_answer_begins(samples: Any) -> None:
    batch = samples([GOOD], prompts=True)[Row((0,), 0)]
    whole = samples([GOOD])[Row((0,), 0)]
    length = batch.input_ids.shape[1]
    assert torch.equal(whole.input_ids[:, :length], batch.input_ids)
    assert (batch.labels == -100).all() and whole.labels[0, length] != -100
    assert batch.meta[0]["answer"] == "A man."


def test_an_empty_row_is_a_blank_batch(samples: Any) -> None:
    batch = samples([GOOD])[Row((), 7)]
    assert batch.meta == () and batch.step_targets == 7 and not batch.signals["audio"].mask.any()
    assert batch.signals["video"].values.shape == (1, 1, 3, 8, 8)


def questions(records: list[Record], model_side: Any, **options: Any) -> Samples:
    transforms, count, tokens = model_side
    return Samples(records, transforms, count, Chat(tokens), num_frames=4, prompts=True, **options)


WITH_FACES = {**TRANSFORMS, "face": ("faces", TRANSFORMS["video"][1])}
WHOLE = FaceInput(source="whole")


def asked(file: Path, **other: Any) -> Record:
    messages = (("user", "<video>\n<audio>\nWho?"), ("assistant", ""))
    return Record("1", file, "video", messages, ("video", "audio"), **other)


def test_what_a_view_hides_encoders_do_not_get(media_root: Path, tokenizer: Any) -> None:
    views = ["video_audio", "frames_audio", "faces_audio", "faces"]
    side = (WITH_FACES, layouts, tokenizer)
    some = questions([asked(media_root / "talk.mp4")], side, views=views, face=WHOLE)
    batch = some[Row((0, 1, 2, 3), 0)]
    real = {name: signal.mask.any(dim=1).tolist() for name, signal in batch.signals.items()}
    assert real["video"] == [True, True, False, False] and real["face"] == [True, False, True, True]
    assert real["audio"] == [True, True, True, False]
    assert batch.signals["video"].has_gaps and not batch.signals["video"].values[2:].any()
    assert batch.signals["video"].values.shape[:2] == (4, 4), "planned moments, none of them real"
    sample = some.sample(some.planned[2])
    assert sample.frames is None and len(sample.faces) == 4, "nor does who looks at the sample"
    assert some.sample(some.planned[1]).faces == ()


def test_faces_that_are_hidden_need_no_boxes(media_root: Path, tokenizer: Any) -> None:
    some = questions([asked(media_root / "talk.mp4")], (WITH_FACES, layouts, tokenizer), views=["video", "frames"])
    assert len(some) == 2 and some.without_boxes == 1


@pytest.mark.parametrize("face", [None, FaceInput(source="none")])
def test_faces_alone_need_an_encoder_that_reads_them(face: FaceInput | None, media_root: Path, tokenizer: Any) -> None:
    side = (TRANSFORMS if face is None else WITH_FACES, layouts, tokenizer)
    with pytest.raises(BadSample, match=r"this model has no encoder that reads faces") as caught:
        questions([asked(media_root / "talk.mp4")], side, views=["faces"], face=face)
    assert caught.value.reason == "no_slot"


def test_a_record_of_several_files_is_planned_from_all_of_them(
    media_root: Path, tmp_path: Path, model_side: Any
) -> None:
    folder = tmp_path / "00001"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(picture(number, 64, 48)).save(folder / f"{number}.jpg")
    silent, heard = asked(folder), asked(folder, sound=media_root / "sound.wav")
    both = asked(media_root / "talk.mp4", then=folder, faces=(Sighting(0.0, ((1.0, 1.0, 9.0, 9.0),)),))
    some = questions([silent, heard, both], model_side)
    assert [planned.record.slots for planned in some.planned] == [("video",), *[("video", "audio")] * 2]
    batch = some[Row((0, 1, 2), 0)]
    assert batch.signals["video"].mask.sum(dim=1).tolist() == [4, 4, 4]
    assert [bool(row.any()) for row in batch.signals["audio"].mask] == [False, True, True]
    closely = questions([both], (WITH_FACES, *model_side[1:]))
    faces = closely.sample(closely.planned[0]).faces
    assert [face is None for face in faces] == [False, False, True, True], "boxes are those of the first clip"
    with pytest.raises(BadSample, match=r"train.json:1 \(1\): .*gone\.wav: there is no such file"):
        questions([asked(folder, sound=tmp_path / "gone.wav", source="train.json:1")], model_side)


def test_what_is_asked_and_how_the_answer_begins_may_be_told(media_root: Path, model_side: Any) -> None:
    plain, told = (
        questions([asked(media_root / "talk.mp4", meta=meta)], model_side)
        for meta in ({}, {"instruction": "Where?", "prime": "Best option:("})
    )
    batches = [some[Row((0,), 0)] for some in (plain, told)]
    words = model_side[2].decode(batches[1].input_ids[0, batches[0].input_ids.shape[1] :])
    assert words == "Best option:("
    assert [some.sample(some.planned[0]).instruction for some in (plain, told)] == ["Who?", "Where?"]


@pytest.mark.parametrize("experiment", ["omni_emotion_recognition", "favchat_stage3"])
def test_faces_alone_decide_what_the_language_model_reads(experiment: str, tmp_path: Path) -> None:
    """Other frames behind the same faces change nothing; other faces do."""
    torch.manual_seed(0)
    model = build(compose_config([f"+experiment={experiment}"]).model).eval()
    chat = Chat(model.llm.tokenizer, **model.llm.chat)
    box = (Sighting(0.0, ((8.0, 8.0, 40.0, 40.0),)),)
    for name in ("one", "background", "face"):
        (tmp_path / name).mkdir()
        for number in range(8):
            pixels = picture(number, 64, 48)
            if name == "background":
                pixels[:, 48:] = 255 - pixels[:, 48:]
            if name == "face":
                pixels[10:38, 10:38] = 255 - pixels[10:38, 10:38]
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")

    def embedded(view: str, name: str) -> torch.Tensor:
        records = [replace(asked(tmp_path / name, faces=box), messages=(("user", "<video>\nWho?"), ("assistant", "")))]
        records = [replace(record, slots=("video",)) for record in records]
        some = Samples(records, model.transforms, model.layouts, chat, num_frames=8, views=[view], prompts=True)
        with torch.no_grad():
            embeds, kept, _ = model.embedded(some[Row((0,), 0)])
        return embeds[0, kept]

    alone = {name: embedded("faces", name) for name in ("one", "background", "face")}
    assert torch.equal(alone["one"], alone["background"])
    assert alone["one"].shape == alone["face"].shape and not torch.allclose(alone["one"], alone["face"], atol=1e-4)
    unseen, seen = embedded("frames", "one"), embedded("video", "one")
    words = len(chat.prompt((("user", "Who?"), ("assistant", "")), {}))
    assert words < len(alone["one"]) <= len(seen) and not torch.equal(seen, embedded("video", "background"))
    assert unseen.shape[0] <= seen.shape[0]
