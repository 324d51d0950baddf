"""The prompt builder: what is supervised, what the official strings are, what is cut."""

import re
from typing import Any

import pytest

from omnihuman.data.chat import SYSTEM, Chat
from omnihuman.data.record import BadSample
from omnihuman.types import IGNORE_INDEX, SLOTS

COUNTS = {"video": 3, "audio": 2}
ONE = (("user", "<video>\n<audio>\nWho waves?"), ("assistant", "The person."))
THREE = (*ONE, ("user", "Why?"), ("assistant", "It is happy."), ("user", "Sure?"), ("assistant", "Yes."))


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """Readable, slots as ``[VVV]`` and ``[AA]``."""
    names, text, run = {SLOTS["video"]: "V", SLOTS["audio"]: "A"}, "", []
    for token in [*ids, None]:
        if token in names or token is None:
            text += tokenizer.decode(run)
            run = []
        if token in names:
            text += names[token]
        elif token is not None:
            run.append(token)
    return text


def supervised(tokenizer: Any, labels: list[int]) -> list[str]:
    """The supervised stretches."""
    stretches: list[list[int]] = [[]]
    for label in labels:
        if label != IGNORE_INDEX:
            stretches[-1].append(label)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


@pytest.mark.parametrize("messages", [ONE, THREE])
def test_labels_are_the_answers_and_their_end_marks(messages: Any, tokenizer: Any) -> None:
    ids, labels = Chat(tokenizer).encode(messages, COUNTS)
    answers = [text for role, text in messages if role == "assistant"]
    assert supervised(tokenizer, labels) == [f"{answer}<|im_end|>" for answer in answers]
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))


def test_the_released_inference_string(tokenizer: Any) -> None:
    ids, _ = Chat(tokenizer).encode(ONE, COUNTS)
    assert text_of(tokenizer, ids) == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<vi_start>VVV<vi_end>\n<au_start>AA<au_end>\n"
        "Who waves?<|im_end|>\n<|im_start|>assistant\nThe person.<|im_end|>\n"
    )


def test_the_official_training_string(tokenizer: Any) -> None:
    chat = Chat(tokenizer, separator="\n\n\n", supervise_newline=True)
    ids, labels = chat.encode(THREE, COUNTS)
    assert "<au_end>\n\n\nWho waves?" in text_of(tokenizer, ids)
    assert supervised(tokenizer, labels) == ["The person.<|im_end|>\n", "It is happy.<|im_end|>\n", "Yes.<|im_end|>\n"]


class Spelling:
    """A tokenizer of Mistral's kind: its marks are one token each, [INST] is plain text."""

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        pieces = re.split("(<s>|</s>)", text)
        return [i for piece in pieces for i in ([len(piece) - 3] if piece in ("<s>", "</s>") else map(ord, piece))]

    def decode(self, ids: list[int]) -> str:
        return "".join({0: "<s>", 1: "</s>"}.get(i) or chr(i) for i in ids)


def test_mistrals_template() -> None:
    chat = Chat(Spelling(), template="mistral", system="Look.", markers=False)
    ids, labels = chat.encode(THREE[:4], COUNTS)
    assert text_of(chat.tokenizer, ids) == (
        "<s>Look. [INST] VVV\nAA\nWho waves? [/INST]The person.</s>[INST] Why? [/INST]It is happy.</s>"
    )
    assert supervised(chat.tokenizer, labels) == ["The person.</s>", "It is happy.</s>"]
    assert text_of(chat.tokenizer, chat.prompt(ONE, COUNTS)).endswith("Who waves? [/INST]")
    with pytest.raises(BadSample, match=r"\[/INST\]"):
        chat.encode((("user", "<video>Hi [/INST]"), ("assistant", "x")), COUNTS)


def test_an_unknown_template_lists_the_known(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"llm\.template=llama: choose from chatml, mistral"):
        Chat(tokenizer, template="llama")
    with pytest.raises(ValueError, match=r"tokens of <s>; the template mistral needs one"):
        Chat(tokenizer, template="mistral")


def test_markers_system_and_stills(tokenizer: Any) -> None:
    bare = Chat(tokenizer, markers=False, system=None)
    assert text_of(tokenizer, bare.prompt(ONE, COUNTS)) == (
        "<|im_start|>user\nVVV\nAA\nWho waves?<|im_end|>\n<|im_start|>assistant\n"
    )
    still = (("user", "What is it?<image>"), ("assistant", "A face."))
    assert "<im_start>V<im_end>\nWhat is it?" in text_of(tokenizer, Chat(tokenizer).encode(still, {"video": 1})[0])


@pytest.mark.parametrize("messages", [ONE, THREE])
@pytest.mark.parametrize("options", [{}, {"separator": "\n\n\n"}, {"markers": False}, {"system": None}])
def test_a_prompt_is_how_the_training_text_begins(messages: Any, options: Any, tokenizer: Any) -> None:
    chat = Chat(tokenizer, **options)
    prompt, (ids, labels) = chat.prompt(messages, COUNTS), chat.encode(messages, COUNTS)
    assert ids[: len(prompt)] == prompt
    assert labels[len(prompt)] != IGNORE_INDEX and set(labels[: len(prompt)]) == {IGNORE_INDEX}


def test_text_between_slots_is_one_chunk() -> None:
    texts: list[str] = []

    class Spy:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            texts.append(text)
            return [len(texts)]

    Chat(Spy()).encode(ONE, COUNTS)
    assert "<vi_end>\n<au_start>" in texts
    assert "<au_end>\nWho waves?<|im_end|>\n<|im_start|>assistant\n" in texts
    assert f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<vi_start>" in texts


def test_a_long_answer_is_cut_and_a_lost_one_is_bad(tokenizer: Any) -> None:
    ids, labels = Chat(tokenizer).encode(ONE, COUNTS)
    first = next(place for place, label in enumerate(labels) if label != IGNORE_INDEX)
    cut = Chat(tokenizer, max_length=first + 2).encode(ONE, COUNTS)
    assert cut == (ids[: first + 2], labels[: first + 2])
    with pytest.raises(BadSample, match=f"max_length={first}") as caught:
        Chat(tokenizer, max_length=first).encode(ONE, COUNTS)
    assert caught.value.reason == "answer_truncated"


def test_media_beyond_the_limit_are_bad(tokenizer: Any) -> None:
    chat = Chat(tokenizer, max_length=100)
    for build in (chat.encode, chat.prompt):
        with pytest.raises(BadSample, match="max_length") as caught:
            build(ONE, {"video": 300, "audio": 2})
        assert caught.value.reason == "too_long"


def test_a_mark_in_a_text_is_bad(tokenizer: Any) -> None:
    with pytest.raises(BadSample, match="take it out"):
        Chat(tokenizer).encode((("user", "<video>Hi<|im_end|>"), ("assistant", "x")), COUNTS)


def test_a_tokenizer_without_chatml_is_an_error() -> None:
    class Plain:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return list(text.encode())

    with pytest.raises(ValueError, match="the template chatml needs one: choose"):
        Chat(Plain())


def test_a_conversation_may_have_a_system_turn_of_its_own(tokenizer: Any) -> None:
    asked = Chat(tokenizer).prompt(ONE, COUNTS, system="Be kind.")
    assert text_of(tokenizer, asked).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n<vi_start>")
    assert Chat(tokenizer, system=None).encode(ONE, COUNTS, "Be kind.")[0][: len(asked)] == asked
    with pytest.raises(BadSample, match="im_end"):
        Chat(tokenizer).prompt(ONE, COUNTS, system="<|im_end|>")
