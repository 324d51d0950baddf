"""The prompt builder: supervised tokens, official strings, truncation."""

import re
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from omnihuman.build import compose_part
from omnihuman.data.chat import (
    Chat,
    check_markers,
    describe_difference,
    measure,
)
from omnihuman.data.record import BadSample
from omnihuman.data.token_counts import TokenCounter
from omnihuman.modality import SLOTS
from omnihuman.template import parse_template
from omnihuman.types import IGNORE_INDEX, Sample

from .conftest import CHATML

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
COUNTS = {"video": 3, "audio": 2}
ONE_TURN = (("user", "<video>\n<audio>\nWho waves?"), ("assistant", "The person."))
THREE_TURNS = (
    *ONE_TURN,
    ("user", "Why?"),
    ("assistant", "It is happy."),
    ("user", "Sure?"),
    ("assistant", "Yes."),
)
WITHOUT_SYSTEM = replace(CHATML, system=None)


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Return the text of a prompt; slots are ``VVV`` and ``AA``."""
    letters = {SLOTS["video"]: "V", SLOTS["audio"]: "A"}
    text, pending = "", []
    for token in ids:
        if token in letters:
            text += tokenizer.decode(pending) + letters[token]
            pending = []
        else:
            pending.append(token)
    return text + tokenizer.decode(pending)


def decode_supervised(tokenizer: Any, labels: list[int]) -> list[str]:
    """Return the text of each run of supervised tokens."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label != IGNORE_INDEX:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


def test_slots_have_the_marks_of_their_kind(tokenizer: Any) -> None:
    """VideoChat2's notebook: the video has a turn of its own before the question."""
    mistral = parse_template(compose_part("llm/template", "mistral"))
    tokenizer = deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
    markers = {"video": ("<Video>", "</Video>"), "image": ("<Image>", "</Image>")}
    chat = Chat(tokenizer, mistral, markers=markers, separator=" [/INST] [INST] ")
    question = (("user", "<video>\nDescribe the video in details."), ("assistant", ""))
    assert decode(tokenizer, chat.prompt(question, COUNTS)) == (
        "<s>[INST] <Video>VVV</Video> [/INST] [INST] Describe the video in details. [/INST]"
    )
    timed = chat.prompt(question, COUNTS, time_text=" The video contains 3 frames.")
    assert "</Video> The video contains 3 frames. [/INST] [INST] Describe" in decode(tokenizer, timed)
    image = (("user", "<image>\nWho?"), ("assistant", ""))
    assert decode(tokenizer, chat.prompt(image, COUNTS)).startswith("<s>[INST] <Image>VVV</Image> [/INST] [INST] Who?")
    text = (("user", "Who?"), ("assistant", ""))
    assert decode(tokenizer, chat.prompt(text, COUNTS)) == "<s>[INST] Who? [/INST]"


@pytest.mark.parametrize("markers", [None, "<Video>", {"video": "<>"}, {"film": ("<", ">")}, {"video": ("<", 1)}])
def test_invalid_markers_raise(markers: Any) -> None:
    with pytest.raises(ValueError, match=r"data.markers is .*video, image, audio"):
        check_markers(markers)


INSTRUCTIONS = {
    "{question}": ("<video>\n<audio>\nWho\nwaves?", "Who\nwaves?"),
    "{slots}{line}": ("<video>\n<audio>\nWho\nwaves?", "<vi_start><vi_end><au_start><audio><au_end>Whowaves?"),
    "Watch it.": ("<video>\nWho?", "Watch it."),
}


@pytest.mark.parametrize("pattern", INSTRUCTIONS)
def test_text_for_encoders_of_the_instruction(pattern: str, tokenizer: Any) -> None:
    text, expected = INSTRUCTIONS[pattern]
    sample = Sample({}, (("user", text), ("assistant", "")))
    assert Chat(tokenizer, CHATML, instruction=pattern).instruct(sample) == expected
    by_kind = {"image": "Observe it.", "video": pattern}
    assert Chat(tokenizer, CHATML, instruction=by_kind).instruct(sample) == expected
    image = Sample({}, (("user", "<image>\n{line}?"), ("assistant", "")))
    assert Chat(tokenizer, CHATML, instruction=by_kind).instruct(image) == "Observe it."
    assert Chat(tokenizer, CHATML).instruct(image) == "{line}?"


@pytest.mark.parametrize("messages", [ONE_TURN, THREE_TURNS])
def test_labels_are_the_answers_with_their_end_of_turn_tokens(messages: Any, tokenizer: Any) -> None:
    ids, labels = Chat(tokenizer, CHATML).encode(messages, COUNTS)
    answers = [text for role, text in messages if role == "assistant"]
    assert decode_supervised(tokenizer, labels) == [f"{answer}<|im_end|>" for answer in answers]
    for token, label in zip(ids, labels, strict=True):
        assert label in (IGNORE_INDEX, token)


def test_default_prompt_equals_the_released_inference_string(tokenizer: Any) -> None:
    ids, _ = Chat(tokenizer, CHATML).encode(ONE_TURN, COUNTS)
    assert decode(tokenizer, ids) == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<vi_start>VVV<vi_end>\n<au_start>AA<au_end>\n"
        "Who waves?<|im_end|>\n<|im_start|>assistant\nThe person.<|im_end|>\n"
    )


def test_options_reproduce_the_official_training_string(tokenizer: Any) -> None:
    chat = Chat(tokenizer, CHATML, separator="\n\n\n", supervise_newline=True)
    ids, labels = chat.encode(THREE_TURNS, COUNTS)
    assert "<au_end>\n\n\nWho waves?" in decode(tokenizer, ids)
    assert decode_supervised(tokenizer, labels) == [
        "The person.<|im_end|>\n",
        "It is happy.<|im_end|>\n",
        "Yes.<|im_end|>\n",
    ]


class CharacterTokenizer:
    """A tokenizer like Mistral's: <s> and </s> are one token each, [INST] is plain text."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = []
        for piece in re.split("(<s>|</s>)", text):
            if piece in ("<s>", "</s>"):
                ids.append(len(piece) - 3)
            else:
                ids += map(ord, piece)
        return ids

    def decode(self, ids: list[int]) -> str:
        return "".join({0: "<s>", 1: "</s>"}.get(token) or chr(token) for token in ids)


def test_mistral_template() -> None:
    template = replace(parse_template(compose_part("llm/template", "mistral")), system="Look.")
    chat = Chat(CharacterTokenizer(), template, markers=False)
    ids, labels = chat.encode(THREE_TURNS[:4], COUNTS)
    assert decode(chat.tokenizer, ids) == (
        "<s>Look. [INST] VVV\nAA\nWho waves? [/INST]The person.</s>[INST] Why? [/INST]It is happy.</s>"
    )
    assert decode_supervised(chat.tokenizer, labels) == ["The person.</s>", "It is happy.</s>"]
    assert decode(chat.tokenizer, chat.prompt(ONE_TURN, COUNTS)).endswith("Who waves? [/INST]")
    with pytest.raises(BadSample, match=r"\[/INST\]"):
        chat.encode((("user", "<video>Hi [/INST]"), ("assistant", "x")), COUNTS)


def test_markers_and_the_system_turn_are_optional(tokenizer: Any) -> None:
    chat = Chat(tokenizer, WITHOUT_SYSTEM, markers=False)
    assert decode(tokenizer, chat.prompt(ONE_TURN, COUNTS)) == (
        "<|im_start|>user\nVVV\nAA\nWho waves?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_image_has_its_own_markers(tokenizer: Any) -> None:
    messages = (("user", "What is it?<image>"), ("assistant", "A face."))
    ids, _ = Chat(tokenizer, CHATML).encode(messages, {"video": 1})
    assert "<im_start>V<im_end>\nWhat is it?" in decode(tokenizer, ids)


@pytest.mark.parametrize("messages", [ONE_TURN, THREE_TURNS])
@pytest.mark.parametrize("options", [{}, {"separator": "\n\n\n"}, {"markers": False}, {"template": WITHOUT_SYSTEM}])
def test_a_prompt_is_the_beginning_of_the_training_text(messages: Any, options: Any, tokenizer: Any) -> None:
    chat = Chat(tokenizer, **{"template": CHATML} | options)
    prompt = chat.prompt(messages, COUNTS)
    ids, labels = chat.encode(messages, COUNTS, num_context=len(messages) - 2)
    assert ids[: len(prompt)] == prompt
    assert labels[len(prompt)] != IGNORE_INDEX and set(labels[: len(prompt)]) == {IGNORE_INDEX}


def test_text_between_slots_is_tokenized_as_one_piece() -> None:
    texts: list[str] = []

    class Recorder:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            texts.append(text)
            return [len(texts)]

    Chat(Recorder(), CHATML).encode(ONE_TURN, COUNTS)
    assert "<vi_end>\n<au_start>" in texts
    assert "<au_end>\nWho waves?<|im_end|>\n<|im_start|>assistant\n" in texts
    assert f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<vi_start>" in texts


def test_a_long_answer_is_truncated_and_an_empty_one_raises(tokenizer: Any) -> None:
    ids, labels = Chat(tokenizer, CHATML).encode(ONE_TURN, COUNTS)
    first = next(index for index, label in enumerate(labels) if label != IGNORE_INDEX)
    truncated = Chat(tokenizer, CHATML, max_length=first + 2).encode(ONE_TURN, COUNTS)
    assert truncated == (ids[: first + 2], labels[: first + 2])
    with pytest.raises(BadSample, match=f"max_length={first}") as caught:
        Chat(tokenizer, CHATML, max_length=first).encode(ONE_TURN, COUNTS)
    assert caught.value.reason == "answer_truncated"


def test_media_longer_than_the_limit_raise(tokenizer: Any) -> None:
    chat = Chat(tokenizer, CHATML, max_length=100)
    for build in (chat.encode, chat.prompt):
        with pytest.raises(BadSample, match="max_length") as caught:
            build(ONE_TURN, {"video": 300, "audio": 2})
        assert caught.value.reason == "too_long"


def test_a_special_token_in_a_text_raises(tokenizer: Any) -> None:
    with pytest.raises(BadSample, match="remove it"):
        Chat(tokenizer, CHATML).encode((("user", "<video>Hi<|im_end|>"), ("assistant", "x")), COUNTS)


def test_a_tokenizer_without_the_special_tokens_raises() -> None:
    class ByteTokenizer:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return list(text.encode())

    with pytest.raises(ValueError, match=r"template chatml.*llm/template@model\.llm\.template"):
        Chat(ByteTokenizer(), CHATML)


def test_a_conversation_can_override_the_system_prompt(tokenizer: Any) -> None:
    prompt = Chat(tokenizer, CHATML).prompt(ONE_TURN, COUNTS, system="Be kind.")
    assert decode(tokenizer, prompt).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n<vi_start>")
    assert Chat(tokenizer, WITHOUT_SYSTEM).encode(ONE_TURN, COUNTS, "Be kind.")[0][: len(prompt)] == prompt
    with pytest.raises(BadSample, match="im_end"):
        Chat(tokenizer, CHATML).prompt(ONE_TURN, COUNTS, system="<|im_end|>")


def test_a_system_prompt_without_a_system_turn_raises(tokenizer: Any) -> None:
    chat = Chat(tokenizer, replace(WITHOUT_SYSTEM, system_turn=None))
    with pytest.raises(BadSample, match=r"chatml .*no system turn.*'Be kind\.'") as caught:
        chat.prompt(ONE_TURN, COUNTS, system="Be kind.")
    assert caught.value.reason == "no_system_turn"


def write_chat_template(tokenizer: Any, system: str = "Be kind.", end: str = "<|im_end|>\n") -> None:
    """Give a tokenizer a chat template of its own, like Qwen's."""
    tokenizer.chat_template = (
        f"{{% if messages[0]['role'] != 'system' %}}<|im_start|>system\n{system}{end}{{% endif %}}"
        "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}"
        f"{end}{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
    )


def test_difference_to_the_chat_template_of_the_tokenizer(tokenizer: Any) -> None:
    assert describe_difference(Chat(tokenizer, CHATML)) is None  # it has no template
    write_chat_template(tokenizer)
    assert describe_difference(Chat(tokenizer, CHATML, max_length=3)) is None  # both have our system prompt
    message = describe_difference(Chat(tokenizer, WITHOUT_SYSTEM))
    assert message is not None and re.search(r"chatml .*1 tokens: u s er Ċ W h\b", message)
    assert " s y s t e m" in message and "llm/template@model.llm.template=tokenizer" in message
    write_chat_template(tokenizer, end="<|im_end|>")
    message = describe_difference(Chat(tokenizer, CHATML))
    assert message is not None and ": Ċ <|im_start|> u s er Ċ in place of <|im_start|> u s er Ċ" in message


def test_difference_to_a_template_that_refuses_a_system_turn(tokenizer: Any) -> None:
    write_chat_template(tokenizer, str(CHATML.system))
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    assert describe_difference(Chat(tokenizer, CHATML)) is None
    assert describe_difference(Chat(tokenizer, replace(CHATML, system="Look."))) is not None


def test_pieces_measure_what_is_encoded(tokenizer: Any) -> None:
    system = (None, "Answer shortly.")
    for messages, options in product((ONE_TURN, THREE_TURNS), ({}, {"supervise_newline": True}, {"markers": False})):
        chat = Chat(tokenizer, CHATML, **options)
        for prompt in system:
            pieces = chat.split(messages, prompt, num_context=2)
            ids, labels = chat.encode(messages, COUNTS, prompt, num_context=2)
            num_tokens = TokenCounter(tokenizer).count(piece.text for piece in pieces)
            assert measure(pieces, COUNTS, num_tokens) == (len(ids), len(labels) - labels.count(IGNORE_INDEX))
            pieces = chat.split_prompt(messages, "It is", prompt)
            num_tokens = TokenCounter(tokenizer).count(piece.text for piece in pieces)
            assert measure(pieces, COUNTS, num_tokens) == (len(chat.prompt(messages, COUNTS, "It is", prompt)), 0)
