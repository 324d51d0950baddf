"""Token ids of the instruction, truncated and exact."""

import torch

from omnihuman.encoder.token_ids import TokenIds
from omnihuman.types import Signal

INSTRUCTION = "the person is happy and waves and waves"


def test_features_are_the_ids(tokenizer_folder: str) -> None:
    encoder = TokenIds(tokenizer=tokenizer_folder, max_length=6)
    ids = encoder.transform(INSTRUCTION)
    features = encoder(Signal(ids[None], ids[None] >= 0))
    assert features.tokens.shape == (1, 6, 1, 1) and features.tokens[0, :, 0, 0].tolist() == ids.tolist()
    assert encoder.out_dim == 1 and not list(encoder.parameters())


def test_large_ids_are_exact_in_bfloat16(tokenizer_folder: str) -> None:
    ids = torch.tensor([[30522, 30521, 257, 0]])
    encoder = TokenIds(tokenizer=tokenizer_folder).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(Signal(ids, torch.tensor([[True, True, True, False]])))
    assert features.tokens.dtype == torch.float32
    assert features.tokens.flatten().tolist() == [30522, 30521, 257, 0]
    assert features.mask.flatten().tolist() == [True, True, True, False]


def test_cut_selects_the_truncated_side(tokenizer_folder: str) -> None:
    complete = TokenIds(tokenizer=tokenizer_folder).transform(INSTRUCTION).tolist()
    left = TokenIds(tokenizer=tokenizer_folder, max_length=6).transform(INSTRUCTION).tolist()
    right = TokenIds(tokenizer=tokenizer_folder, max_length=6, cut="right").transform(INSTRUCTION).tolist()
    assert left == complete[-6:] and right == complete[:6]
