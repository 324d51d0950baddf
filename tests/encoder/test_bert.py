"""BERT: the raw [CLS] state of the instruction."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForPreTraining

from omnihuman.encoder.bert import Bert, InstructionIds
from omnihuman.types import Layout, Signal

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
WORDS = "the person is happy"


def signal(ids: torch.Tensor) -> Signal:
    return Signal(ids[None], torch.ones(1, len(ids), dtype=torch.bool))


def test_ids_stand_between_their_marks(tokenizer_folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = InstructionIds(tokenizer_folder)(WORDS)
    assert ids.dtype == torch.long
    assert ids.tolist() == tokenizer(WORDS)["input_ids"]
    assert len(InstructionIds(tokenizer_folder)(WORDS * 900)) == 512


def test_transform_goes_to_workers(tokenizer_folder: str) -> None:
    transform = InstructionIds(tokenizer_folder)
    transform(WORDS)
    assert pickle.loads(pickle.dumps(transform))(WORDS).tolist() == transform(WORDS).tolist()


def test_equals_transformers_without_its_pooler(tokenizer_folder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = BertForPreTraining(BertConfig(**SIZES, vocab_size=300)).eval()
    whole.save_pretrained(tmp_path)
    encoder = Bert(tokenizer=tokenizer_folder, **SIZES, weights=str(tmp_path)).eval()
    ids = encoder.transform(WORDS)
    with torch.no_grad():
        state = whole.bert(input_ids=ids[None]).last_hidden_state
        made = encoder(signal(ids))
    torch.testing.assert_close(made.tokens[0, 0], state[:, 0])
    assert made.tokens.shape == (1, 1, 1, 16) and encoder.layout(9) == Layout(1, 1)
    assert not [name for name in encoder.state_dict() if "pooler" in name]
    for wrong, sizes in (
        (r"hidden_size: 24 here, 16 there", {"hidden_size": 24}),
        ("vocab_size: 9", {"vocab_size": 9}),
    ):
        with pytest.raises(ValueError, match=wrong):
            Bert(tokenizer=tokenizer_folder, **SIZES | sizes, weights=str(tmp_path))


def test_vocabulary_of_the_tokenizer(tokenizer_folder: str) -> None:
    encoder = Bert(tokenizer=tokenizer_folder, **SIZES)
    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer_folder))
    assert encoder.model.embeddings.word_embeddings.num_embeddings == vocabulary


def test_a_sample_without_words(tokenizer_folder: str) -> None:
    """Its token is zero and hidden, and whatever stands in its place steers nothing."""
    torch.manual_seed(0)
    encoder = Bert(tokenizer=tokenizer_folder, **SIZES).eval()
    ids = torch.tensor([[4, 90, 5], [4, 91, 5]])
    mask = torch.tensor([[True, True, True], [False, False, False]])
    made = encoder(Signal(ids, mask))
    assert made.mask.flatten().tolist() == [True, False] and not made.tokens[1].any()
    torch.testing.assert_close(made.tokens[0], encoder(signal(ids[0])).tokens[0])


def test_reads_the_hub_s_older_names(tokenizer_folder: str, tmp_path: Path) -> None:
    """bert-base-uncased says gamma and beta, and keeps a buffer of positions."""
    torch.manual_seed(0)
    whole = BertForPreTraining(BertConfig(**SIZES, vocab_size=300))
    whole.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    older = {key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
             for key, value in load_file(file).items()}  # fmt: skip
    assert "bert.embeddings.LayerNorm.gamma" in older
    save_file(older | {"bert.embeddings.position_ids": torch.arange(512)[None]}, file, metadata={"format": "pt"})
    ours = Bert(tokenizer=tokenizer_folder, **SIZES, weights=str(tmp_path)).model.state_dict()
    theirs = whole.bert.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert {key for key in theirs if key not in ours} == {"pooler.dense.weight", "pooler.dense.bias"}


def test_truncated_weights_are_refused(tokenizer_folder: str, tmp_path: Path) -> None:
    BertForPreTraining(BertConfig(**SIZES, vocab_size=300)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "layer.1.output" not in key}, file,
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ValueError, match=r"do not fit the encoder: 4 missing .such as encoder\.layer\.1\.output"):
        Bert(tokenizer=tokenizer_folder, **SIZES, weights=str(tmp_path))
