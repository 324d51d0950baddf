"""Pretrain a Mistral that starts from the weights of ``llm`` without its biases."""

from __future__ import annotations

import torch
from folder import NANO
from llm import pretrain
from transformers import MistralConfig, MistralForCausalLM, Qwen2ForCausalLM

SHARED_KEYS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "tie_word_embeddings",
    "max_position_embeddings",
    "rope_parameters",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def run(seed: int, minutes: float = 14.0, resume: bool = False) -> None:
    """Train the model of ``mistral``; ``resume`` starts from its present weights."""
    torch.manual_seed(seed)
    model = MistralForCausalLM.from_pretrained(NANO / "mistral") if resume else _convert_llm()
    pretrain(model, "mistral", (seed, 7, int(resume)), minutes)


def _convert_llm() -> MistralForCausalLM:
    """Return a Mistral with the weights of ``llm``, its biases left out."""
    qwen = Qwen2ForCausalLM.from_pretrained(NANO / "llm")
    config = qwen.config.to_dict()
    model = MistralForCausalLM(MistralConfig(**{key: config[key] for key in SHARED_KEYS}, sliding_window=None))
    keys = model.load_state_dict(qwen.state_dict(), strict=False)
    if keys.missing_keys or not all(key.endswith("bias") for key in keys.unexpected_keys):
        raise ValueError(f"llm does not fit Mistral: expected biases as the only unexpected keys, got {keys}.")
    return model
