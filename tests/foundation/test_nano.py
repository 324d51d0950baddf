"""The nano foundation: every folder loads, is small, and the language model reads notes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertModel,
    MistralForCausalLM,
    Qwen2ForCausalLM,
    SiglipVisionModel,
    WhisperModel,
)

import omnihuman
from omnihuman.data.sample.language import conversations, notes
from omnihuman.data.sample.world import scenes

NANO = Path(omnihuman.__file__).parent / "foundation" / "nano"
MODELS = {
    "llm": Qwen2ForCausalLM,
    "mistral": MistralForCausalLM,
    "siglip": SiglipVisionModel,
    "whisper": WhisperModel,
    "bert": BertModel,
}
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
HEAD = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"


@pytest.mark.parametrize("name", MODELS)
def test_folder_loads_whole(name: str) -> None:
    model, info = MODELS[name].from_pretrained(NANO / name, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert model.dtype == torch.float32
    assert all(p.isfinite().all() for p in model.parameters())


def test_all_folders_stay_small() -> None:
    assert sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file()) <= 20e6


def test_tokenizer_round_trips_with_single_marks() -> None:
    marks = AutoTokenizer.from_pretrained(NANO / "llm")
    rng = np.random.default_rng(0)
    for scene in scenes(0)[::40]:
        for record in conversations(scene, rng):
            text = "".join(turn["value"] for turn in record["conversations"])
            assert marks.decode(marks(text)["input_ids"]) == text
    for odd in ("Ünïcödé 日本 1234", "  two  spaces\n\n"):
        assert marks.decode(marks(odd)["input_ids"]) == odd
    assert all(len(marks(mark)["input_ids"]) == 1 for mark in CHATML)
    assert marks.eos_token == "<|im_end|>" and marks.pad_token == "<|endoftext|>"
    prompt = marks.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert prompt == f"{HEAD}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_bert_tokenizer_frames_a_question() -> None:
    marks = AutoTokenizer.from_pretrained(NANO / "bert")
    tokens = marks.convert_ids_to_tokens(marks("What is the main emotion?")["input_ids"])
    assert (tokens[0], tokens[-1], marks.pad_token, marks.mask_token) == ("[CLS]", "[SEP]", "[PAD]", "[MASK]")


@pytest.mark.parametrize("name", ["llm", "mistral"])
def test_llm_answers_from_notes(name: str) -> None:
    marks, model = AutoTokenizer.from_pretrained(NANO / "llm"), AutoModelForCausalLM.from_pretrained(NANO / name).eval()
    rng, right, total = np.random.default_rng(0), 0, 0
    for scene in [scene for scene in scenes(0) if scene.split == "val" and scene.kind == "talk"][::4]:
        told = notes(scene, rng)
        record = next(r for r in conversations(scene, rng) if r["task"] == "emotion")
        question, answer = (turn["value"] for turn in record["conversations"])
        question = question.replace("<video>", f"<vi_start>{told['video']}<vi_end>")
        question = question.replace("<audio>", f"<au_start>{told['audio']}<au_end>")
        words = f"{HEAD}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ids = marks(words, return_tensors="pt")["input_ids"]
        said = model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
        right += marks.decode(said, skip_special_tokens=True).strip() == answer
        total += 1
    assert right / total > 0.9, f"{right} of {total}"
