"""Pretrains a Mistral-shaped LLM: it begins at ``llm``, whose language it shares, without the biases."""

from __future__ import annotations

import torch
from folder import NANO
from llm import train
from transformers import MistralConfig, MistralForCausalLM, Qwen2ForCausalLM


def make(seed: int, minutes: float = 14.0, on: bool = False) -> None:
    """A seed and a time; writes the model of ``mistral``, with ``on`` beginning at the weights that are there."""
    torch.manual_seed(seed)
    train(
        MistralForCausalLM.from_pretrained(NANO / "mistral") if on else _begun(), "mistral", (seed, 7, int(on)), minutes
    )


def _begun() -> MistralForCausalLM:
    """The weights of ``llm`` where Mistral has a place for them."""
    qwen = Qwen2ForCausalLM.from_pretrained(NANO / "llm")
    given = qwen.config.to_dict()
    same = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "intermediate_size", "tie_word_embeddings", "max_position_embeddings", "rope_parameters", "rms_norm_eps",
            "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    model = MistralForCausalLM(MistralConfig(**{key: given[key] for key in same}, sliding_window=None))
    left = model.load_state_dict(qwen.state_dict(), strict=False)
    if left.missing_keys or not all(key.endswith("bias") for key in left.unexpected_keys):
        raise ValueError(f"llm is no model of which only biases go: {left}")
    return model
