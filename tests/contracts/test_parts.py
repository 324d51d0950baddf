"""The contract of encoders, projectors and fusions, for every preset of these groups at every size that it has."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omnihuman.build import build, compose_part, config_dir
from omnihuman.encoder.base import Encoder
from omnihuman.encoder.token_ids import TokenIds
from omnihuman.fusion.base import Fusion
from omnihuman.modality import BY_FIELD
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout, Signal, Width

LENGTHS = (0, 1, 5, 8)
"""Time steps of the samples of a batch."""
IN_DIM, OUT_DIM, GRID = 8, 16, (6, 6)
LEVELS = {4: (6, 6), 6: (3, 3)}
"""Width and grid of each level of a fusion's inputs."""
FROM_MODEL: dict[str, set[str]] = {
    "encoder": set(),
    "projector": {"in_dim", "out_dim"},
    "fusion": {"dims", "inputs", "output", "condition"},
}
"""Arguments that come from the model and its wiring, not from a preset."""
WITHOUT_STILLS = "stc_videollama2_v35/"
"""The preset that needs several frames."""
WITHOUT_GRADIENT = ("k_proj.bias", "key.bias")
"""Softmax is invariant to what is added to all keys."""
LAST_TEXT_LAYER = ("layer.1.intermediate.", "layer.1.output.")
"""A Q-Former with text returns its queries only: the last layer's result for the text is not used."""
BASES: dict[str, type[nn.Module]] = {"encoder": Encoder, "projector": Projector, "fusion": Fusion}


def list_sizes(preset: Path) -> set[str]:
    """Return the sizes with an overlay, of a preset or of one that it extends."""
    sizes = {path.stem for path in preset.with_suffix("").glob("*.yaml")}
    config = OmegaConf.load(preset)
    for base in config.get("defaults") or ():
        if isinstance(base, str) and base != "_self_":
            sizes |= list_sizes(preset.with_name(f"{base}.yaml"))
    return sizes


def list_presets(group: str) -> list[str]:
    """List every preset of a group with its sizes: ``siglip/nano``, ``siglip/0_5b``, ``siglip/7b``, ``mlp/nano``."""
    names = []
    for preset in (Path(config_dir()) / group).glob("*.yaml"):
        sizes = list_sizes(preset)
        if sizes:
            sizes.add("7b")  # the preset itself
        names += [f"{preset.stem}/{size}" for size in sizes | {"nano"}]
    return sorted(names)


def is_real_size(group: str, name: str) -> bool:
    """Return whether a preset is too large to run here; such presets are built on the meta device."""
    return not name.endswith("/nano") and (group == "encoder" or name.startswith("qformer"))


def compose_preset(group: str, name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose ``siglip/7b``."""
    preset, _, size = name.partition("/")
    return compose_part(group, preset, overrides, size)


def list_parts(is_real: bool, groups: Sequence[str] = tuple(BASES)) -> list[tuple[str, str]]:
    """List group and preset of the parts of groups, either in real or in nano size."""
    parts = []
    for group in groups:
        parts += [(group, name) for name in list_presets(group) if is_real_size(group, name) == is_real]
    return parts


NANO, REAL_SIZE = list_parts(is_real=False), list_parts(is_real=True)
every_yaml = pytest.mark.parametrize(("group", "name"), sorted(NANO + REAL_SIZE))
every_part = pytest.mark.parametrize(("group", "name"), NANO)
AUTOCAST = [part if part[0] != "encoder" else pytest.param(*part, marks=pytest.mark.slow) for part in NANO]
"""Parts whose autocast is tested every time; encoders take a second each."""
every_encoder = pytest.mark.parametrize(("group", "name"), list_parts(is_real=False, groups=["encoder"]))


def compose_node(group: str, name: str) -> dict[str, Any]:
    """Compose a preset; a fusion's with the wiring that the fusion declares."""
    overrides = ["+random_weights=true"] if is_real_size(group, name) else []
    node = OmegaConf.to_container(compose_preset(group, name, overrides), resolve=True)
    assert isinstance(node, dict)
    config = {str(key): value for key, value in node.items()}
    if group == "fusion":
        config |= derive_wiring(get_class(config["_target_"]))
    return config


def derive_wiring(fusion: type[Fusion]) -> dict[str, Any]:
    """Return wiring with as many inputs as the fusion takes, three at most, and a condition where it needs one."""
    names = ["face", "video", "body"][: fusion.max_inputs or 3]
    condition = None
    if fusion.condition_use == "required":
        condition = "video" if fusion.aligned_condition else "instruction"
    return {"inputs": names, "output": "merged", "condition": condition}


def build_part(group: str, name: str) -> Any:
    """Build a new part in eval mode."""
    torch.manual_seed(0)
    part = build(compose_node(group, name))
    if group == "projector":
        part = part(in_dim=IN_DIM, out_dim=OUT_DIM)
    if group == "fusion":
        dims = {"instruction": IN_DIM, "video": IN_DIM}
        part = part(dims=dims | dict.fromkeys(part.keywords["inputs"], Width(OUT_DIM, tuple(LEVELS))))
    return part.eval()


shared_part = cache(build_part)
"""For tests that do not change the part."""


def compute_amount(encoder: Encoder, length: int) -> int:
    """Return the amount for a length: frames, audio samples (not in whole tokens) or token ids."""
    match encoder.sample_fields[0]:
        case "instruction":
            return len(encoder.transform(draw_field(encoder, length, torch.Generator())))
        case "waveform":
            return max(0, 960 * length - 7)
    return length


def draw_field(encoder: Encoder, length: int, random: torch.Generator) -> Any:
    match encoder.sample_fields[0]:
        case "instruction":
            return " ".join(["what", "does", "the", "person", "feel", "or", "do", "here"][:length])
        case "waveform":
            return torch.rand(compute_amount(encoder, length), generator=random) - 0.5
        case field if not BY_FIELD[field].is_image:
            return torch.rand(length, *BY_FIELD[field].shape[1:], generator=random)
    return torch.randint(0, 256, (length, 3, 20, 30), dtype=torch.uint8, generator=random)


def draw_signal(encoder: Encoder, lengths: Sequence[int], padding_seed: int, padding: int = 0) -> Signal:
    """Draw a signal with ``padding`` more time steps than needed, whose values are drawn from another seed."""
    random, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(padding_seed)
    blank = encoder.transform(draw_field(encoder, 8, random))[:0]
    samples = []
    for length in lengths:
        sample = blank
        if length:
            sample = encoder.transform(draw_field(encoder, length, random))
        samples.append(sample)
    longest = max(1, *map(len, samples)) + padding
    values = pad_sequence([*samples, blank.new_zeros(longest, *blank.shape[1:])], batch_first=True)[:-1].clone()
    mask = torch.arange(longest) < torch.tensor([len(sample) for sample in samples])[:, None]
    noise = torch.randint(0, 200, values.shape, generator=other).to(values.dtype)
    values[~mask] = noise[~mask]
    return Signal(values, mask)


def draw_features(
    width: int,
    lengths: Sequence[int],
    padding_seed: int,
    padding: int = 0,
    seed: int = 1,
    grid: tuple[int, int] = GRID,
) -> Features:
    """Draw tokens on a grid; values outside the mask are drawn from ``padding_seed``."""
    size = (len(lengths), max(*lengths, 1) + padding, grid[0] * grid[1], width)
    tokens = torch.zeros(size)
    for sample, length in enumerate(lengths):
        random = torch.Generator().manual_seed(10 * seed + length)
        tokens[sample, :length] = torch.randn(length, *size[2:], generator=random)
    mask = torch.arange(size[1]) < torch.tensor(lengths)[:, None]
    noise = 100 * torch.randn(size, generator=torch.Generator().manual_seed(padding_seed))
    return Features.of(torch.where(mask[..., None, None], tokens, noise), mask, grid)


def draw_features_with_levels(
    width: int, lengths: Sequence[int], padding_seed: int, padding: int, seed: int
) -> Features:
    """Draw tokens on a grid, with levels."""
    levels = []
    for dim, grid in LEVELS.items():
        levels.append(draw_features(dim, lengths, padding_seed, padding, seed + dim, grid))
    return replace(draw_features(width, lengths, padding_seed, padding, seed), levels=tuple(levels))


def run(part: nn.Module, lengths: Sequence[int] = LENGTHS, padding_seed: int = 2, padding: int = 0) -> Features:
    if isinstance(part, Encoder):
        encoded: Features = part(draw_signal(part, lengths, padding_seed, padding))
        return encoded
    if isinstance(part, Projector):
        kwargs = {}
        if part.condition_dim is not None:
            kwargs["condition"] = draw_condition(part.condition_dim, lengths, padding_seed)
        projected: Features = part(draw_features(IN_DIM, lengths, padding_seed, padding), **kwargs)
        return projected
    assert isinstance(part, Fusion)
    streams = {"video": draw_features(IN_DIM, lengths, padding_seed, padding, seed=8)}
    for seed, name in enumerate(part.inputs):
        streams[name] = draw_features_with_levels(OUT_DIM, lengths, padding_seed, padding, seed)
    streams["instruction"] = draw_condition(IN_DIM, lengths, padding_seed)
    merged: Features = part(streams)[part.output]
    return merged


def draw_condition(width: int, lengths: Sequence[int], padding_seed: int) -> Features:
    """Draw one token per sample; none for a sample without a stream, so that the mask alone decides."""
    features = draw_features(width, lengths, padding_seed, seed=9)
    tokens = features.tokens[:, :1, :1]
    if width == 1:
        tokens = tokens.abs()  # token ids are not negative
    return Features.of(tokens, features.mask[:, :1, 0])


def count_layout_tokens(part: nn.Module, length: int) -> int:
    """Return the number of tokens in the layout."""
    if not length:
        return 0
    if isinstance(part, Encoder):
        return part.layout(compute_amount(part, length)).num_tokens
    levels = tuple(Layout(length, grid[0] * grid[1], grid) for grid in LEVELS.values())
    stream = Layout(length, GRID[0] * GRID[1], GRID, levels)
    if isinstance(part, Projector):
        return part.layout(stream).num_tokens
    assert isinstance(part, Fusion)
    return part.layout([stream] * len(part.inputs)).num_tokens


@every_yaml
def test_keys_of_the_yaml_are_arguments_of_the_class(group: str, name: str) -> None:
    config = compose_node(group, name)
    target = get_class(config["_target_"])
    assert issubclass(target, BASES[group])
    parameters = inspect.signature(target).parameters
    keys = {key for key in config if not key.startswith("_")}
    assert keys <= set(parameters)
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required <= keys | FROM_MODEL[group]
    assert bool(config.get("_partial_")) == (group != "encoder")


@every_yaml
def test_yaml_has_no_widths_and_no_wiring(group: str, name: str) -> None:
    config = compose_preset(group, name, ["+random_weights=true"])
    assert not set(config) & FROM_MODEL[group]


@pytest.mark.parametrize(("group", "name"), REAL_SIZE)
def test_real_size_builds_on_the_meta_device(group: str, name: str) -> None:
    with torch.device("meta"):
        part = build_part(group, name)
    if group == "encoder":
        config = compose_node(group, name)
        widths = [config[key] for key in ("hidden_size", "d_model", "dim") if key in config]
        assert part.out_dim == (widths or [1])[0]
    assert all(parameter.is_meta for parameter in part.parameters())


@every_part
def test_output_has_the_declared_width_and_grid(group: str, name: str) -> None:
    part = shared_part(group, name)
    features = run(part)
    assert features.tokens.shape[:-1] == features.mask.shape
    assert features.tokens.shape[-1] == part.out_dim
    if group != "encoder":
        assert part.out_dim == OUT_DIM
    if features.grid is not None:
        assert features.grid[0] * features.grid[1] == features.tokens.shape[2]


@every_part
def test_number_of_tokens_equals_the_layout(group: str, name: str) -> None:
    part = shared_part(group, name)
    lengths = [length for length in LENGTHS if length != 1 or not name.startswith(WITHOUT_STILLS)]
    counts = run(part, lengths).mask.flatten(1).sum(dim=1).tolist()
    assert counts == [count_layout_tokens(part, length) for length in lengths]


@every_encoder
def test_widths_and_token_counts_of_levels_equal_the_layout(group: str, name: str) -> None:
    part = shared_part(group, name)
    features = run(part)
    assert tuple(level.tokens.shape[-1] for level in features.levels) == part.level_dims
    layouts = part.layout(compute_amount(part, 8)).levels
    assert [int(level.mask[-1].sum()) for level in features.levels] == [layout.num_tokens for layout in layouts]


@every_part
def test_single_time_step_is_encoded_or_raises(group: str, name: str) -> None:
    part = shared_part(group, name)
    if name.startswith(WITHOUT_STILLS):
        with pytest.raises(ValueError, match=r"\b2 frames.* 1\b"):
            run(part, (1, 1))
        with pytest.raises(ValueError, match=r"\b2 frames.* 1\b"):
            count_layout_tokens(part, 1)
        return
    features = run(part, (1,))
    assert features.mask.any() and features.tokens.isfinite().all()


@every_part
def test_eval_is_deterministic(group: str, name: str) -> None:
    part = shared_part(group, name)
    assert torch.equal(run(part).tokens, run(part).tokens)


@every_part
def test_values_outside_the_mask_change_nothing(group: str, name: str) -> None:
    part = shared_part(group, name)
    first, second = run(part, padding_seed=2), run(part, padding_seed=3)
    assert torch.equal(first.mask, second.mask)
    assert first.tokens.isfinite().all() and second.tokens.isfinite().all()
    torch.testing.assert_close(first.tokens[first.mask], second.tokens[second.mask], rtol=0, atol=1e-5)


@every_part
def test_more_padding_changes_nothing(group: str, name: str) -> None:
    part = shared_part(group, name)
    first, second = run(part), run(part, padding=12)
    torch.testing.assert_close(first.tokens[first.mask], second.tokens[second.mask], rtol=1e-4, atol=1e-5)


@every_part
def test_samples_are_independent(group: str, name: str) -> None:
    """A sample has the same tokens alone and in a batch."""
    part = shared_part(group, name)
    # the first sample, so that the same signal is drawn for it
    alone, batched = run(part, (5,)), run(part, (5, 8, 0))
    assert alone.mask.all() and batched.mask[0].sum() == alone.mask.sum()
    torch.testing.assert_close(batched.tokens[0][batched.mask[0]], alone.tokens[alone.mask], rtol=1e-4, atol=1e-5)


@every_part
def test_gradients_reach_all_parameters(group: str, name: str) -> None:
    part = build_part(group, name)
    if not any(parameter.requires_grad for parameter in part.parameters()):
        assert group == "fusion" or isinstance(part, TokenIds), "an encoder or projector has parameters"
        return
    features = run(part)
    weights = torch.randn(features.tokens.shape, generator=torch.Generator().manual_seed(4))
    loss = (features.tokens * weights)[features.mask].sum()
    for level in features.levels:
        loss = loss + level.tokens[level.mask].square().sum()
    loss.backward()
    for key, parameter in part.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            is_unused = name.startswith("qformer_favchat_text") and any(layer in key for layer in LAST_TEXT_LAYER)
            assert parameter.grad.any() or is_unused or key.endswith(WITHOUT_GRADIENT), key


@every_part
def test_gradients_are_zero_without_input(group: str, name: str) -> None:
    """Every parameter has a gradient, zero and not None, also on a rank whose samples lack the modality."""
    part = build_part(group, name)
    features = run(part, (0, 0))
    assert not features.mask.any() and features.tokens.isfinite().all()
    trainable = [parameter for parameter in part.parameters() if parameter.requires_grad]
    if not trainable:
        return
    features.tokens.sum().backward()
    gradients = [parameter.grad for parameter in trainable]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if group == "encoder":
        assert not any(gradient.any() for gradient in gradients if isinstance(gradient, Tensor))


@every_part
def test_output_of_a_frozen_part_needs_no_gradient(group: str, name: str) -> None:
    part = build_part(group, name).requires_grad_(False)
    assert not run(part).tokens.requires_grad


@pytest.mark.parametrize(("group", "name"), AUTOCAST)
def test_error_in_bf16_autocast_is_small(group: str, name: str) -> None:
    part = build_part(group, name)
    exact = run(part)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(part)
    assert rounded.tokens.isfinite().all()
    scale = exact.tokens[exact.mask].std()
    error = (rounded.tokens.float() - exact.tokens)[exact.mask].square().mean().sqrt()
    assert error < 0.05 * scale
    if rounded.tokens.requires_grad:
        rounded.tokens.float()[rounded.mask].sum().backward()
