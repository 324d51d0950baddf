"""A converted HumanOmni gives the embeddings and the loss that a plain restatement makes of the official state dict."""

import json
import shutil
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperModel,
)

from omnihuman.evaluation.official import as_released
from omnihuman.model.omni import OmniModel
from omnihuman.release.convert import Request, convert
from omnihuman.training.finished import filled, read_config
from omnihuman.types import Batch, Signal

from .restated import AUDIO, EARS, IGNORED, TOWER, VIDEO, Restated

ATOL = 1e-5
KEYS = Path(__file__).parents[1] / "convert" / "humanomni_7b_keys.tsv"
DIM, PATCHES, BINS, VOCABULARY = 32, 16, 80, 320
WIDTHS = {3584: DIM, 1152: PATCHES, 288: PATCHES // 4, 896: DIM // 4, 1280: 24, 768: 20, 256: 8}
HEADS = {"siglip": 2, "whisper": 3, "bert": 5}
QWEN = {
    "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
}  # fmt: skip


@dataclass
class Sample:
    """One sample as the official model takes it."""

    ids: Tensor
    labels: Tensor
    words: Tensor
    frames: Tensor | None = None
    mel: Tensor | None = None


def drawn(shape: Sequence[int], key: str, random: torch.Generator) -> Tensor:
    """Weights that keep signals near 1, and norms and biases of which each counts."""
    if len(shape) == 1:
        return torch.randn(shape, generator=random) * 0.3 + float("norm" in key.lower() or ".bn.weight" in key)
    return torch.randn(shape, generator=random) / prod(shape[1:]) ** 0.5


def saved(model: nn.Module, folder: Path, random: torch.Generator) -> dict[str, Tensor]:
    """A model of transformers with drawn weights, in a folder."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" not in key:
                parameter.copy_(drawn(parameter.shape, key, random))
    model.save_pretrained(folder)  # type: ignore[operator]
    return model.state_dict()


def official(root: Path, small: bool, tokenizer: str) -> Restated:
    """An official checkpoint ``root/model`` with its towers beside it, and what it should compute."""
    random = torch.Generator().manual_seed(int(small))
    vision = {
        "hidden_size": PATCHES, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": HEADS["siglip"],
        "patch_size": 14, "image_size": 56 if small else 70,
    }  # fmt: skip
    sound = {
        "d_model": WIDTHS[1280], "encoder_layers": 2, "encoder_attention_heads": HEADS["whisper"], "decoder_layers": 1,
        "encoder_ffn_dim": 40, "decoder_ffn_dim": 8, "num_mel_bins": BINS, "vocab_size": 9, "pad_token_id": 1,
        "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1,
    }  # fmt: skip
    reader = {
        "hidden_size": WIDTHS[768], "num_hidden_layers": 2, "num_attention_heads": HEADS["bert"],
        "intermediate_size": 40, "vocab_size": VOCABULARY,
    }  # fmt: skip
    llm = Qwen2ForCausalLM(Qwen2Config(**QWEN, tie_word_embeddings=small))
    eyes = saved(SiglipVisionModel(SiglipVisionConfig(**vision)), root / "siglip", random)
    ears = saved(WhisperModel(WhisperConfig(**sound)), root / "whisper", random)
    words = saved(BertModel(BertConfig(**reader)), root / "bert", random)
    shutil.copytree(tokenizer, root / "bert", dirs_exist_ok=True, ignore=shutil.ignore_patterns("config.json"))
    state = {f"model.bert_model.{key}": tensor for key, tensor in words.items()}
    state |= saved(llm, root / "llm", random)
    for line in KEYS.read_text().splitlines():
        key, shape = line.split("\t")
        if key.startswith(("model.mm_projector", "model.audio_projector", "model.bert_gate", "model.feature_")):
            if small and (".b3." in key or ".b4." in key or "feature_compressor" in key):
                continue
            sizes = [
                size if "bert_gate" in key and size == 3584 else WIDTHS.get(size, size) for size in literal_eval(shape)
            ]
            state[key] = drawn(sizes, key, random)
    if small:
        del state["lm_head.weight"]  # tied
    config = QWEN | {
        "model_type": "HumanOmni_qwen2", "rope_theta": 1000000.0, "tie_word_embeddings": small, "hidden_act": "silu",
        "mm_vision_tower": str(root / "siglip"), "mm_hidden_size": PATCHES, "mm_vision_select_layer": -2,
        "mm_projector_type": "all_in_one_small" if small else "all_in_one", "mm_vision_select_feature": "patch",
        "mm_audio_tower": str(root / "whisper"), "mm_audio_projector_type": "mlp2x_gelu",
        "audio_hidden_size": WIDTHS[1280], "num_frames": 4 if small else 8, "mm_use_x_start_end": True,
    }  # fmt: skip
    shutil.copytree(tokenizer, root / "model")
    (root / "model" / "config.json").write_text(json.dumps(config))
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, root / "model" / "model.safetensors")
    state |= {f"{TOWER}.{key}": tensor for key, tensor in eyes.items()}
    prefix = "encoder."
    state |= {f"{EARS}.{key[len(prefix) :]}": tensor for key, tensor in ears.items() if key.startswith(prefix)}
    return Restated(state, config, HEADS, small)


def samples(small: bool) -> dict[str, Sample]:
    """One with video and sound, one with video alone, one with sound alone; answers of different lengths."""
    random = torch.Generator().manual_seed(7)
    made = {}
    for number, (name, media) in enumerate({"both": [VIDEO, AUDIO], "video": [VIDEO], "audio": [AUDIO]}.items()):
        text = torch.randint(9, VOCABULARY, (12 + 3 * number,), generator=random)
        ids = torch.cat([text[:3], *[torch.tensor([slot, 20 + number]) for slot in media], text[3:]])
        labels = ids.where(torch.arange(len(ids)) >= len(ids) - 4 - number, torch.tensor(IGNORED))
        frames = torch.randint(0, 256, (4, 3, 56, 56) if small else (8, 3, 70, 70), dtype=torch.uint8, generator=random)
        mel = torch.randn(BINS, 3000, generator=random) * 0.5
        words = torch.randint(9, VOCABULARY, (5 + 2 * number,), generator=random)
        made[name] = Sample(ids, labels, words, frames if VIDEO in media else None, mel if AUDIO in media else None)
    return made


def packed(model: OmniModel, given: Sequence[Sample]) -> Batch:
    """The same samples as one packed row of ours, each slot as long as its tokens."""

    def signal(values: list[Tensor | None]) -> Signal:
        longest = max((len(value) for value in values if value is not None), default=1)
        like = next(value for value in values if value is not None)
        rows, mask = like.new_zeros(len(values), longest, *like.shape[1:]), torch.zeros(len(values), longest)
        for row, value in enumerate(values):
            if value is not None:
                rows[row, : len(value)], mask[row, : len(value)] = value, 1
        return Signal(rows, mask.bool())

    ids, labels, bounds = list[int](), list[int](), [0]
    for sample in given:
        seen = {"frames": len(sample.frames)} if sample.frames is not None else {}
        counts = model.layouts(seen | ({"waveform": 480_000} if sample.mel is not None else {}))
        for token, label in zip(sample.ids.tolist(), sample.labels.tolist(), strict=True):
            times = {VIDEO: counts["video"], AUDIO: counts["audio"]}.get(token, 1)
            ids, labels = ids + [token] * times, labels + [label] * times
        bounds.append(len(ids))
    signals = {"instruction": signal([sample.words for sample in given])}
    if any(sample.frames is not None for sample in given):
        signals["video"] = signal([sample.frames for sample in given])
    if any(sample.mel is not None for sample in given):
        signals["audio"] = signal([None if sample.mel is None else sample.mel.T for sample in given])
    lengths = torch.tensor(bounds).diff()
    positions = torch.cat([torch.arange(length) for length in lengths])
    side = model.encoders["video"].transform.size
    for name, shape in (("video", (1, 3, side, side)), ("audio", (6, BINS))):
        nothing = torch.zeros(len(given), *shape), torch.zeros(len(given), shape[0], dtype=torch.bool)
        signals.setdefault(name, Signal(*nothing))
    return Batch(signals, torch.tensor([ids]), torch.tensor([labels]), positions[None], torch.tensor(bounds), 1)


def ours(model: OmniModel, given: Sequence[Sample]) -> tuple[list[Tensor], Tensor, Tensor]:
    """What reaches the language model, sample by sample; the mean loss; the weights of the branches."""
    caught: list[Tensor] = []
    hook = model.llm.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    batch = packed(model, given)
    out = model(batch)
    hook.remove()
    return list(caught[0][0].split(batch.bounds.diff().tolist())), out.loss / out.targets, model.weighed()["gate"]


Pair = tuple[OmniModel, Restated, dict[str, Sample]]


@pytest.fixture(scope="module", params=[False, True], ids=["7B form", "0.5B form"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Pair:
    root = tmp_path_factory.mktemp("official")
    restated = official(root, request.param, tokenizer_folder)
    towers = {"vision_tower": "siglip", "audio_tower": "whisper", "instruction_encoder": "bert"}
    options = {key: str(root / name) for key, name in towers.items()}
    folder = convert(Request("humanomni", str(root / "model"), root / "ours", options))
    config = as_released(read_config(folder))
    model, _ = filled(config.model, folder / "weights.safetensors")
    return model.eval().requires_grad_(False), restated, samples(request.param)


def apart(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


def spliced(restated: Restated, sample: Sample) -> tuple[Tensor, Tensor]:
    return restated.spliced(sample.ids, sample.labels, sample.frames, sample.mel, sample.words)


@torch.no_grad()
@pytest.mark.parametrize("names", [["both"], ["video"], ["audio"], ["both", "video", "audio"]], ids="+".join)
def test_embeddings_and_loss(pair: Pair, names: list[str]) -> None:
    model, restated, every = pair
    given = [every[name] for name in names]
    made, loss, weights = ours(model, given)
    restated.weights.clear()
    plain = [spliced(restated, sample) for sample in given]
    for ours_of, (theirs, _) in zip(made, plain, strict=True):
        assert theirs.std() > 0.1, "the values are large enough for the bound to say something"
        assert apart(ours_of, theirs) < ATOL
    assert apart(loss, restated.loss(plain)) < ATOL
    seen = [row for row, sample in enumerate(given) if sample.frames is not None]
    if seen:
        assert apart(weights[seen], torch.stack(restated.weights)) < ATOL


@torch.no_grad()
def test_tokens_are_the_official_ones(pair: Pair) -> None:
    model, restated, every = pair
    frames, grid = restated.config["num_frames"], 2 if restated.small else 3
    slow = 0 if restated.small else len(range(1, frames, 4)) * grid**2
    fast = frames * (grid**2 if restated.small else (grid // 2) ** 2)
    assert len(restated.seen(every["both"].frames, every["both"].words)) == fast + slow
    assert model.layouts({"frames": frames, "waveform": 1000}) == {"video": fast + slow, "audio": 500}


@torch.no_grad()
@pytest.mark.parametrize(
    "wrong", ["branches swapped", "last hidden state", "first moment cut", "nearest pool", "slow first"]
)
def test_what_is_wrong_shows(pair: Pair, wrong: str) -> None:
    model, restated, every = pair
    if restated.small and wrong == "slow first":
        pytest.skip("no compressor")
    other = Restated(restated.state, restated.config, restated.heads, restated.small, wrong)
    made, loss, _ = ours(model, [every["both"]])
    plain = spliced(other, every["both"])
    assert apart(made[0], plain[0]) > 1000 * ATOL
    assert apart(loss, other.loss([plain])) > 3 * ATOL
