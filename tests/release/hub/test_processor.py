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
from omnihuman.release.hub.processor import DATA, FACE
from omnihuman.types import SLOTS

Folder = Callable[..., Path]
WHICH = {"records", "root", "val_records", "tasks", "views", "batch_size", "on_bad_sample", "quarantine_file",
         "val_limit", "num_workers", "seed", "make", "features"}  # fmt: skip
"""Options of the data that say which samples there are, and how fast they come."""


@pytest.fixture(scope="module")
def processor(released: Folder) -> Any:
    return AutoProcessor.from_pretrained(released("humanomni_stage3"))


@pytest.fixture
def clip(corpus: Path) -> str:
    return str(min((corpus / "media").glob("*.mp4")))


def test_every_option_of_the_data_travels_or_only_says_which_data() -> None:
    assert signature(OmniData).parameters.keys() == {*DATA} | WHICH
    assert signature(FaceInput).parameters.keys() == {*FACE, "detector"}


def test_one_medium_serves_several_questions(processor: Any, clip: str) -> None:
    inputs = processor(text=["Who?", "What is the main emotion of this person?"], video=clip)
    assert torch.equal(inputs["video_values"][0], inputs["video_values"][1])
    assert processor.model_input_names == [*inputs]
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    with pytest.raises(ValueError, match="video: 3 for 2 questions"):
        processor(text=["Who?", "What?"], video=[clip] * 3)


def test_a_question_of_several_may_have_no_medium(processor: Any, clip: str) -> None:
    both = processor(text=["What?", "What?"], video=[clip, None], padding=True, return_tensors="pt")
    alone = processor(text="What?")
    length = alone["input_ids"].shape[1]
    assert both["input_ids"][1, -length:].tolist() == alone["input_ids"][0].tolist()
    assert both["attention_mask"].sum(dim=1).tolist()[1] == length < both["input_ids"].shape[1]


def test_media_in_memory_are_read_as_files_are(processor: Any, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    picture.save(tmp_path / "still.png")
    ours = processor(text="Who?", image=str(tmp_path / "still.png"))
    theirs = processor(text="Who?", image=picture)
    assert torch.equal(ours["video_values"], theirs["video_values"]) and ours["video_mask"].sum() == 1
    heard = processor(text="Who?", audio={"array": np.zeros(16000), "sampling_rate": 16000})
    assert (heard["input_ids"] == SLOTS["audio"]).sum() == 17 and not heard["video_mask"].any()


def test_messages_are_the_same_as_arguments(processor: Any, clip: str) -> None:
    part = [{"type": "video", "url": clip}, {"type": "text", "text": "Who?"}]
    ours = processor(text="Who?", video=clip)
    theirs = processor.apply_chat_template([{"role": "user", "content": part}], tokenize=True)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    turns = [
        {"role": "user", "content": part},
        {"role": "assistant", "content": "A man."},
        {"role": "user", "content": "And what is the main emotion?"},
    ]
    more = processor.apply_chat_template(turns, tokenize=True)
    assert more["input_ids"].shape[1] > theirs["input_ids"].shape[1]


def test_words_alone_are_what_the_chat_template_says(released: Folder) -> None:
    for experiment in ("humanomni_stage3", "favchat_stage3"):
        processor = AutoProcessor.from_pretrained(released(experiment))
        turns = [
            {"role": "user", "content": "Who is it?"},
            {"role": "assistant", "content": "A man."},
            {"role": "user", "content": "What is the main emotion?"},
        ]
        for chat in (turns[:1], turns):
            text = processor.apply_chat_template(chat)
            said = processor.apply_chat_template(chat, tokenize=True)["input_ids"]
            assert processor.tokenizer.encode(text, add_special_tokens=False) == said[0].tolist()
        with pytest.raises(Exception, match="the system text is fixed"):
            processor.apply_chat_template([{"role": "system", "content": "x"}])


def test_labels_stand_at_the_answer(processor: Any, clip: str) -> None:
    inputs = processor(text=["Who?", "What is the main emotion?"], video=clip, answer=["a man", "happy"])
    for row, said in zip(inputs["labels"], ("a man", "happy"), strict=True):
        assert processor.decode(row[row >= 0]) == said
    assert "labels" not in processor(text="Who?", video=clip)


def test_faces_are_told_or_whole_or_none(released: Folder, clip: str) -> None:
    processor = AutoProcessor.from_pretrained(released("omni_emotion_recognition"))
    boxes = [{"time": 0.0, "box": [10, 10, 60, 60]}]
    seen = {
        str(faces): processor(text="Who?", video=clip, faces=faces)["face_mask"].sum().item()
        for faces in ("none", "whole", boxes)
    }
    assert seen == {"none": 0, "whole": 8, str(boxes): 8}
    told, whole = (processor(text="Who?", video=clip, faces=faces)["face_values"] for faces in (boxes, "whole"))
    assert not torch.equal(told, whole)


def test_what_cannot_be_read_is_refused(processor: Any, clip: str, tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_text("no video")
    for given, said in (
        ({"video": str(tmp_path / "gone.mp4")}, "no such file"),
        ({"video": str(tmp_path / "no.mp4")}, "no.mp4"),
        ({"video": clip, "modal": "smell"}, "choose from"),
        ({"image": clip, "audio": clip}, "image alone"),
        ({"video": 7}, "give a path"),
        ({"video": clip, "faces": "left"}, "choose from boxes, whole, none"),
    ):
        with pytest.raises(ValueError, match=said):
            processor(text="Who?", **given)


def test_it_crosses_to_workers(processor: Any, clip: str) -> None:
    ours = processor(text="Who?", video=clip)
    theirs = pickle.loads(pickle.dumps(processor))(text="Who?", video=clip)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize(
    ("key", "value"),
    [("make", {"_target_": "os.system"}), ("records", "/etc"), ("features", "/"), ("quarantine_file", "/x")],
)
def test_a_strangers_data_options_do_nothing_else(key: str, value: Any, released: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(released("humanomni_stage3"), tmp_path / "bad")
    file = folder / "processor_config.json"
    said = json.loads(file.read_text())
    said["data"][key] = value
    file.write_text(json.dumps(said))
    with pytest.raises(ValueError, match=f"has no {key}"):
        AutoProcessor.from_pretrained(folder)(text="Who?")


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    from omnihuman.release.hub.processor import OmniHumanProcessor

    with pytest.raises(ValueError, match=r"omnihuman\.export"):
        OmniHumanProcessor.from_pretrained(tmp_path)
