"""Tags of conversations in the forms of other data sets, planned as the plain form is."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import BadSample, parse_record
from omnihuman.data.tags import parse_tags
from omnihuman.source.json import JsonSource

from .conftest import CHATML, TRANSFORMS, count_tokens

PLAIN = (("user", "<video>\nWho?"), ("assistant", "Ann."), ("user", "Why?"), ("assistant", "So."))


def build_turns(*texts: str) -> tuple[tuple[str, str], ...]:
    return tuple((("user", "assistant")[number % 2], text) for number, text in enumerate(texts))


@pytest.mark.parametrize(
    "texts",
    [
        ("<image>\nWho?", "Ann.", "Why?", "So."),  # LLaVA-Video
        ("<video>\nWho?", "Ann.", "<video>\nWhy?", "So."),
        ("<image>\n<image>\nWho?", "Ann.", "Why?<video>", "So."),
        ("<video>\n<video>Who?", "Ann.", "<image>\nWhy?", "So."),
    ],
)
def test_every_form_of_one_video_is_the_plain_form(texts: tuple[str, ...]) -> None:
    assert parse_tags(build_turns(*texts), "video", 1, "a.json[0]") == (PLAIN, ("video",))


def test_the_first_tag_may_be_in_a_later_turn() -> None:
    turns = build_turns("Hi.", "Hello.", "<image>\nWho?", "Ann.", "And <image>?", "Bea.")
    messages, slots = parse_tags(turns, "image", 1, "a.json[0]")
    assert [text for role, text in messages if role == "user"] == ["Hi.", "<image>\nWho?", "And ?"]
    assert slots == ("video",)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("<video>\nWho?", "video", "<video>\n<audio>\nWho?"),
        ("<image>\nWho?", "video", "<video>\n<audio>\nWho?"),
        ("<audio>\n<video>\nWho?", "video", "<audio>\n<video>\nWho?"),
        ("<audio>\nWho?", "video", "<audio>\nWho?"),  # no frames where the text names none
        ("<image>\nWho?", "image", "<image>\nWho?"),
    ],
)
def test_a_video_alone_gets_its_audio(text: str, kind: str, expected: str) -> None:
    messages, slots = parse_tags(build_turns(text, "Ann."), kind, 1, "a.json[0]", add_audio=True)
    assert messages[0][1] == expected and ("audio" in slots) == ("<audio>" in expected)


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "records"])
def test_every_source_can_add_audio(kind: str) -> None:
    node = compose_part("source", kind)
    node.add_audio = True
    path = "a.jsonl" if kind == "records" else f"a.{kind}"
    source = build(node)(path, ".")
    assert getattr(source, "source", source).options["add_audio"] is True


def test_an_added_audio_of_a_silent_video_is_dropped_or_filled(
    media_root: Path, tokenizer: Any, tmp_path: Path
) -> None:
    entries = []
    for number, name in enumerate(("talk.mp4", "silent.mp4")):
        turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "<image>\nWho?"}]
        entries.append({"id": number, "video": name, "conversations": [*turns, {"from": "gpt", "value": "Ann."}]})
    (tmp_path / "train.json").write_text(json.dumps(entries))
    for missing, amounts in (("absent", [True, False]), ("fill", [True, True])):
        records = JsonSource(tmp_path / "train.json", media_root, add_audio=True).records()
        chat = Chat(tokenizer, CHATML)
        samples = Samples(records, TRANSFORMS, count_tokens, chat, num_frames=2, missing=missing)
        assert [planned.counts["audio"] > 0 for planned in samples.planned] == amounts
        text = tokenizer.decode([token for token in samples[MicroBatch((1,), 1)].input_ids[0].tolist() if token >= 0])
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>") and "<video>" not in text


def test_an_image_tag_without_a_file_names_record_and_cure(media_root: Path) -> None:
    raw = {"conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Ann."}]}
    with pytest.raises(BadSample, match=r"a\.json\[3\]: .*<image>.* add 'image'"):
        parse_record(raw, "3", media_root, "a.json[3]", allow_text_only=True)
    with pytest.raises(BadSample, match=r"a\.json\[3\]: .*<image>.* file is its 'audio'"):
        parse_record(raw | {"audio": "tone.wav"}, "3", media_root, "a.json[3]")
