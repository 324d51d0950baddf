"""What every encoder, projector and fusion owes to its neighbours: asked of every yaml of these groups."""

import inspect
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omnihuman.build import build, compose_part, config_dir
from omnihuman.encoder.base import Encoder
from omnihuman.encoder.words import Words
from omnihuman.fusion.base import Fusion
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout, Signal, Width

LENGTHS = (0, 1, 5, 8)
"""Moments of the rows of a batch."""
IN_DIM, OUT_DIM, GRID = 8, 16, (6, 6)
LEVELS = {4: (6, 6), 6: (3, 3)}
"""Width and grid of each level that a fusion's inputs offer."""
INPUTS = {
    "cascade": ["face"],
    "clip_concat": ["video", "face"],
    "frame_attend": ["video", "face"],
    "frame_concat": ["video", "face"],
    "frame_embedding": ["video"],
    "gate": ["a", "b", "c"],
    "moe": ["video", "face"],
    "newline": ["video"],
    "slow_fast": ["video"],
    "weighted_sum": ["a", "b", "c"],
}
"""The streams that each fusion merges here; a new fusion adds its line."""
GIVEN: dict[str, set[str]] = {"encoder": set(), "projector": {"in_dim", "out_dim"}, "fusion": {"dims", "inputs"}}
"""What the model, and not the part's yaml, says."""
REFUSES_STILLS = {"stc_videollama2_v35"}
BASES: dict[str, type[nn.Module]] = {"encoder": Encoder, "projector": Projector, "fusion": Fusion}


def presets(group: str) -> list[str]:
    """Every yaml of a group, ``siglip/7b`` or ``mlp``, but not those that only choose a size."""
    folder = Path(config_dir()) / group
    found = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    return sorted(path.as_posix() for path in found if not (folder / path).is_dir())


ALL = [(group, name) for group in GIVEN for name in presets(group)]
REAL_SIZE = [name for name in presets("encoder") if not name.endswith("/nano")] + ["qformer/0_5b", "qformer/7b"]
"""Too large to be run here; they are built without memory."""
every_yaml = pytest.mark.parametrize(("group", "name"), ALL)
every_part = pytest.mark.parametrize(("group", "name"), [(group, name) for group, name in ALL if name not in REAL_SIZE])


def node(group: str, name: str) -> dict[str, Any]:
    part = compose_part(group, name, ["+random_weights=true"] if name in REAL_SIZE else [])
    if group == "fusion":
        part.inputs = INPUTS[part._target_.split(".")[-2]]
    plain = OmegaConf.to_container(part, resolve=True)
    assert isinstance(plain, dict)
    return plain


def make(group: str, name: str) -> Any:
    """The part, new, in eval mode."""
    torch.manual_seed(0)
    made = build(node(group, name))
    if group == "projector":
        made = made(in_dim=IN_DIM, out_dim=OUT_DIM)
    if group == "fusion":
        dims = {"instruction": IN_DIM, "video": IN_DIM}
        made = made(dims=dims | dict.fromkeys(made.keywords["inputs"], Width(OUT_DIM, tuple(LEVELS))))
    return made.eval()


shared = cache(make)
"""For tests that leave the part as it is."""


def amount(part: Encoder, length: int) -> int:
    """Frames, samples (not in whole tokens) or token ids of words."""
    if part.reads == "instruction":
        return len(part.transform(field(part, length, torch.Generator())))
    return length if part.reads != "waveform" else max(0, 960 * length - 7)


def field(part: Encoder, length: int, random: torch.Generator) -> Any:
    if part.reads == "frames":
        return torch.randint(0, 256, (length, 3, 20, 30), dtype=torch.uint8, generator=random)
    if part.reads == "waveform":
        return torch.rand(amount(part, length), generator=random) - 0.5
    return " ".join(["what", "does", "the", "person", "feel", "or", "do", "here"][:length])


def signal(part: Encoder, lengths: tuple[int, ...], hidden: int, longer: int = 0) -> Signal:
    """Transformed moments, padded by ``longer`` more than needed with what the seed ``hidden`` draws."""
    random, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(hidden)
    blank = part.transform(field(part, 8, random))[:0]
    rows = [part.transform(field(part, length, random)) if length else blank for length in lengths]
    values = pad_sequence(
        [*rows, blank.new_zeros(max(1, *map(len, rows)) + longer, *blank.shape[1:])], batch_first=True
    )
    mask = torch.arange(values.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    values = values[:-1].clone()
    junk = torch.randint(0, 200, values.shape, generator=other).to(values.dtype)
    values[~mask] = junk[~mask]
    return Signal(values, mask)


def features(
    width: int, lengths: tuple[int, ...], hidden: int, longer: int = 0, seed: int = 1, grid: tuple[int, int] = GRID
) -> Features:
    """Tokens on a grid; what the mask hides is drawn from the seed ``hidden``."""
    size = (len(lengths), max(*lengths, 1) + longer, grid[0] * grid[1], width)
    tokens = torch.zeros(size)
    for row, length in enumerate(lengths):
        drawn = torch.Generator().manual_seed(10 * seed + length)
        tokens[row, :length] = torch.randn(length, *size[2:], generator=drawn)
    mask = torch.arange(size[1]) < torch.tensor(lengths)[:, None]
    junk = 100 * torch.randn(size, generator=torch.Generator().manual_seed(hidden))
    return Features.of(torch.where(mask[..., None, None], tokens, junk), mask, grid)


def leveled(width: int, lengths: tuple[int, ...], hidden: int, longer: int, seed: int) -> Features:
    """Tokens on a grid, with levels."""
    levels = tuple(features(dim, lengths, hidden, longer, seed + dim, grid) for dim, grid in LEVELS.items())
    return replace(features(width, lengths, hidden, longer, seed), levels=levels)


def run(part: nn.Module, lengths: tuple[int, ...] = LENGTHS, hidden: int = 2, longer: int = 0) -> Features:
    made: Features
    if isinstance(part, Encoder):
        made = part(signal(part, lengths, hidden, longer))
    elif isinstance(part, Projector):
        made = part(features(IN_DIM, lengths, hidden, longer))
    else:
        assert isinstance(part, Fusion)
        streams = {"video": features(IN_DIM, lengths, hidden, longer, seed=8)}
        streams |= {name: leveled(OUT_DIM, lengths, hidden, longer, k) for k, name in enumerate(part.inputs)}
        words = features(IN_DIM, lengths, hidden, seed=9)
        # a sample without a stream has no words here either: then nothing but the mask decides
        streams["instruction"] = Features.of(words.tokens[:, :1, :1], words.mask[:, :1, 0])
        made = part(streams)[part.output]
    return made


def expected(part: nn.Module, length: int) -> int:
    """Tokens that the plan promises."""
    if not length:
        return 0
    if isinstance(part, Encoder):
        return part.layout(amount(part, length)).total
    levels = tuple(Layout(length, grid[0] * grid[1], grid) for grid in LEVELS.values())
    stream = Layout(length, GRID[0] * GRID[1], GRID, levels)
    if isinstance(part, Projector):
        return part.layout(stream).total
    assert isinstance(part, Fusion)
    return part.layout([stream] * len(part.inputs)).total


@every_yaml
def test_yaml_fits_the_class(group: str, name: str) -> None:
    config = node(group, name)
    target = get_class(config["_target_"])
    assert issubclass(target, BASES[group])
    takes = inspect.signature(target).parameters
    keys = {key for key in config if not key.startswith("_")}
    assert keys <= set(takes)
    needed = {key for key, parameter in takes.items() if parameter.default is parameter.empty}
    assert needed <= keys | GIVEN[group]
    assert bool(config.get("_partial_")) == (group != "encoder")
    assert not keys & (GIVEN[group] - {"inputs"}), "widths are never written in yaml"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, name in ALL if name in REAL_SIZE])
def test_real_size_builds(group: str, name: str) -> None:
    with torch.device("meta"):
        part = make(group, name)
    if group == "encoder":
        config = node(group, name)
        assert part.out_dim == next((config[key] for key in ("hidden_size", "d_model", "dim") if key in config), 1)
    assert all(parameter.is_meta for parameter in part.parameters())


@every_part
def test_widths_and_grid(group: str, name: str) -> None:
    part = shared(group, name)
    made = run(part)
    assert made.tokens.shape[:-1] == made.mask.shape
    assert made.tokens.shape[-1] == part.out_dim == (part.out_dim if group == "encoder" else OUT_DIM)
    if made.grid is not None:
        assert made.grid[0] * made.grid[1] == made.tokens.shape[2]


@every_part
def test_tokens_as_planned(group: str, name: str) -> None:
    part = shared(group, name)
    lengths = tuple(length for length in LENGTHS if not (length == 1 and name in REFUSES_STILLS))
    counts = run(part, lengths).mask.flatten(1).sum(dim=1).tolist()
    assert counts == [expected(part, length) for length in lengths]


@every_part
def test_one_moment(group: str, name: str) -> None:
    part = shared(group, name)
    if name in REFUSES_STILLS:
        with pytest.raises(ValueError, match="needs 2 frames or more, got 1"):
            run(part, (1, 1))
        with pytest.raises(ValueError, match="needs 2 frames or more, got 1"):
            expected(part, 1)
        return
    made = run(part, (1,))
    assert made.mask.any() and made.tokens.isfinite().all()


@every_part
def test_eval_is_deterministic(group: str, name: str) -> None:
    part = shared(group, name)
    assert torch.equal(run(part).tokens, run(part).tokens)


@every_part
def test_hidden_values_change_nothing(group: str, name: str) -> None:
    part = shared(group, name)
    one, other = run(part, hidden=2), run(part, hidden=3)
    assert torch.equal(one.mask, other.mask)
    assert one.tokens.isfinite().all() and other.tokens.isfinite().all()
    torch.testing.assert_close(one.tokens[one.mask], other.tokens[one.mask], rtol=0, atol=1e-5)


@every_part
def test_more_padding_changes_nothing(group: str, name: str) -> None:
    part = shared(group, name)
    one, other = run(part), run(part, longer=12)
    torch.testing.assert_close(one.tokens[one.mask], other.tokens[other.mask], rtol=1e-4, atol=1e-5)


@every_part
def test_rows_are_strangers(group: str, name: str) -> None:
    """A sample's tokens are the same alone and beside others."""
    part = shared(group, name)
    # the first row, so that the signal drawn for it is the same one
    alone, beside = run(part, (5,)), run(part, (5, 8, 0))
    assert alone.mask.all() and beside.mask[0].sum() == alone.mask.sum()
    torch.testing.assert_close(beside.tokens[0][beside.mask[0]], alone.tokens[alone.mask], rtol=1e-4, atol=1e-5)


@every_part
def test_gradients_reach_all(group: str, name: str) -> None:
    part = make(group, name)
    if not any(parameter.requires_grad for parameter in part.parameters()):
        assert group == "fusion" or isinstance(part, Words), "an encoder or projector has parameters"
        return
    made = run(part)
    weights = torch.randn(made.tokens.shape, generator=torch.Generator().manual_seed(4))
    (made.tokens * weights)[made.mask].sum().backward()
    for key, parameter in part.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            # softmax does not see what is added to all keys alike
            assert parameter.grad.any() or key.endswith(("k_proj.bias", "key.bias")), key


@every_part
def test_takes_part_without_input(group: str, name: str) -> None:
    """A rank whose samples lack the modality still gives every parameter a gradient: zero, not None."""
    part = make(group, name)
    made = run(part, (0, 0))
    assert not made.mask.any() and made.tokens.isfinite().all()
    if any(parameter.requires_grad for parameter in part.parameters()):
        made.tokens.sum().backward()
        trained = {key: parameter.grad for key, parameter in part.named_parameters() if parameter.requires_grad}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in trained.values())
        if group == "encoder":
            assert not any(gradient.any() for gradient in trained.values() if isinstance(gradient, Tensor))


@every_part
def test_frozen_keeps_no_graph(group: str, name: str) -> None:
    part = make(group, name).requires_grad_(False)
    assert not run(part).tokens.requires_grad


@every_part
def test_bf16_autocast(group: str, name: str) -> None:
    part = make(group, name)
    exact = run(part)
    with torch.autocast("cpu", torch.bfloat16):
        made = run(part)
    assert made.tokens.isfinite().all()
    scale = exact.tokens[exact.mask].std()
    error = (made.tokens.float() - exact.tokens)[exact.mask].square().mean().sqrt()
    assert error < 0.05 * scale
    if made.tokens.requires_grad:
        made.tokens.float()[made.mask].sum().backward()
