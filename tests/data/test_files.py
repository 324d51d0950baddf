"""Conversations about several images: parsed, planned, packed and spliced, in training as in asking."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.build import build, compose_config
from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.messages import build_record
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import BadSample, Record, parse_record, select_views
from omnihuman.data.turns import split_turns
from omnihuman.inference.question import build_question
from omnihuman.modality import SLOTS, View

from .conftest import CHATML, TRANSFORMS, WITH_FACES, count_tokens

NAMES = ["image.png", "image.jpg", "image.png"]
TURNS = ("Left: <image>\nRight: <image>\nWhich?", "The left one.", "<image>\nAnd here?", "None.")
VIDEO = SLOTS["video"]


def build_raw(*texts: str, **keys: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts or TURNS)]
    return {"image": NAMES, "conversations": turns, **keys}


@pytest.fixture
def record(media_root: Path) -> Record:
    return parse_record(build_raw(), "1", media_root, "a.json[0]")


def plan(records: list[Record], tokenizer: Any, transforms: Any = TRANSFORMS, **options: Any) -> Samples:
    return Samples(records, transforms, count_tokens, Chat(tokenizer, CHATML), **{"num_frames": 4} | options)


def show(ids: torch.Tensor, tokenizer: Any) -> str:
    """Return a text with one V for each token of an image."""
    return "".join("V" if token == VIDEO else tokenizer.decode([token]) for token in ids.tolist())


def test_every_image_has_its_tag(record: Record, media_root: Path) -> None:
    assert [file.name for file in record.files] == NAMES and record.slots == ("video",)
    assert [clip.file.name for clip in record.clips] == NAMES and not record.clips[1].more_images
    first, second = split_turns(record)
    assert (len(first.clips), len(second.clips)) == (2, 3)
    text = split_turns(parse_record(build_raw("Hi.", "Hello.", *TURNS), "1", media_root, "a.json[0]"))[0]
    assert text.kind == "text" and not text.files
    assert [viewed.kind for viewed in select_views(record, [View("")])] == ["text"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (build_raw("<image>\nWho?", "A man."), r"image lists 3 files, .* 1 times: write one <image>"),
        (build_raw(*TURNS, image=NAMES[:2]), r"image lists 2 files, .* 3 times"),
        (build_raw("Who?", "A man."), r"image lists 3 files, .* 0 times"),
        (build_raw(image=["image.png", "nowhere.png", "image.png"]), r"image 'nowhere\.png': "),
        (build_raw(image=["image.png", "", "image.png"]), "empty path"),
        (build_raw(image=["image.png", 7, "image.png"]), "path, got 7"),
        (build_raw(image=["image.png", "../outside.mp4", "image.png"]), "outside"),
        (build_raw(faces=[[1, 1, 9, 9]]), "each of the 3 images"),
        (build_raw(faces=[{"time": 0, "box": [1, 1, 9, 9]}] * 3), "each of the 3 images"),
        (build_raw(video="talk.mp4"), "video and image"),
    ],
)
def test_a_bad_combination_names_record_and_cure(raw: Any, message: str, media_root: Path) -> None:
    with pytest.raises(BadSample, match=rf"a\.json\[0\]: .*{message}"):
        parse_record(raw, "1", media_root, "a.json[0]")


def test_a_video_among_images_is_refused(media_root: Path, tokenizer: Any) -> None:
    raw = build_raw(image=["image.png", "talk.mp4", "image.png"])
    with pytest.raises(BadSample, match=r"a\.json\[0\] \(1\): .*talk\.mp4: .*no image"):
        plan([parse_record(raw, "1", media_root, "a.json[0]")], tokenizer)


def test_images_stay_where_the_text_has_them(record: Record, tokenizer: Any) -> None:
    without_instruction = {"video": TRANSFORMS["video"]}
    samples = plan([record], tokenizer, without_instruction)
    batch = samples[MicroBatch((0,), 1)]
    text = show(batch.input_ids[0], tokenizer)
    assert "user\nLeft: <im_start>VVVV<im_end>\nRight: <im_start>VVVV<im_end>\nWhich?<|im_end|>" in text
    assert "user\n<im_start>VVVV<im_end>\nAnd here?<|im_end|>" in text
    assert batch.rows == (3,) and batch.signals["video"].values.shape[:2] == (3, 1)


def test_a_batch_has_rows_for_every_image(record: Record, media_root: Path, tokenizer: Any) -> None:
    single = parse_record(build_raw("<image>\nWho?", "A man.", image="image.png"), "2", media_root, "a.json[1]")
    video = Record("3", media_root / "talk.mp4", "video", (("user", "<video>\nWho?"), ("assistant", "A.")), ("video",))
    samples = plan([single, record, video], tokenizer)
    batch = samples[MicroBatch((0, 1, 2, 3), 1)]
    assert batch.rows == (1, 2, 3, 1) and len(batch.bounds) == 5
    assert batch.signals["video"].mask.sum(dim=1).tolist() == [1, 1, 1, 1, 1, 1, 4]
    assert not batch.signals["audio"].mask.any()
    instructions = batch.signals["instruction"].values
    assert torch.equal(instructions[1], instructions[2]) and torch.equal(instructions[3], instructions[5])
    assert not samples[MicroBatch((0, 3), 1)].rows
    values = batch.signals["video"].values
    assert torch.equal(values[0, 0], values[1, 0]) and not torch.equal(values[1, 0], values[2, 0])


def test_an_image_without_a_face_leaves_the_others_in_place(media_root: Path) -> None:
    torch.manual_seed(0)
    model = build(compose_config(["+experiment=omni_emotion_recognition"]).model).eval()
    chat = Chat(model.llm.tokenizer, model.llm.template)
    box = [1, 1, 25, 25]

    def embed(names: list[str], faces: list[Any], text: str) -> tuple[torch.Tensor, list[int]]:
        """Return the tokens of the images, and their numbers by image."""
        raw = build_raw(text, "x", image=names, faces=faces)
        record = parse_record(raw, "1", media_root, "a.json[0]")
        samples = Samples([record], model.transforms, model.count_tokens, chat, num_frames=8)
        batch = samples[MicroBatch((0,), 1)]
        with torch.no_grad():
            embeds, mask, _ = model.embed(batch)
        places = batch.input_ids[0] == VIDEO
        return embeds[0, places & mask], mask[places].view(len(names), -1).sum(dim=1).tolist()

    first, num_first = embed(["image.png"], [None], "<image>\nWho?")
    second, num_second = embed(["image.jpg"], [box], "<image>\nWho?")
    both, nums = embed(NAMES[:2], [None, box], "<image>\n<image>\nWho?")
    assert nums == [*num_first, *num_second] and num_first < num_second
    torch.testing.assert_close(both, torch.cat([first, second]), atol=1e-5, rtol=1e-4)


def test_training_and_asking_see_the_same_images(record: Record, media_root: Path, tokenizer: Any) -> None:
    content: list[dict[str, Any]] = []
    for number, words in enumerate(("Left:", "Right:")):
        content += [{"type": "text", "text": words}, {"type": "image", "url": str(media_root / NAMES[number])}]
    messages = [
        {"role": "user", "content": [*content, {"type": "text", "text": "Which?"}]},
        {"role": "assistant", "content": "The left one."},
        {"role": "user", "content": [{"type": "image", "url": str(media_root / NAMES[2])}]},
    ]
    question_record = build_record(messages, "1", "request", media_root)
    assert [file.name for file in question_record.files] == NAMES
    prompt = plan([question_record], tokenizer, prompts=True)[MicroBatch((0,), 0)]
    trained = plan([record], tokenizer)[MicroBatch((1,), 1)]
    assert prompt.rows == trained.rows == (3,)
    assert torch.equal(prompt.signals["video"].values, trained.signals["video"].values)
    question = build_question(
        {"instruction": "Which?", "image": f"[{media_root / NAMES[0]}, {media_root / NAMES[1]}]"}, location="generate"
    )
    assert question.messages[0][1] == "<image>\n<image>\nWhich?" and len(question.clips) == 2
    with pytest.raises(ValueError, match=r"generate: image=.*nowhere\.png"):
        build_question({"instruction": "Which?", "image": [str(media_root / NAMES[0]), "nowhere.png"]})


def test_the_model_splices_every_image_into_its_place(record: Record) -> None:
    torch.manual_seed(0)
    model = build(compose_config(["+experiment=humanomni_stage1"]).model).eval()
    chat = Chat(model.llm.tokenizer, model.llm.template)
    turns = (("user", "<image>\n<image>\nWhich?"), ("assistant", "x"))
    two = replace(record, messages=turns, more_images=record.more_images[:1])
    swapped = replace(two, file=two.more_images[0], more_images=(two.file,))
    singles = [replace(clip, messages=(("user", "<image>\nWhich?"), ("assistant", "x"))) for clip in two.clips]
    samples = Samples([two, swapped, *singles], model.transforms, model.count_tokens, chat, num_frames=8)
    batch = samples[MicroBatch((0, 1, 2, 3), 1)]
    with torch.no_grad():
        embeds, mask, _ = model.embed(batch)
        weights = model.last_fusion_weights()["gate"]
        loss = model(batch).loss
    bounds = batch.bounds
    places = []
    for start, end in pairwise(bounds):
        places.append(embeds[0, start:end][batch.input_ids[0, start:end] == VIDEO])
    assert mask.all() and weights.shape == (4, 3) and torch.isfinite(loss)
    torch.testing.assert_close(places[0], torch.cat(places[2:]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(places[1], torch.cat([places[3], places[2]]), atol=1e-5, rtol=1e-4)


def test_faces_belong_to_their_images(media_root: Path, tokenizer: Any) -> None:
    raw = build_raw(faces=[[1, 1, 9, 9], None, [1, 1, 25, 25]])
    samples = plan([parse_record(raw, "1", media_root, "a.json[0]")], tokenizer, WITH_FACES)
    sample = samples.sample(samples.planned[1])
    faces = [image.faces for image in (sample, *sample.more)]
    assert [image[0] is not None for image in faces] == [True, False, True]
    batch = samples[MicroBatch((1,), 1)]
    assert batch.signals["face"].mask[:, 0].tolist() == [True, False, True]
