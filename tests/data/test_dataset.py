"""Samples: planning, decoding, views, and every bad input under every policy."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from omnihuman.build import build, compose_config
from omnihuman.data import media
from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.face import FaceInput
from omnihuman.data.media import probe
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import BadSample, FaceDetection, Record
from omnihuman.modality import SLOTS, View
from omnihuman.source.jsonl import JsonlSource

from .conftest import CHATML, TRANSFORMS, WITH_FACES, count_tokens, decode_audio, decode_frames, draw_frame

BOTH_SLOTS = "<video>\n<audio>\nWho?"
PLANNING_ERRORS = {
    "truncated, moov last": ({"video": "cut_back.mp4"}, "unreadable"),
    "zero bytes": ({"video": "empty.mp4"}, "unreadable"),
    "text renamed": ({"video": "text.mp4"}, "unreadable"),
    "missing": ({"video": "missing.mp4"}, "missing_file"),
    "outside": ({"video": "../outside.mp4"}, "outside_root"),
    "no audio stream": ({"audio": "silent.mp4", "text": "<audio>\nWho?"}, "no_media"),
    "0 s of audio": ({"audio": "no_samples.wav", "text": "<audio>\nWho?"}, "no_media"),
    "audio alone as a video": ({"video": "tone.m4a", "text": "<video>\nWho?"}, "no_media"),
    "required audio is missing": ({"video": "silent.mp4", "needs": ["audio"]}, "no_media"),
    "no audio in the clip": ({"video": "talk.mp4", "start": 7}, "empty_audio"),
    "unknown role": ({"video": "talk.mp4", "role": "robot"}, "unknown_role"),
    "answer truncated": ({"video": "talk.mp4", "text": BOTH_SLOTS + " Who?" * 400}, "answer_truncated"),
    "media longer than the limit": ({"video": "talk.mp4", "num_frames": 200}, "too_long"),
}
DECODING_ERRORS = {
    "truncated, moov first": ({"video": "cut_front.mp4"}, "truncated"),
    "clip after the last frame": ({"video": "talk.mp4", "text": "<video>\nWho?", "start": 7}, "empty_clip"),
}
VALID = {"video": "talk.mp4"}
QUESTION = ("user", BOTH_SLOTS)
EMPTY_ANSWERS = (
    (QUESTION, ("assistant", " \n")),
    (QUESTION, ("assistant", "A man."), ("user", "Where?"), ("assistant", "")),
)


@pytest.fixture
def build_samples(media_root: Path, tmp_path: Path, tokenizer: Any) -> Callable[..., Samples]:
    """Return a function: short entries -> samples. An entry has a ``role``, a ``text`` and keys of a record."""

    def build(entries: list[dict[str, Any]], **options: Any) -> Samples:
        lines = []
        for number, overrides in enumerate(entries):
            entry = {"text": BOTH_SLOTS, "role": "human"} | overrides
            turns = [{"from": entry.pop("role"), "value": entry.pop("text")}, {"from": "gpt", "value": "A man."}]
            options.setdefault("num_frames", entry.pop("num_frames", 4))
            lines.append(json.dumps({"id": f"r{number}", "conversations": turns, **entry}))
        (tmp_path / "train.jsonl").write_text("\n".join(lines))
        records = JsonlSource(tmp_path / "train.jsonl", media_root).records()
        return Samples(records, TRANSFORMS, count_tokens, Chat(tokenizer, CHATML, max_length=700), **options)

    return build


@pytest.mark.parametrize("name", PLANNING_ERRORS)
def test_planning_raises_or_skips_with_the_reason(name: str, build_samples: Any) -> None:
    entry, reason = PLANNING_ERRORS[name]
    with pytest.raises(BadSample, match=r"data\.on_bad_sample=skip") as caught:
        build_samples([entry])
    assert caught.value.reason == reason
    assert "train.jsonl:1" in str(caught.value), "the message names file and line"
    assert str(caught.value).count("data.on_bad_sample") == 1
    if "num_frames" in entry:
        return  # the number of frames is an option of all samples
    samples = build_samples([entry, VALID], policy="skip")
    assert [(skip["id"], skip["reason"]) for skip in samples.skipped] == [("r0", reason)]
    assert [planned.record.id for planned in samples.planned] == ["r1"], "a skipped sample is not replaced"


def test_an_unexpected_error_is_a_bad_sample_or_has_a_traceback(
    build_samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("skip", "raise"):
        samples = build_samples([VALID, {"video": "late.mp4"}], policy=policy)
        read_clip = media.read_clip

        def read_or_fail(record: Record, *args: Any, read_clip: Any = read_clip) -> Any:
            if record.file.name == "talk.mp4":
                raise KeyError("pixels")
            return read_clip(record, *args)

        with monkeypatch.context() as patch:
            patch.setattr(media, "read_clip", read_or_fail)
            if policy == "raise":
                with pytest.raises(RuntimeError, match=r"train\.jsonl:1.*talk\.mp4: KeyError") as caught:
                    samples[MicroBatch((0, 1), 5)]
                assert isinstance(caught.value.__cause__, KeyError)
            else:
                batch = samples[MicroBatch((0, 1), 5)]
                assert [skip["reason"] for skip in batch.skipped] == ["unexpected_error"]
                assert "talk.mp4" in batch.skipped[0]["message"] and [meta["id"] for meta in batch.meta] == ["r1"]


def test_an_unexpected_error_of_a_header_is_a_bad_sample(build_samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = media.probe

    def probe_or_fail(file: Path, *args: Any) -> media.Header:
        if file.name == "late.mp4":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "title")
        return probe(file, *args)

    monkeypatch.setattr(media, "probe", probe_or_fail)
    samples = build_samples([VALID, {"video": "late.mp4"}], policy="skip")
    assert [(skip["id"], skip["reason"]) for skip in samples.skipped] == [("r1", "unexpected_error")]
    with pytest.raises(RuntimeError, match=r"late\.mp4: UnicodeDecodeError"):
        build_samples([{"video": "late.mp4"}])


@pytest.mark.parametrize("name", DECODING_ERRORS)
def test_decoding_raises_or_skips_with_the_reason(name: str, build_samples: Any) -> None:
    entry, reason = DECODING_ERRORS[name]
    with pytest.raises(BadSample, match=r"train\.jsonl:1.*data\.on_bad_sample=skip") as caught:
        build_samples([entry])[MicroBatch((0,), 1)]
    assert caught.value.reason == reason
    samples = build_samples([entry, VALID], policy="skip")
    batch = samples[MicroBatch((0, 1), 5)]
    assert [skip["reason"] for skip in batch.skipped] == [reason]
    assert [meta["id"] for meta in batch.meta] == ["r1"] and batch.bounds == (0, samples.lengths[1])
    assert batch.step_targets == 5, "skipped samples do not change the plan"


def test_every_entry_is_in_the_batch_or_skipped(build_samples: Any) -> None:
    errors = [*PLANNING_ERRORS.values(), *DECODING_ERRORS.values()]
    entries = [entry for entry, _ in errors if "num_frames" not in entry]
    image = {"image": "image.png", "text": "<image>?"}
    samples = build_samples([*entries, VALID, VALID, image], policy="skip")
    batch = samples[MicroBatch(tuple(range(len(samples))), 1)]
    assert len(batch.meta) == 3
    assert len(batch.meta) + len(batch.skipped) + len(samples.skipped) == len(entries) + 3
    for skip in [*batch.skipped, *samples.skipped]:
        assert skip["reason"] and skip["message"] and skip["id"]


def test_bad_files_are_quarantined_and_nothing_else(build_samples: Any, tmp_path: Path, media_root: Path) -> None:
    quarantine_file = tmp_path / "deep" / "list.jsonl"
    options = {"policy": "quarantine", "quarantine_file": quarantine_file}
    long_text = {"text": BOTH_SLOTS + " Who?" * 400}
    missing, needed = {"video": "gone.mp4"}, {"video": "silent.mp4", "needs": ["audio"]}
    samples = build_samples(
        [{"video": "cut_front.mp4"}, {"video": "empty.mp4"}, missing, VALID | long_text, needed], **options
    )
    assert len(samples.skipped) == 4
    assert [skip["id"] for skip in samples[MicroBatch((0,), 1)].skipped] == ["r0"]
    entries = [json.loads(line) for line in quarantine_file.read_text().splitlines()]
    assert [(entry["id"], entry["reason"]) for entry in entries] == [("r1", "unreadable"), ("r0", "truncated")]


def test_excluded_samples_are_not_opened(build_samples: Any, media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = {"id": "r0", "file": str(media_root / "talk.mp4"), "reason": "quarantined", "message": "listed"}
    excluded = {("r0", description["file"]): description}
    monkeypatch.setattr("omnihuman.data.media.probe", lambda *args: pytest.fail("opened"))
    samples = build_samples([VALID], excluded=excluded)
    assert samples.skipped == [description] and not samples.planned


@pytest.mark.parametrize("reason", ["missing_file", "timeout", "unavailable"])
def test_a_state_of_the_machine_is_not_quarantined(
    reason: str, build_samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk goes away after planning."""
    samples = build_samples([VALID], policy="quarantine", quarantine_file=tmp_path / "list.jsonl")

    def fail(*args: Any) -> None:
        raise BadSample(reason, "the disk is away")

    monkeypatch.setattr("omnihuman.data.media.read_clip", fail)
    assert [skip["reason"] for skip in samples[MicroBatch((0,), 1)].skipped] == [reason]
    assert not (tmp_path / "list.jsonl").exists()


def test_an_empty_answer_is_a_bad_sample_in_training_only(build_samples: Any, tokenizer: Any) -> None:
    records = [replace(build_samples([VALID]).planned[0].record, messages=messages) for messages in EMPTY_ANSWERS]
    chat = Chat(tokenizer, CHATML)
    samples = Samples(records, TRANSFORMS, count_tokens, chat, num_frames=2, policy="skip")
    assert [skip["reason"] for skip in samples.skipped] == ["empty_answer"] * 2
    assert "turn 3 is empty" in samples.skipped[1]["message"]
    assert len(Samples(records, TRANSFORMS, count_tokens, chat, num_frames=2, prompts=True)) == 2


def test_cut_answers_are_counted(build_samples: Any, tokenizer: Any) -> None:
    record = build_samples([VALID]).planned[0].record
    answers = ("A man.", "A man. " * 20_000)
    records = [replace(record, messages=(record.messages[0], ("assistant", answer))) for answer in answers]
    chat = Chat(tokenizer, CHATML, max_length=300)
    samples = Samples(records, TRANSFORMS, count_tokens, chat, num_frames=2)
    assert (
        samples.lengths[1] == 300 and len(samples.cut_answers) == 1 and "train.jsonl:1 (r0)" in samples.cut_answers[0]
    )
    exact = replace(chat, max_length=samples.lengths[0])
    assert not Samples(records[:1], TRANSFORMS, count_tokens, exact, num_frames=2).cut_answers


def test_a_record_of_text_alone_is_a_sample(build_samples: Any, tokenizer: Any, tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Who?"},
        {"from": "gpt", "value": "I."},
    ]
    (tmp_path / "text.jsonl").write_text(json.dumps({"conversations": turns}))
    records = list(JsonlSource(tmp_path / "text.jsonl", tmp_path, text_only=True).records())
    views = [View("VAF"), View("A")]
    samples = Samples(records, TRANSFORMS, count_tokens, Chat(tokenizer, CHATML), num_frames=2, views=views)
    batch = samples[MicroBatch((0,), 1)]
    text = tokenizer.decode(batch.input_ids[0])
    assert len(samples) == 1 and "Be kind." in text and "Who?" in text
    assert not batch.signals["video"].mask.any() and not batch.signals["audio"].mask.any()
    assert tokenizer.decode(batch.labels[batch.labels != -100]).startswith("I.")


@pytest.mark.parametrize(
    ("name", "slot", "dropped"),
    [
        ("silent.mp4", "video", "audio"),
        ("tone.m4a", "audio", "video"),
        ("tone.wav", "audio", "video"),
    ],
)
def test_a_slot_without_its_stream_is_dropped_and_counted(
    name: str, slot: str, dropped: str, build_samples: Any
) -> None:
    samples = build_samples([{"video": name}])
    assert samples.selection.num_dropped == 1
    assert samples.planned[0].record.slots == (slot,)
    batch = samples[MicroBatch((0,), 1)]
    assert set(batch.input_ids[batch.input_ids < 0].tolist()) == {SLOTS[slot]}
    assert batch.signals[slot].mask.any() and not batch.signals[dropped].mask.any()


@pytest.mark.parametrize(("name", "slot", "num_steps"), [("silent.mp4", "audio", 1000), ("tone.wav", "video", 1)])
def test_missing_fill_pads_a_missing_stream_with_zeros(
    name: str, slot: str, num_steps: int, build_samples: Any
) -> None:
    samples = build_samples([{"video": name}], missing="fill")
    batch = samples[MicroBatch((0,), 1)]
    assert samples.planned[0].record.slots == ("video", "audio")
    signal = batch.signals[slot]
    assert signal.mask.sum() == num_steps and not signal.values.any()


@pytest.mark.parametrize(("key", "tag"), [("image", "<image>"), ("video", "<video>")])
@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_an_image_is_a_video_of_one_frame(name: str, key: str, tag: str, build_samples: Any) -> None:
    batch = build_samples([{key: name, "text": f"{tag}\nWhat?"}])[MicroBatch((0,), 1)]
    assert batch.signals["video"].mask.sum() == 1
    assert (batch.input_ids == SLOTS["video"]).sum() == 4


def test_decoded_sizes_equal_planned_sizes(build_samples: Any, media_root: Path) -> None:
    samples = build_samples([VALID | {"start": 0.5, "end": 1.5}, {"video": "one_frame.mp4", "text": "<video>\nWho?"}])
    assert samples.planned[0].amounts == {"frames": 4, "waveform": 16000}
    sample = samples.sample(samples.planned[0])
    frames = [frame for time, frame in decode_frames(media_root / "talk.mp4") if 0.5 <= time < 1.5]
    assert torch.equal(sample.frames, torch.stack([frames[3], frames[9], frames[15], frames[21]]))
    assert torch.allclose(sample.waveform, decode_audio(media_root / "talk.mp4")[8000:24000], atol=2e-3)
    assert sample.meta["times"] == pytest.approx([0.62, 0.86, 1.1, 1.34], abs=0.021)
    batch = samples[MicroBatch((0, 1), 3)]
    assert batch.lengths == list(samples.lengths)
    assert (batch.labels != -100).sum() == sum(samples.targets)
    assert (batch.input_ids == SLOTS["video"]).sum() == 4 * 4 + 4 * 4
    assert (batch.input_ids == SLOTS["audio"]).sum() == 10


def test_each_view_with_content_of_its_own_is_a_sample(build_samples: Any) -> None:
    views = [View(letters) for letters in ("VAF", "VF", "A")]
    samples = build_samples([VALID, {"video": "silent.mp4"}, VALID | {"needs": ["audio"]}], views=views)
    assert [(planned.record.id, planned.record.slots) for planned in samples.planned] == [
        ("r0", ("video", "audio")),
        ("r0#VF", ("video",)),
        ("r0#A", ("audio",)),
        ("r1", ("video",)),
        ("r2", ("video", "audio")),
        ("r2#A", ("audio",)),
    ]
    assert samples.selection.num_dropped == 1 and not samples.skipped


def test_a_slot_without_an_encoder_raises(build_samples: Any, tokenizer: Any) -> None:
    record = build_samples([VALID]).planned[0].record
    counts = {"video": 8, "audio": 0}
    with pytest.raises(BadSample, match=r"\['audio'\].*data\.views"):
        Samples([record], TRANSFORMS, lambda amounts: counts, Chat(tokenizer, CHATML), num_frames=2)


def test_prompts_end_before_the_answer(build_samples: Any) -> None:
    prompt = build_samples([VALID], prompts=True)[MicroBatch((0,), 0)]
    training = build_samples([VALID])[MicroBatch((0,), 0)]
    length = prompt.input_ids.shape[1]
    assert torch.equal(training.input_ids[:, :length], prompt.input_ids)
    assert (prompt.labels == -100).all() and training.labels[0, length] != -100
    assert prompt.meta[0]["answer"] == "A man."


def test_an_empty_micro_batch_is_a_blank_batch(build_samples: Any) -> None:
    batch = build_samples([VALID])[MicroBatch((), 7)]
    assert batch.meta == () and batch.step_targets == 7 and not batch.signals["audio"].mask.any()
    assert batch.signals["video"].values.shape == (1, 1, 3, 8, 8)


def plan_questions(records: list[Record], tokenizer: Any, transforms: Any = TRANSFORMS, **options: Any) -> Samples:
    return Samples(records, transforms, count_tokens, Chat(tokenizer, CHATML), num_frames=4, prompts=True, **options)


def build_question(file: Path, **fields: Any) -> Record:
    messages = (("user", "<video>\n<audio>\nWho?"), ("assistant", ""))
    return Record("1", file, "video", messages, ("video", "audio"), **fields)


def test_encoders_get_no_hidden_modalities(media_root: Path, tokenizer: Any) -> None:
    views = [View(letters) for letters in ("VAF", "VA", "AF", "F")]
    question = build_question(media_root / "talk.mp4")
    samples = plan_questions([question], tokenizer, WITH_FACES, views=views, face=FaceInput(region="whole"))
    signals = samples[MicroBatch((0, 1, 2, 3), 0)].signals
    assert signals["video"].mask.any(dim=1).tolist() == [True, True, False, False]
    assert signals["face"].mask.any(dim=1).tolist() == [True, False, True, True]
    assert signals["audio"].mask.any(dim=1).tolist() == [True, True, True, False]
    assert signals["video"].has_gaps and not signals["video"].values[2:].any()
    assert signals["video"].values.shape[:2] == (4, 4), "hidden time steps are planned, and masked"
    sample = samples.sample(samples.planned[2])
    assert sample.frames is None and len(sample.faces) == 4, "a single sample has no hidden fields either"
    assert samples.sample(samples.planned[1]).faces == ()


def test_hidden_faces_need_no_boxes(media_root: Path, tokenizer: Any) -> None:
    question = build_question(media_root / "talk.mp4")
    samples = plan_questions([question], tokenizer, WITH_FACES, views=[View("VF"), View("V")])
    assert len(samples) == 2 and samples.num_unlocated == 1


@pytest.mark.parametrize(("transforms", "face"), [(TRANSFORMS, None), (WITH_FACES, FaceInput(region="none"))])
def test_a_view_of_faces_without_a_face_encoder_raises(
    transforms: Any, face: FaceInput | None, media_root: Path, tokenizer: Any
) -> None:
    question = build_question(media_root / "talk.mp4")
    with pytest.raises(BadSample, match=r"no encoder .*\bfaces") as caught:
        plan_questions([question], tokenizer, transforms, views=[View("F")], face=face)
    assert caught.value.reason == "no_slot"


def test_a_record_is_planned_from_all_its_files(media_root: Path, tmp_path: Path, tokenizer: Any) -> None:
    folder = tmp_path / "00001"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(draw_frame(number, 64, 48)).save(folder / f"{number}.jpg")
    frames_only = build_question(folder)
    with_track = build_question(folder, audio_track=media_root / "tone.wav")
    box = FaceDetection(0.0, ((1.0, 1.0, 9.0, 9.0),))
    two_clips = build_question(media_root / "talk.mp4", second_clip=folder, faces=(box,))
    samples = plan_questions([frames_only, with_track, two_clips], tokenizer)
    assert [planned.record.slots for planned in samples.planned] == [("video",), *[("video", "audio")] * 2]
    batch = samples[MicroBatch((0, 1, 2), 0)]
    assert batch.signals["video"].mask.sum(dim=1).tolist() == [4, 4, 4]
    assert batch.signals["audio"].mask.any(dim=1).tolist() == [False, True, True]
    samples = plan_questions([two_clips], tokenizer, WITH_FACES)
    faces = samples.sample(samples.planned[0]).faces
    assert [face is None for face in faces] == [False, False, True, True], "boxes belong to the first clip"
    missing = build_question(folder, audio_track=tmp_path / "missing.wav", location="train.json:1")
    with pytest.raises(BadSample, match=r"train.json:1 \(1\): .*missing\.wav: .*no such file"):
        plan_questions([missing], tokenizer)


def test_meta_sets_the_instruction_and_the_beginning_of_the_answer(media_root: Path, tokenizer: Any) -> None:
    plain = plan_questions([build_question(media_root / "talk.mp4", meta={})], tokenizer)
    meta = {"instruction": "Where?", "prime": "Best option:("}
    primed = plan_questions([build_question(media_root / "talk.mp4", meta=meta)], tokenizer)
    length = plain[MicroBatch((0,), 0)].input_ids.shape[1]
    prime = tokenizer.decode(primed[MicroBatch((0,), 0)].input_ids[0, length:])
    assert prime == "Best option:("
    assert plain.sample(plain.planned[0]).instruction == "Who?"
    assert primed.sample(primed.planned[0]).instruction == "Where?"


def test_the_sentence_after_a_video_has_the_seconds_of_its_frames(media_root: Path, tokenizer: Any) -> None:
    """VideoChat2's third stage; the seconds are planned from the header, and are those of the decoded frames."""
    options = {"time_instruction": " The video contains {num_frames} frames sampled at {seconds} seconds."}
    record = build_question(media_root / "talk.mp4", start=0.5, end=1.5)
    samples = plan_questions([record], tokenizer, sampling="steps", **options)
    ids = [token for token in samples[MicroBatch((0,), 0)].input_ids[0].tolist() if token >= 0]
    times = samples.sample(samples.planned[0]).meta["times"]
    seconds = ", ".join(str(round(time, 1)) for time in times)
    assert f"<vi_end> The video contains 4 frames sampled at {seconds} seconds.\n<au_start>" in tokenizer.decode(ids)
    assert samples.planned[0].length == samples[MicroBatch((0,), 0)].input_ids.shape[1]
    image = replace(record, file=media_root / "image.png", kind="image", slots=("video",), start=0.0, end=None)
    image = replace(image, messages=(("user", "<image>\nWho?"), ("assistant", "")))
    batch = plan_questions([image], tokenizer, **options)[MicroBatch((0,), 0)]
    assert "contains" not in tokenizer.decode([token for token in batch.input_ids[0].tolist() if token >= 0])


def test_one_frame_a_second_is_planned_from_the_header(media_root: Path, tokenizer: Any) -> None:
    samples = plan_questions([build_question(media_root / "talk.mp4")], tokenizer, sampling="fps")
    assert samples.planned[0].amounts["frames"] == 2 == len(samples.sample(samples.planned[0]).meta["times"])
    unknown = replace(probe(media_root / "talk.mp4"), num_frames=0)
    with pytest.raises(BadSample, match=r"talk.mp4 .*number of frames.*data.sampling=fps"):
        samples.readers["frames"].count(samples.planned[0].record, unknown)


def write_variants(root: Path) -> None:
    """Write three folders of 8 frames; two differ from ``original`` outside or inside of the face."""
    for name in ("original", "background", "face"):
        (root / name).mkdir()
        for number in range(8):
            pixels = draw_frame(number, 64, 48)
            if name == "background":
                pixels[:, 48:] = 255 - pixels[:, 48:]
            if name == "face":
                pixels[10:38, 10:38] = 255 - pixels[10:38, 10:38]
            Image.fromarray(pixels).save(root / name / f"{number}.png")


@pytest.mark.parametrize("experiment", ["omni_emotion_recognition", "favchat_stage3"])
def test_embeddings_of_the_face_view_depend_on_faces_only(experiment: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(compose_config([f"+experiment={experiment}"]).model).eval()
    chat = Chat(model.llm.tokenizer, model.llm.template)
    write_variants(tmp_path)
    box = FaceDetection(0.0, ((8.0, 8.0, 40.0, 40.0),))
    messages = (("user", "<video>\nWho?"), ("assistant", ""))
    options = {"num_frames": 8, "prompts": True}

    def embed(view: str, name: str) -> torch.Tensor:
        record = replace(build_question(tmp_path / name, faces=(box,)), messages=messages, slots=("video",))
        samples = Samples([record], model.transforms, model.count_tokens, chat, views=[View(view)], **options)
        with torch.no_grad():
            embeds, valid, _ = model.embed(samples[MicroBatch((0,), 0)])
        return embeds[0, valid]

    faces = embed("F", "original")
    assert torch.equal(faces, embed("F", "background"))
    other = embed("F", "face")
    assert faces.shape == other.shape and not torch.allclose(faces, other, atol=1e-4)
    frames, both = embed("V", "original"), embed("VF", "original")
    num_text_tokens = len(chat.prompt((("user", "Who?"), ("assistant", "")), {}))
    assert num_text_tokens < len(faces) <= len(both) and not torch.equal(both, embed("VF", "background"))
    assert len(frames) <= len(both)
