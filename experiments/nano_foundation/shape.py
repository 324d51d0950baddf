"""The foundation's models at random: how large each is."""

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


def tokenizer(name: str = "llm") -> PreTrainedTokenizerBase:
    """``llm`` or ``bert``; the tokenizer in that folder."""
    return AutoTokenizer.from_pretrained(NANO / name)


def llm() -> Qwen2ForCausalLM:
    """Qwen2, four layers of width 192."""
    marks = tokenizer()
    config = Qwen2Config(
        vocab_size=len(marks), hidden_size=192, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=512, tie_word_embeddings=True, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, bos_token_id=None,
        eos_token_id=marks.eos_token_id, pad_token_id=marks.pad_token_id,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def siglip() -> SiglipModel:
    """SigLIP, five vision layers of width 128 on 7 x 7 patches, three text layers."""
    marks = tokenizer()
    width = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    vision = {**width, "num_hidden_layers": 5, "image_size": 112, "patch_size": 16}
    text = {**width, "num_hidden_layers": 3, "vocab_size": len(marks), "max_position_embeddings": 64,
            "projection_size": 128, "pad_token_id": marks.pad_token_id, "bos_token_id": None,
            "eos_token_id": marks.eos_token_id}  # fmt: skip
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))


def whisper() -> WhisperModel:
    """Whisper, three encoder layers of width 128 on 80 mel bins, two decoder layers."""
    marks = tokenizer()
    config = WhisperConfig(
        vocab_size=len(marks), num_mel_bins=80, d_model=128, encoder_layers=3, encoder_attention_heads=4,
        encoder_ffn_dim=512, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=512,
        max_source_positions=1500, max_target_positions=64, bos_token_id=marks.pad_token_id,
        eos_token_id=marks.eos_token_id, pad_token_id=marks.pad_token_id,
        decoder_start_token_id=marks.convert_tokens_to_ids("<|im_start|>"), suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    return WhisperModel(config)


def bert() -> BertForPreTraining:
    """BERT, two layers of width 128."""
    marks = tokenizer("bert")
    config = BertConfig(
        vocab_size=len(marks), hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        max_position_embeddings=512, pad_token_id=marks.pad_token_id,
    )  # fmt: skip
    return BertForPreTraining(config)
