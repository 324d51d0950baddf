"""FaVChat's MoE adapter."""

from typing import Any

import pytest
import torch

from omnihuman.fusion.moe import MoE
from omnihuman.types import Features, Layout

NAMES = ["general", "facial"]
DIMS = {**dict.fromkeys(NAMES, 4), "words": 6}


def moe(**options: Any) -> MoE:
    torch.manual_seed(0)
    return MoE(DIMS, NAMES, "video", **options)


def stream(seed: int, mask: list[list[int]], width: int = 4, tokens: int = 3) -> Features:
    valid = torch.tensor(mask, dtype=torch.bool)
    random = torch.Generator().manual_seed(seed)
    return Features.of(torch.randn(*valid.shape, tokens, width, generator=random), valid)


def draw_streams(general: list[list[int]], facial: list[list[int]]) -> dict[str, Features]:
    words = stream(9, [[1]] * len(general), 6, 1)
    return {"general": stream(1, general), "facial": stream(2, facial), "words": words}


@pytest.mark.parametrize("options", [{}, {"condition": "words"}, {"gate": "learned"}], ids=str)
def test_equals_the_weighted_sum_of_equation_3(options: dict[str, Any]) -> None:
    part, streams = moe(**options), draw_streams([[1, 1], [1, 1]], [[1, 1], [1, 1]])
    merged = part(streams)
    assert set(merged) == {"video", "words"}
    assert part.weights is not None and not part.weights.requires_grad and part.weights.shape == (2, 2)
    torch.testing.assert_close(part.weights.sum(dim=1), torch.ones(2))
    expected = sum(streams[name].tokens * part.weights[:, k, None, None, None] for k, name in enumerate(NAMES))
    torch.testing.assert_close(merged["video"].tokens, expected)
    assert torch.equal(part.weights[0], part.weights[1]) == ("gate" in options)


def test_gate_reads_both_streams_and_the_condition() -> None:
    part, streams = moe(condition="words"), draw_streams([[1, 1]], [[1, 1]])
    weights = []
    for name in ("", *streams):
        changed = {key: Features(f.tokens + 1 * (key == name), f.mask) for key, f in streams.items()}
        part(changed)
        weights.append(part.weights)
    assert all(not torch.allclose(weights[0], other, atol=1e-6) for other in weights[1:])


@pytest.mark.parametrize("options", [{}, {"per_token": True}, {"gate": "learned"}], ids=str)
def test_missing_stream_leaves_the_other(options: dict[str, Any]) -> None:
    part, streams = moe(**options), draw_streams([[1, 1], [0, 0], [0, 0]], [[0, 0], [1, 1], [0, 0]])
    merged = part(streams)["video"]
    torch.testing.assert_close(merged.tokens[0], streams["general"].tokens[0])
    torch.testing.assert_close(merged.tokens[1], streams["facial"].tokens[1])
    assert merged.mask[:, 0, 0].tolist() == [True, True, False] and merged.tokens.isfinite().all()
    assert part.weights is not None
    torch.testing.assert_close(part.weights, torch.tensor([[1.0, 0], [0, 1], [0, 0]]))


def test_frame_without_a_face_equals_the_general_stream() -> None:
    part, streams = moe(), draw_streams([[1, 1]], [[1, 0]])
    merged = part(streams)["video"]
    torch.testing.assert_close(merged.tokens[:, 1], streams["general"].tokens[:, 1])
    assert not torch.allclose(merged.tokens[:, 0], streams["general"].tokens[:, 0], atol=1e-3)
    without_face = part(streams | {"facial": stream(2, [[0]])})["video"]
    torch.testing.assert_close(without_face.tokens, streams["general"].tokens)


def test_per_token_weights_differ() -> None:
    part, streams = moe(per_token=True, condition="words"), draw_streams([[1, 1]], [[1, 1]])
    merged = part(streams)["video"].tokens
    # the weight of the first stream, from any one of the numbers of a token
    share = (merged - streams["facial"].tokens) / (streams["general"].tokens - streams["facial"].tokens)
    torch.testing.assert_close(share, share[..., :1].expand_as(share), atol=1e-4, rtol=1e-4)
    assert share[..., 0].flatten().unique().numel() == 6
    assert part.weights is not None
    torch.testing.assert_close(part.weights[0, 0], share[..., 0].mean(), atol=1e-5, rtol=1e-4)


def test_learned_starts_equal() -> None:
    part = moe(gate="learned")
    part(draw_streams([[1]], [[1]]))
    assert part.weights is not None and part.weights.tolist() == [[0.5, 0.5]]
    assert [name for name, _ in part.named_parameters()] == ["logits"]


def test_bad_options_raise() -> None:
    with pytest.raises(ValueError, match=r"no input.*condition=words and per_token=False"):
        moe(gate="learned", condition="words")
    with pytest.raises(ValueError, match=r"moe .*one shape.*qformer"):
        moe().layout([Layout(8, 196), Layout(8, 49)])
    assert moe().layout([Layout(1, 96)] * 2) == Layout(1, 96)
