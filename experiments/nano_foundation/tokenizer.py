"""Train a byte-level BPE tokenizer of about a thousand pieces, for the LLM (ChatML) and BERT ([CLS] ... [SEP])."""

from __future__ import annotations

from itertools import chain, repeat

import numpy as np
from folder import NANO, replace_files
from language import DELIMITERS, SYSTEM, iterate_texts
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
# a delimiter such as <vi_start> may become one piece; all other text splits as in GPT-2, digits one by one
PIECES = r"<[a-z]{2}_[a-z]+>| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}<]+|<|\s+(?!\S)|\s+"
CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def run(seed: int, size: int = 1024) -> None:
    """Train the tokenizer and write its files for ``llm`` and ``bert``."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    prompts = repeat(f"system\n{SYSTEM}\nuser\n{''.join(DELIMITERS)}\nassistant\n", 2000)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    inner.train_from_iterator(chain(iterate_texts(np.random.default_rng((seed, 1)), 4000), prompts), trainer)

    chat = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    chat.chat_template = CHAT
    with replace_files(NANO / "llm", keep=True) as out:
        chat.save_pretrained(out)

    ends = [(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    bert = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    with replace_files(NANO / "bert", keep=True) as out:
        bert.save_pretrained(out)
