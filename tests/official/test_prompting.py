"""Tiny checkpoints in their official layouts are converted, asked as their authors ask, and parsed."""

import json
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.ravdess import RAVDESS
from omnihuman.build import compose_config
from omnihuman.config_files import list_choices
from omnihuman.data.module import OmniData
from omnihuman.inference.answerer import Answerer
from omnihuman.inference.prompting import choose_prompting, read_prompting
from omnihuman.official.conversion import Request, convert
from omnihuman.official.prompting import read_system_text
from omnihuman.training.base import rebase
from omnihuman.training.run_search import read_config
from tests.inference.test_prompting import write_clip
from tests.official import layouts
from tests.official.folders import OfficialFolder, convert_official

FRAMES = 100
"""Frames of the clip, of 4 seconds."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES, 1.0)


def read_prompt(answerer: Answerer, prompt: Any) -> str:
    """Return the text of a prompt with ``[media]`` in the place of the tokens of a slot."""
    pieces: list[list[int]] = [[]]
    for token in prompt.packable.input_ids:
        if token >= 0:
            pieces[-1].append(token)
        elif pieces[-1]:
            pieces.append([])
    return "[media]".join(answerer.model.llm.tokenizer.decode(piece) for piece in pieces)


def read_bert_text(answerer: Answerer, prompt: Any) -> str:
    """Return the text that the encoder of the instruction reads."""
    transform: Any = answerer.model.encoders["instruction"].transform
    tokens = prompt.packable.signals["instruction"].tolist()
    return str(transform._tokenizer.decode(tokens, skip_special_tokens=True))


def seconds_of(indices: list[int]) -> list[float]:
    return [index / 25 for index in indices]


R1_QUESTION = (
    "Which emotion?  Output the thinking process in <think> </think> and final emotion in <answer> </answer> tags."
)


def test_r1_omni(officials: dict[str, OfficialFolder], tmp_path: Path, clip: Path) -> None:
    """Its layout is that of HumanOmni-0.5B, so its name decides; its README's question has the form already."""
    official = officials["0_5b"]
    folder = tmp_path / "R1-Omni-0.5B"
    shutil.copytree(official.folder, folder)
    out = convert(Request("humanomni", str(folder), tmp_path / "out", official.options))
    answerer = Answerer.load(out, device="cpu")
    assert answerer.prompting == read_prompting("r1_omni") and answerer.max_new_tokens == 512
    prompt = answerer.read_question("Which emotion?", video=clip)
    assert f"<vi_start>[media]<vi_end>\n<au_start>[media]<au_end>\n{R1_QUESTION}<|im_end|>" in read_prompt(
        answerer, prompt
    )
    assert read_prompt(answerer, answerer.read_question(R1_QUESTION, video=clip)) == read_prompt(answerer, prompt)
    answer = answerer.answer_prompts([prompt], max_new_tokens=3)[0]
    assert answer.tokens <= 3
    benchmark = RAVDESS("unused", **answerer.prompting.benchmark)
    reasoned = "<think>A sad tone.</think>\n<answer>angry</answer>"
    prediction = Prediction("ravdess", "a", "", R1_QUESTION, "angry", reasoned)
    assert benchmark.parse(prediction) == ("angry", "label") and benchmark.options == "none"
    as_trained = Answerer.load(out, device="cpu", official=False)
    assert as_trained.max_new_tokens == 128
    assert "<au_end>\n\n\nWhich emotion?<|im_end|>" in read_prompt(
        as_trained, as_trained.read_question("Which emotion?", video=clip)
    )


def test_humanomni_is_asked_as_in_its_inference(converted: dict[str, Path], clip: Path) -> None:
    answerer = Answerer.load(converted["7b"], device="cpu")
    assert answerer.prompting == read_prompting("humanomni")
    assert answerer.max_new_tokens == 2048
    assert answerer.model.encoders["video"].transform.aspect == "squash"
    prompt = answerer.read_question("Who?", video=clip)
    assert "<au_end>\nWho?<|im_end|>" in read_prompt(answerer, prompt) and prompt.counts["audio"] == 500


@pytest.fixture(scope="module")
def videochat2(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Path:
    root = tmp_path_factory.mktemp("videochat2")
    layouts.write_tower(root / "mistral", "mistral", rms_norm_eps=1e-5, sliding_window=None)
    layouts.write_mistral_tokenizer(tokenizer_folder, root / "mistral")
    layouts.write_videochat2(root / "stage3.pth", 3)
    options = {"language_model": str(root / "mistral"), "instruction_encoder": tokenizer_folder}
    return convert(Request("videochat2", str(root / "stage3.pth"), root / "out", options))


STEPS = [3, 9, 15, 22, 28, 34, 40, 46, 53, 59, 65, 71, 77, 83, 90, 96]
"""``get_index(100, 16)`` of the notebook."""


def test_videochat2(videochat2: Path, clip: Path) -> None:
    answerer = Answerer.load(videochat2, device="cpu")
    assert answerer.max_new_tokens == 512
    encoder: Any = answerer.model.encoders["video"]
    assert (encoder.normalize, encoder.transform.aspect) == ("clip", "crop")
    prompt = answerer.read_question("Describe the video in details.", video=clip)
    assert read_prompt(answerer, prompt) == (
        "<s>[INST] <Video>[media]</Video> [/INST] [INST] Describe the video in details. [/INST]"
    )
    assert prompt.sample.meta["times"] == pytest.approx(seconds_of(STEPS))
    assert read_bert_text(answerer, prompt) == "Watch the video and answer the question."
    assert answerer.answer_prompts([prompt], max_new_tokens=3)[0].tokens <= 3
    seconds = ", ".join(str(round(second, 1)) for second in seconds_of(STEPS))
    timed = Answerer.load(videochat2, device="cpu", official="videochat2_seconds")
    text = read_prompt(timed, timed.read_question("Who?", video=clip))
    assert f"</Video> The video contains 16 frames sampled at {seconds} seconds. [/INST] [INST] Who?" in text
    as_trained = Answerer.load(videochat2, device="cpu", official=False)
    prompt = as_trained.read_question("Who?", video=clip)
    assert len(prompt.sample.meta["times"]) == 8 and "<Video>" not in read_prompt(as_trained, prompt)
    assert read_bert_text(as_trained, prompt) == "Who?"


def test_llava_onevision(tmp_path: Path, tokenizer_folder: str, clip: Path) -> None:
    layouts.write_tower(tmp_path / "siglip", "siglip", num_hidden_layers=layouts.VISION["num_hidden_layers"] + 1)
    layouts.write_llava_onevision(tmp_path / "official", "original", tokenizer_folder)
    options = {"vision_tower": str(tmp_path / "siglip"), "frames": 4}
    out = convert(Request("llava_onevision", str(tmp_path / "official"), tmp_path / "out", options))
    assert read_config(out).data.sampling == "ends"
    answerer = Answerer.load(out, device="cpu")
    assert answerer.max_new_tokens == 4096
    prompt = answerer.read_question("Who?", video=clip)
    assert read_prompt(answerer, prompt) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n[media]\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert prompt.sample.meta["times"] == pytest.approx(seconds_of([0, 33, 66, 99]))
    by_second = Answerer.load(out, device="cpu", official="llava_onevision_fps")
    times = by_second.read_question("Who?", video=clip, start=1.0).sample.meta["times"]
    assert times == pytest.approx(seconds_of([25, 50, 75]))


def test_what_the_user_chooses_counts(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    out = convert_official(officials["0_5b"], tmp_path / "out", prompting="r1_omni", frames=3)
    prompting = choose_prompting(out, None)
    assert prompting is not None and prompting.name == "r1_omni"
    assert json.loads((out / "official.json").read_text())["options"]["prompting"] == "r1_omni"
    overrides = ["+experiment=humanomni_stage3", f"base={out}", "size=0_5b"]
    trained = rebase(compose_config(overrides), overrides)
    assert trained.prompting.name == "r1_omni" and trained.data.num_frames == 8, "the experiment's frames"
    with pytest.raises(ValueError, match=r"prompting=r1: .*r1_omni"):
        convert_official(officials["0_5b"], tmp_path / "other", prompting="r1")
    assert not (tmp_path / "other").exists()


def test_system_text_is_that_of_the_tokenizer(tmp_path: Path, tokenizer_folder: str) -> None:
    from transformers import AutoTokenizer

    template = OmegaConf.create({"name": "chatml", "system": "Ours."})
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nTheirs.<|im_end|>\n' }}{% endif %}"
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "theirs")
    assert read_system_text(tmp_path / "theirs", template)[0] == "Theirs."
    assert "'Theirs.', in place of 'Ours.'" in read_system_text(tmp_path / "theirs", template)[1][0]
    template.system = "Theirs."
    assert read_system_text(tmp_path / "theirs", template) == ("Theirs.", ())
    tokenizer.chat_template = None
    shutil.rmtree(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    system, notes = read_system_text(tmp_path / "theirs", template)
    assert system == "Theirs." and "no chat template" in notes[0]


@pytest.mark.parametrize("name", list_choices("prompting"))
def test_yamls_are_descriptions(name: str) -> None:
    prompting = read_prompting(name)
    assert prompting.name == name and prompting.parts
    assert set(prompting.data) <= set(signature(OmniData).parameters)
