"""The nano foundation: every folder loads completely and is small, and the language models answer from descriptions."""

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
from omnihuman.corpus.conversation import build_conversations
from omnihuman.corpus.description import describe_scene
from omnihuman.corpus.world import build_scenes

NANO = Path(omnihuman.__file__).parent / "foundation" / "nano"
MODELS = {
    "llm": Qwen2ForCausalLM,
    "mistral": MistralForCausalLM,
    "siglip": SiglipVisionModel,
    "whisper": WhisperModel,
    "bert": BertModel,
}
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"


@pytest.mark.parametrize("name", MODELS)
def test_folder_loads_completely(name: str) -> None:
    model, info = MODELS[name].from_pretrained(NANO / name, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert model.dtype == torch.float32
    assert all(p.isfinite().all() for p in model.parameters())


def test_foundation_is_small() -> None:
    assert sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file()) <= 20e6


def test_tokenizer_round_trips() -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO / "llm")
    rng = np.random.default_rng(0)
    texts = ["Ünïcödé 日本 1234", "  two  spaces\n\n"]
    for scene in build_scenes(0)[::40]:
        for record in build_conversations(scene, rng):
            texts.append("".join(turn["value"] for turn in record["conversations"]))
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_has_special_tokens_and_chat_template() -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO / "llm")
    assert all(len(tokenizer(token)["input_ids"]) == 1 for token in CHATML)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    messages = [{"role": "user", "content": "hi"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == f"{SYSTEM}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_bert_tokenizer_adds_special_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO / "bert")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("What is the main emotion?")["input_ids"])
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert (tokenizer.pad_token, tokenizer.mask_token) == ("[PAD]", "[MASK]")


@pytest.mark.parametrize("name", ["llm", "mistral"])
def test_llm_answers_from_descriptions(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO / "llm")
    model = AutoModelForCausalLM.from_pretrained(NANO / name).eval()
    rng = np.random.default_rng(0)
    hits: list[bool] = []
    for scene in [scene for scene in build_scenes(0) if scene.split == "val" and scene.kind == "talk"][::4]:
        description = describe_scene(scene, rng)
        record = next(r for r in build_conversations(scene, rng) if r["task"] == "emotion")
        question, answer = (turn["value"] for turn in record["conversations"])
        question = question.replace("<video>", f"<vi_start>{description['video']}<vi_end>")
        question = question.replace("<audio>", f"<au_start>{description['audio']}<au_end>")
        prompt = f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        output = model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
        hits.append(tokenizer.decode(output, skip_special_tokens=True).strip() == answer)
    assert sum(hits) / len(hits) > 0.9
