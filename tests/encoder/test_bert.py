"""BERT: the [CLS] state of the instruction equals that of transformers."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForPreTraining

from omnihuman.encoder.bert import Bert
from omnihuman.nn.instruction import InstructionTokenizer
from omnihuman.types import Layout, Signal

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
INSTRUCTION = "the person is happy"


def signal(ids: torch.Tensor) -> Signal:
    return Signal(ids[None], torch.ones(1, len(ids), dtype=torch.bool))


def save_official(folder: Path) -> BertForPreTraining:
    """Save a BERT with all heads, as the hub's repository has it."""
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig(**SIZES, vocab_size=300)).eval()
    model.save_pretrained(folder)
    return model


def test_ids_equal_the_tokenizer(tokenizer_folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = InstructionTokenizer(tokenizer_folder)(INSTRUCTION)
    assert ids.dtype == torch.long
    assert ids.tolist() == tokenizer(INSTRUCTION)["input_ids"]
    assert len(InstructionTokenizer(tokenizer_folder)(INSTRUCTION * 900)) == 512


def test_transform_is_picklable(tokenizer_folder: str) -> None:
    transform = InstructionTokenizer(tokenizer_folder)
    transform(INSTRUCTION)
    assert pickle.loads(pickle.dumps(transform))(INSTRUCTION).tolist() == transform(INSTRUCTION).tolist()


def test_token_equals_transformers(tokenizer_folder: str, tmp_path: Path) -> None:
    model = save_official(tmp_path)
    encoder = Bert(tokenizer=tokenizer_folder, **SIZES, weights=str(tmp_path)).eval()
    ids = encoder.transform(INSTRUCTION)
    with torch.no_grad():
        state = model.bert(input_ids=ids[None]).last_hidden_state
        features = encoder(signal(ids))
    torch.testing.assert_close(features.tokens[0, 0], state[:, 0])
    assert features.tokens.shape == (1, 1, 1, 16) and encoder.layout(9) == Layout(1, 1)
    assert not [name for name in encoder.state_dict() if "pooler" in name]


@pytest.mark.parametrize(
    ("size", "message"),
    [({"hidden_size": 24}, r"hidden_size: 24 .*\b16\b"), ({"vocab_size": 9}, "vocab_size: 9")],
)
def test_other_size_than_the_weights_raises(
    tokenizer_folder: str, tmp_path: Path, size: dict[str, int], message: str
) -> None:
    save_official(tmp_path)
    with pytest.raises(ValueError, match=message):
        Bert(tokenizer=tokenizer_folder, **SIZES | size, weights=str(tmp_path))


def test_vocabulary_defaults_to_the_tokenizer(tokenizer_folder: str) -> None:
    encoder = Bert(tokenizer=tokenizer_folder, **SIZES)
    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer_folder))
    assert encoder.model.embeddings.word_embeddings.num_embeddings == vocabulary


def test_sample_without_text_has_no_token(tokenizer_folder: str) -> None:
    torch.manual_seed(0)
    encoder = Bert(tokenizer=tokenizer_folder, **SIZES).eval()
    ids = torch.tensor([[4, 90, 5], [4, 91, 5]])
    mask = torch.tensor([[True, True, True], [False, False, False]])
    features = encoder(Signal(ids, mask))
    assert features.mask.flatten().tolist() == [True, False] and not features.tokens[1].any()
    torch.testing.assert_close(features.tokens[0], encoder(signal(ids[0])).tokens[0])


def test_older_names_of_the_hub_load(tokenizer_folder: str, tmp_path: Path) -> None:
    """bert-base-uncased has the names gamma and beta, and a buffer of positions."""
    model = save_official(tmp_path)
    file = tmp_path / "model.safetensors"
    older = {"bert.embeddings.position_ids": torch.arange(512)[None]}
    for key, value in load_file(file).items():
        older[key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = value
    assert "bert.embeddings.LayerNorm.gamma" in older
    save_file(older, file, metadata={"format": "pt"})
    state = Bert(tokenizer=tokenizer_folder, **SIZES, weights=str(tmp_path)).model.state_dict()
    expected = model.bert.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())
    assert expected.keys() - state.keys() == {"pooler.dense.weight", "pooler.dense.bias"}


def test_missing_parameter_raises(tokenizer_folder: str, tmp_path: Path) -> None:
    save_official(tmp_path)
    file = tmp_path / "model.safetensors"
    state = {key: value for key, value in load_file(file).items() if "layer.1.output" not in key}
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"\b4 missing .*encoder\.layer\.1\.output"):
        Bert(tokenizer=tokenizer_folder, **SIZES, weights=str(tmp_path))
