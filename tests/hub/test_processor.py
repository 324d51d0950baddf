import json
import pickle
import shutil
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from omnihuman.data.face import FaceInput
from omnihuman.data.module import OmniData
from omnihuman.hub.processor import DATA_OPTIONS, FACE_OPTIONS, OmniHumanProcessor
from omnihuman.modality import SLOTS

Folder = Callable[..., Path]
TRAINING_OPTIONS = {
    "records",
    "root",
    "val_records",
    "tasks",
    "views",
    "batch_size",
    "on_bad_sample",
    "quarantine_folder",
    "max_skipped",
    "val_limit",
    "num_workers",
    "prefetch_mb",
    "sort_window",
    "index_folder",
    "index_days",
    "index_processes",
    "group",
    "index",
    "seed",
    "source",
    "features",
    "features_gb",
    "budgets",
    "path",
    "augment",
    "exact",
}
"""Options that choose the samples and load them."""


@pytest.fixture(scope="module")
def processor(make_release: Folder) -> Any:
    return AutoProcessor.from_pretrained(make_release("humanomni_stage3"))


@pytest.fixture
def clip(corpus: Path) -> str:
    return str(min((corpus / "media").glob("*.mp4")))


def assert_equal(inputs: Any, expected: Any) -> None:
    for key, value in expected.items():
        assert torch.equal(inputs[key], value), key


def test_every_data_option_is_released_or_for_training() -> None:
    assert signature(OmniData).parameters.keys() == {*DATA_OPTIONS} | TRAINING_OPTIONS
    assert signature(FaceInput).parameters.keys() == {*FACE_OPTIONS, "detector"}


def test_one_medium_is_used_for_several_questions(processor: Any, clip: str) -> None:
    inputs = processor(text=["Who?", "What is the main emotion of this person?"], video=clip)
    assert torch.equal(inputs["video_values"][0], inputs["video_values"][1])
    assert processor.model_input_names == [*inputs]
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    with pytest.raises(ValueError, match=r"video: 3 values .*\b2 questions"):
        processor(text=["Who?", "What?"], video=[clip] * 3)


def test_question_without_video_in_a_batch(processor: Any, clip: str) -> None:
    both = processor(text=["What?", "What?"], video=[clip, None], padding=True, return_tensors="pt")
    single = processor(text="What?")
    length = single["input_ids"].shape[1]
    assert both["input_ids"][1, -length:].tolist() == single["input_ids"][0].tolist()
    assert both["attention_mask"].sum(dim=1).tolist()[1] == length < both["input_ids"].shape[1]


def test_media_in_memory_equal_files(processor: Any, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    from_file = processor(text="Who?", image=str(tmp_path / "image.png"))
    from_memory = processor(text="Who?", image=image)
    assert torch.equal(from_file["video_values"], from_memory["video_values"]) and from_file["video_mask"].sum() == 1
    inputs = processor(text="Who?", audio={"array": np.zeros(16000), "sampling_rate": 16000})
    assert (inputs["input_ids"] == SLOTS["audio"]).sum() == 17 and not inputs["video_mask"].any()


def test_messages_equal_arguments(processor: Any, clip: str) -> None:
    content = [{"type": "video", "url": clip}, {"type": "text", "text": "Who?"}]
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True)
    assert_equal(inputs, processor(text="Who?", video=clip))
    turns = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "A man."},
        {"role": "user", "content": "And what is the main emotion?"},
    ]
    longer = processor.apply_chat_template(turns, tokenize=True)
    assert longer["input_ids"].shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize("experiment", ["humanomni_stage3", "favchat_stage3"])
def test_chat_template_equals_the_data_path(make_release: Folder, experiment: str) -> None:
    processor = AutoProcessor.from_pretrained(make_release(experiment))
    turns = [
        {"role": "user", "content": "Who is it?"},
        {"role": "assistant", "content": "A man."},
        {"role": "user", "content": "What is the main emotion?"},
    ]
    for chat in (turns[:1], turns):
        text = processor.apply_chat_template(chat)
        ids = processor.apply_chat_template(chat, tokenize=True)["input_ids"]
        assert processor.tokenizer.encode(text, add_special_tokens=False) == ids[0].tolist()
    with pytest.raises(Exception, match=r"system text .*fixed"):
        processor.apply_chat_template([{"role": "system", "content": "x"}])


def test_labels_cover_the_answer(processor: Any, clip: str) -> None:
    answers = ["a man", "happy"]
    inputs = processor(text=["Who?", "What is the main emotion?"], video=clip, answer=answers)
    for labels, answer in zip(inputs["labels"], answers, strict=True):
        assert processor.decode(labels[labels >= 0]) == answer
    assert "labels" not in processor(text="Who?", video=clip)


def test_faces_from_boxes_or_whole_frames(make_release: Folder, clip: str) -> None:
    processor = AutoProcessor.from_pretrained(make_release("omni_emotion_recognition"))
    boxes = [{"time": 0.0, "box": [10, 10, 60, 60]}]
    no_faces = processor(text="Who?", video=clip, faces="none")
    frames = processor(text="Who?", video=clip, faces="whole")
    crops = processor(text="Who?", video=clip, faces=boxes)
    assert [inputs["face_mask"].sum().item() for inputs in (no_faces, frames, crops)] == [0, 8, 8]
    assert not torch.equal(crops["face_values"], frames["face_values"])


def test_invalid_arguments_raise(processor: Any, clip: str, tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_text("no video")
    for arguments, message in (
        ({"video": str(tmp_path / "missing.mp4")}, "no such file"),
        ({"video": str(tmp_path / "no.mp4")}, "no.mp4"),
        ({"video": clip, "view": "smell"}, "smell: unknown view"),
        ({"image": clip, "audio": clip}, "images alone"),
        ({"video": 7}, "type int"),
        ({"video": clip, "faces": "left"}, "faces=left: .*boxes, whole, none"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(text="Who?", **arguments)


def test_pickled_copy_gives_the_same_inputs(processor: Any, clip: str) -> None:
    expected = processor(text="Who?", video=clip)
    copy = pickle.loads(pickle.dumps(processor))
    assert_equal(copy(text="Who?", video=clip), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [("source", {"_target_": "os.system"}), ("records", "/etc"), ("features", "/"), ("quarantine_folder", "/x")],
)
def test_untrusted_data_option_raises(key: str, value: Any, make_release: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(make_release("humanomni_stage3"), tmp_path / "bad")
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config["data"][key] = value
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"unknown .*\b{key}\b"):
        AutoProcessor.from_pretrained(folder)(text="Who?")


def test_folder_of_another_model_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"omnihuman export"):
        OmniHumanProcessor.from_pretrained(tmp_path)
