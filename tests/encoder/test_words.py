import torch

from omnihuman.encoder.words import Words
from omnihuman.types import Signal


def test_words_are_ids_and_the_end_of_a_long_instruction_stays(tokenizer_folder: str) -> None:
    words = Words(tokenizer=tokenizer_folder, max_length=6)
    ids = words.transform("the person is happy and waves and waves")
    assert len(ids) == 6
    whole = Words(tokenizer=tokenizer_folder).transform("the person is happy and waves and waves")
    assert ids[-1] == whole[-1]
    features = words(Signal(ids[None], ids[None] >= 0))
    assert features.tokens.shape == (1, 6, 1, 1) and features.tokens[0, :, 0, 0].tolist() == ids.tolist()
    assert words.out_dim == 1 and not list(words.parameters())


def test_the_largest_ids_stay_exact(tokenizer_folder: str) -> None:
    """Also where the rest computes in 16 bits."""
    ids = torch.tensor([[30522, 30521, 257, 0]])
    words = Words(tokenizer=tokenizer_folder).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        features = words(Signal(ids, torch.tensor([[True, True, True, False]])))
    assert features.tokens.dtype == torch.float32
    assert features.tokens.flatten().tolist() == [30522, 30521, 257, 0]
    assert features.mask.flatten().tolist() == [True, True, True, False]


def test_the_other_end_goes_on_request(tokenizer_folder: str) -> None:
    instruction = "the person is happy and waves and waves"
    whole = Words(tokenizer=tokenizer_folder).transform(instruction).tolist()
    left, right = (
        Words(tokenizer=tokenizer_folder, max_length=6, cut=cut).transform(instruction).tolist()
        for cut in ("left", "right")
    )
    assert left == whole[-6:] and right == whole[:6]
