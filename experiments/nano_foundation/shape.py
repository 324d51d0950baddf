"""Sizes of the foundation's models, with random weights."""

from __future__ import annotations

from folder import NANO
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipModel,
    WhisperConfig,
    WhisperModel,
)


def load_tokenizer(name: str = "llm") -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``llm`` or ``bert``."""
    return AutoTokenizer.from_pretrained(NANO / name)


def build_llm() -> Qwen2ForCausalLM:
    """Build a Qwen2 of four layers of width 192."""
    tokenizer = load_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=512,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def build_siglip() -> SiglipModel:
    """Build a SigLIP of five vision layers of width 128 on 7 x 7 patches, and three text layers."""
    tokenizer = load_tokenizer()
    width = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    vision = {**width, "num_hidden_layers": 5, "image_size": 112, "patch_size": 16}
    text = {
        **width,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "projection_size": 128,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))


def build_whisper() -> WhisperModel:
    """Build a Whisper of three encoder layers of width 128 on 80 mel bins, and two decoder layers."""
    tokenizer = load_tokenizer()
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=128,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=512,
        max_source_positions=1500,
        max_target_positions=64,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return WhisperModel(config)


def build_bert() -> BertForPreTraining:
    """Build a BERT of two layers of width 128."""
    tokenizer = load_tokenizer("bert")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForPreTraining(config)
