"""Answers of a model: decoded media, batches, streams, sampling."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import omnihuman
from omnihuman.data.messages import build_record
from omnihuman.data.record import BadSample, Record
from omnihuman.inference.answerer import Answerer
from omnihuman.modality import View


@pytest.fixture(scope="module")
def answerer(model_folder: Callable[[str], Path]) -> Answerer:
    return Answerer.load(model_folder("humanomni_stage3"))


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Path]:
    return sorted((corpus / "media").glob("train_talk*.mp4"))


def build_question(file: Path, text: str = "What is the main emotion?") -> Record:
    messages = (("user", f"<video>\n<audio>\n{text}"), ("assistant", ""))
    return Record("q", file, "video", messages, ("video", "audio"))


def test_a_prompt_has_the_decoded_media_of_its_view(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.build_prompt(build_question(clips[0]))
    assert prompt.sample.frames is not None and len(prompt.sample.frames) == 8 == len(prompt.sample.meta["times"])
    assert prompt.sample.waveform is not None and not prompt.notes
    assert prompt.length == len(prompt.packable.input_ids) > prompt.counts["video"] + prompt.counts["audio"] > 0
    prompt = answerer.build_prompt(build_question(clips[0]), View("A"))
    assert prompt.sample.frames is None and prompt.counts["video"] == 0 and prompt.record.slots == ("audio",)


def test_a_question_in_python_is_answered_as_its_prompt(
    answerer: Answerer, clips: list[Path], model_folder: Callable[[str], Path]
) -> None:
    model = omnihuman.load(str(model_folder("humanomni_stage3")), device="cpu")
    answer = model.answer("What is the main emotion?", video=clips[0], view="VA", max_new_tokens=4)
    prompt = answerer.build_prompt(build_question(clips[0]), View("VA"))
    assert answer.ids == answerer.answer_prompts([prompt], max_new_tokens=4)[0].ids and str(answer) == answer.text
    assert model.answer("Who?", max_new_tokens=2).prompt_tokens < answer.prompt_tokens
    with pytest.raises(ValueError, match=r"unknown .*max_tokens; .*max_new_tokens"):
        model.answer("Who?", max_tokens=4)
    with pytest.raises(ValueError, match=r"answer: video=nowhere\.mp4: .*no such file"):
        model.answer("Who?", video="nowhere.mp4")


def test_answers_in_a_batch_equal_those_of_single_questions(answerer: Answerer, clips: list[Path]) -> None:
    prompts = [
        answerer.build_prompt(build_question(clips[0])),
        answerer.build_prompt(build_question(clips[1], "Who?"), View("VF")),
        answerer.build_prompt(build_question(clips[1], "What is said here, word by word?"), View("A")),
        answerer.build_prompt(build_question(clips[0], "Which of them?"), View("")),
    ]
    batched = answerer.answer_prompts(prompts, max_new_tokens=8)
    for prompt, answer in zip(prompts, batched, strict=True):
        alone = answerer.answer_prompts([prompt], max_new_tokens=8)[0]
        assert (alone.text, alone.ids, alone.finished) == (answer.text, answer.ids, answer.finished)
        assert alone.tokens == answer.tokens and alone.prompt_tokens == prompt.length


def test_the_pieces_of_a_stream_add_up_to_the_same_answer(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.build_prompt(build_question(clips[0], "Describe the clip."))
    answer = answerer.answer_prompts([prompt], max_new_tokens=12)[0]
    stream = answerer.stream(prompt, max_new_tokens=12)
    pieces = list(stream)
    assert "".join(pieces).strip() == answer.text == stream.answer.text and stream.answer.ids == answer.ids


def test_an_error_in_a_stream_is_raised_where_it_is_read(answerer: Answerer, clips: list[Path]) -> None:
    stream = answerer.stream(answerer.build_prompt(build_question(clips[0])), num_beams=-1, max_new_tokens=4)
    with pytest.raises(ValueError, match="num_beams"):
        list(stream)


def test_a_closed_stream_ends(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.build_prompt(build_question(clips[0]))
    stream = answerer.stream(prompt, max_new_tokens=100_000, min_new_tokens=50_000)
    next(stream)
    stream.close()
    assert stream.answer.tokens < 50_000 and not stream.answer.finished
    assert answerer.answer_prompts([prompt], max_new_tokens=2)[0].tokens <= 2


def test_a_seed_decides_the_sampled_answer_and_leaves_the_random_state(answerer: Answerer, clips: list[Path]) -> None:
    prompt = answerer.build_prompt(build_question(clips[0], "Describe the clip."))
    kwargs: dict[str, Any] = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 12}
    state = torch.random.get_rng_state()
    ids = [answerer.answer_prompts([prompt], seed=seed, **kwargs)[0].ids for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2] and torch.equal(state, torch.random.get_rng_state())


def test_only_parts_for_the_view_of_the_question_run(answerer: Answerer, clips: list[Path]) -> None:
    names = list[str]()
    parts = {**answerer.model.encoders, **answerer.model.projectors, **answerer.model.fusions}
    hooks = [part.register_forward_hook(lambda *_, name=name: names.append(name)) for name, part in parts.items()]
    names_by_view = {}
    for view in ("VF", "A", "text"):
        names.clear()
        answerer.answer_prompts([answerer.build_prompt(build_question(clips[0]), View.parse(view))], max_new_tokens=1)
        names_by_view[view] = set(names)
    for hook in hooks:
        hook.remove()
    video_parts = {"video", "instruction", "interaction", "body", "face", "gate", "compress"}
    assert names_by_view == {"VF": video_parts, "A": {"audio"}, "text": set()}


def test_an_earlier_turn_is_part_of_the_prompt(answerer: Answerer, clips: list[Path], tmp_path: Path) -> None:
    media = {"type": "video", "url": str(clips[0])}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [media, {"type": "text", "text": "Who is it?"}]},
        {"role": "assistant", "content": "a man"},
        {"role": "user", "content": "What does he do?"},
    ]
    prompt = answerer.build_prompt(build_record(turns, "q", "here", tmp_path, {"instruction": "What does he do?"}))
    text = answerer.model.llm.tokenizer.decode([token for token in prompt.packable.input_ids if token >= 0])
    assert "Who is it?<|im_end|>\n<|im_start|>assistant\na man<|im_end|>\n<|im_start|>user\nWhat does he do?" in text
    assert text.endswith("<|im_start|>assistant\n") and prompt.sample.instruction == "What does he do?"
    assert len(answerer.answer_prompts([prompt], max_new_tokens=2)) == 1


def test_view_without_an_encoder_raises(answerer: Answerer, clips: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"no encoder .*faces; .*frames and audio"):
        answerer.build_prompt(build_question(clips[0]), View("F"))


@pytest.mark.parametrize(("view", "same"), [("VAF", "VA"), ("VF", "V"), ("AF", "A")])
def test_letter_without_an_encoder_changes_nothing(answerer: Answerer, clips: list[Path], view: str, same: str) -> None:
    prompts = [answerer.build_prompt(build_question(clips[0]), View(letters)) for letters in (view, same)]
    assert prompts[0].packable.input_ids == prompts[1].packable.input_ids
    signals = [prompt.packable.signals for prompt in prompts]
    assert signals[0].keys() == signals[1].keys()
    assert all(torch.equal(signals[0][name], signals[1][name]) for name in signals[0])


def test_a_truncated_file_raises(answerer: Answerer, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(min((corpus / "media").glob("*.mp4")).read_bytes()[:3000])
    with pytest.raises(BadSample, match=r"cut\.mp4"):
        answerer.build_prompt(build_question(tmp_path / "cut.mp4"))


def test_a_view_of_video_for_an_audio_file_raises(answerer: Answerer, tmp_path: Path) -> None:
    record = replace(build_question(tmp_path / "a.wav").drop_slots(["video"]), kind="audio")
    with pytest.raises(ValueError, match=r"view=VF: .*nothing"):
        answerer.build_prompt(record, View("VF"))


def test_a_file_without_video_is_used_with_a_note(answerer: Answerer, corpus: Path) -> None:
    waveform = min((corpus / "media").glob("*.wav"))
    prompt = answerer.build_prompt(build_question(waveform))
    assert prompt.record.slots == ("audio",) and prompt.notes == (f"{waveform.name} has no video; answered without",)


def test_a_model_without_an_audio_encoder_notes_it(model_folder: Callable[[str], Path], clips: list[Path]) -> None:
    video_answerer = Answerer.load(model_folder("humanomni_stage1"))
    assert str(video_answerer.view) == "V"
    assert "reads no audio" in video_answerer.build_prompt(build_question(clips[0])).notes[0]
    assert "reads no audio" in video_answerer.build_prompt(build_question(clips[0]), View("VA")).notes[0]
    with pytest.raises(ValueError, match=r"no encoder .*audio; .*frames"):
        video_answerer.build_prompt(build_question(clips[0]), View("A"))


@pytest.mark.slow
def test_questions_are_answered_without_the_import_of_lightning() -> None:
    """It takes as long as the answer."""
    hidden = "sys.modules.update(lightning=None, pytorch_lightning=None)"
    code = f"import sys; {hidden}; import omnihuman.inference.answerer, omnihuman.evaluation.run"
    subprocess.run([sys.executable, "-c", code], check=True)
