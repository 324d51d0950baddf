"""Asking a model: what is decoded, batched, streamed, and left alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.data.messages import record_of
from omnihuman.data.record import BadSample, Record
from omnihuman.evaluation.answerer import Answerer


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.of_run(model_folder("humanomni_stage3"))


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Path]:
    return sorted((corpus / "media").glob("train_talk*.mp4"))


def question(file: Path, words: str = "What is the main emotion?") -> Record:
    return Record("q", file, "video", (("user", f"<video>\n<audio>\n{words}"), ("assistant", "")), ("video", "audio"))


def test_a_prompt_says_what_is_asked_and_what_was_seen(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.prompt(question(clips[0]))
    assert prompt.sample.frames is not None and len(prompt.sample.frames) == 8 == len(prompt.sample.meta["times"])
    assert prompt.sample.waveform is not None and not prompt.notes
    assert prompt.length == len(prompt.packable.input_ids) > prompt.counts["video"] + prompt.counts["audio"] > 0
    heard = answerer.prompt(question(clips[0]), "audio")
    assert heard.sample.frames is None and heard.counts["video"] == 0 and heard.record.slots == ("audio",)


def test_a_batch_answers_as_each_question_alone(answerer: Answerer, clips: list[Path]) -> None:
    prompts = [
        answerer.prompt(question(clips[0])),
        answerer.prompt(question(clips[1], "Who?"), "video"),
        answerer.prompt(question(clips[1], "What is said here, word by word?"), "audio"),
        answerer.prompt(question(clips[0], "Which of them?"), "text"),
    ]
    alone = [answerer.ask([prompt], max_new_tokens=8)[0] for prompt in prompts]
    for one, other in zip(alone, answerer.ask(prompts, max_new_tokens=8), strict=True):
        assert (one.text, one.ids, one.finished, one.tokens) == (other.text, other.ids, other.finished, other.tokens)
    assert [one.prompt_tokens for one in alone] == [prompt.length for prompt in prompts]


def test_a_stream_gives_the_pieces_of_the_same_answer(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.prompt(question(clips[0], "Describe the clip."))
    whole = answerer.ask([prompt], max_new_tokens=12)[0]
    stream = answerer.stream(prompt, max_new_tokens=12)
    pieces = list(stream)
    assert "".join(pieces).strip() == whole.text == stream.answer.text and stream.answer.ids == whole.ids


def test_what_fails_in_a_stream_is_raised_to_its_reader(answerer: Answerer, clips: list[Path]) -> None:
    stream = answerer.stream(answerer.prompt(question(clips[0])), num_beams=-1, max_new_tokens=4)
    with pytest.raises(ValueError, match="num_beams"):
        list(stream)


def test_a_stream_that_nobody_reads_ends(answerer: Answerer, clips: list[Path]) -> None:
    stream = answerer.stream(answerer.prompt(question(clips[0])), max_new_tokens=100_000, min_new_tokens=50_000)
    next(stream)
    stream.close()
    assert stream.answer.tokens < 50_000 and not stream.answer.finished
    assert answerer.ask([answerer.prompt(question(clips[0]))], max_new_tokens=2)[0].tokens <= 2


def test_a_seed_decides_what_is_sampled_and_nothing_else(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.prompt(question(clips[0], "Describe the clip."))
    how: dict[str, Any] = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 12}
    state = torch.random.get_rng_state()
    said = [answerer.ask([prompt], seed=seed, **how)[0].ids for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2] and torch.equal(state, torch.random.get_rng_state())


def test_nothing_runs_that_the_question_does_not_need(answerer: Answerer, clips: list[Path]) -> None:
    ran = list[str]()
    parts = {**answerer.model.encoders, **answerer.model.projectors, **answerer.model.fusions}
    hooks = [part.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, part in parts.items()]
    asked = {}
    for modal in ("video", "audio", "text"):
        ran.clear()
        answerer.ask([answerer.prompt(question(clips[0]), modal)], max_new_tokens=1)
        asked[modal] = set(ran)
    [hook.remove() for hook in hooks]
    seen = {"video", "instruction", "interaction", "body", "face", "gate", "compress"}
    assert asked == {"video": seen, "audio": {"audio"}, "text": set()}


def test_an_earlier_turn_is_part_of_the_prompt(answerer: Answerer, clips: list[Path], tmp_path: Path) -> None:
    media = {"type": "video", "url": str(clips[0])}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [media, {"type": "text", "text": "Who is it?"}]},
        {"role": "assistant", "content": "a man"},
        {"role": "user", "content": "What does he do?"},
    ]
    prompt = answerer.prompt(record_of(turns, "q", "here", tmp_path, {"instruction": "What does he do?"}))
    words = answerer.model.llm.tokenizer.decode([token for token in prompt.packable.input_ids if token >= 0])
    assert "Who is it?<|im_end|>\n<|im_start|>assistant\na man<|im_end|>\n<|im_start|>user\nWhat does he do?" in words
    assert words.endswith("<|im_start|>assistant\n") and prompt.sample.instruction == "What does he do?"
    assert len(answerer.ask([prompt], max_new_tokens=2)) == 1


@pytest.mark.parametrize(
    ("modal", "message"), [("smell", "choose from video_audio"), ("faces", "no encoder that reads faces")]
)
def test_what_cannot_be_asked_is_named(answerer: Answerer, clips: list[Path], modal: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answerer.prompt(question(clips[0]), modal)


def test_a_file_that_lacks_what_is_wanted(answerer: Answerer, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(min((corpus / "media").glob("*.mp4")).read_bytes()[:3000])
    with pytest.raises(BadSample, match=r"cut\.mp4"):
        answerer.prompt(question(tmp_path / "cut.mp4"))
    with pytest.raises(ValueError, match="cannot give"):
        answerer.prompt(replace(question(tmp_path / "a.wav").without(["video"]), kind="audio"), "video")
    sound = min((corpus / "media").glob("*.wav"))
    prompt = answerer.prompt(question(sound))
    assert prompt.record.slots == ("audio",) and prompt.notes == (f"{sound.name} has no video; answered without",)


def test_a_run_without_ears_says_so(model_folder: Callable[[str], Path], clips: list[Path]) -> None:
    sees = Answerer.of_run(model_folder("humanomni_stage1"))
    assert (sees.senses, sees.slots) == ("V", {"video"})
    assert "reads no audio" in sees.prompt(question(clips[0])).notes[0]
    with pytest.raises(ValueError, match="reads video only"):
        sees.prompt(question(clips[0]), "audio")
