"""A converted HumanOmni has the embeddings and the loss of a plain reference on the official state dict."""

import json
import shutil
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

from omnihuman.inference.prompting import choose_prompting
from omnihuman.model.omni import OmniModel
from omnihuman.official.conversion import Request, convert
from omnihuman.training.model_folder import build_with_weights
from omnihuman.training.run_search import read_config
from omnihuman.types import Batch, Signal

from .reference_humanomni import AUDIO, AUDIO_TOWER, IGNORE_INDEX, VIDEO, VISION_TOWER, ReferenceHumanOmni

ATOL = 1e-5
KEYS = Path(__file__).parents[1] / "official" / "humanomni" / "7b_keys.tsv"
DIM, VISION_DIM, AUDIO_DIM, TEXT_DIM, NUM_BINS, VOCABULARY = 32, 16, 24, 20, 80, 320
WIDTHS = {3584: DIM, 1152: VISION_DIM, 288: VISION_DIM // 4, 896: DIM // 4, 1280: AUDIO_DIM, 768: TEXT_DIM, 256: 8}
"""Size in the released model -> size in this test."""

HEADS = {"siglip": 2, "whisper": 3, "bert": 5}
QWEN = {
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}


@dataclass
class Sample:
    """The inputs of the official model for one sample."""

    ids: Tensor
    labels: Tensor
    instruction: Tensor
    frames: Tensor | None = None
    mel: Tensor | None = None


def draw_weight(shape: Sequence[int], key: str, random: torch.Generator) -> Tensor:
    """Draw weights that keep signals near 1, and norms and biases that change the output."""
    if len(shape) == 1:
        return torch.randn(shape, generator=random) * 0.3 + float("norm" in key.lower() or ".bn.weight" in key)
    return torch.randn(shape, generator=random) / prod(shape[1:]) ** 0.5


def write_model(model: nn.Module, folder: Path, random: torch.Generator) -> dict[str, Tensor]:
    """Write a model of transformers with random weights, and return its state."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" not in key:
                parameter.copy_(draw_weight(parameter.shape, key, random))
    model.save_pretrained(folder)  # type: ignore[operator]
    return model.state_dict()


def make_vision_model(is_small: bool) -> nn.Module:
    config = SiglipVisionConfig(
        hidden_size=VISION_DIM,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=HEADS["siglip"],
        patch_size=14,
        image_size=56 if is_small else 70,
    )
    return SiglipVisionModel(config)


def make_audio_model() -> nn.Module:
    config = WhisperConfig(
        d_model=AUDIO_DIM,
        encoder_layers=2,
        encoder_attention_heads=HEADS["whisper"],
        encoder_ffn_dim=40,
        decoder_layers=1,
        decoder_ffn_dim=8,
        num_mel_bins=NUM_BINS,
        vocab_size=9,
        pad_token_id=1,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
    )
    return WhisperModel(config)


def make_text_model() -> nn.Module:
    config = BertConfig(
        hidden_size=TEXT_DIM,
        num_hidden_layers=2,
        num_attention_heads=HEADS["bert"],
        intermediate_size=40,
        vocab_size=VOCABULARY,
    )
    return BertModel(config)


def draw_projectors(is_small: bool, random: torch.Generator) -> dict[str, Tensor]:
    """Draw projectors, gate and compressor with the keys of the released model, in the sizes of this test."""
    state = {}
    for line in KEYS.read_text().splitlines():
        key, released = line.split("\t")
        if not key.startswith(("model.mm_projector", "model.audio_projector", "model.bert_gate", "model.feature_")):
            continue
        if is_small and (".b3." in key or ".b4." in key or "feature_compressor" in key):
            continue
        shape = []
        for size in literal_eval(released):
            is_gate = "bert_gate" in key and size == 3584  # fixed in the official code
            shape.append(size if is_gate else WIDTHS.get(size, size))
        state[key] = draw_weight(shape, key, random)
    return state


def write_official(root: Path, is_small: bool, tokenizer: str) -> ReferenceHumanOmni:
    """Write an official checkpoint ``root/model`` with the folders of its towers, and return its reference."""
    random = torch.Generator().manual_seed(int(is_small))
    llm = Qwen2ForCausalLM(Qwen2Config(**QWEN, tie_word_embeddings=is_small))
    vision = write_model(make_vision_model(is_small), root / "siglip", random)
    audio = write_model(make_audio_model(), root / "whisper", random)
    text = write_model(make_text_model(), root / "bert", random)
    shutil.copytree(tokenizer, root / "bert", dirs_exist_ok=True, ignore=shutil.ignore_patterns("config.json"))
    state = {f"model.bert_model.{key}": tensor for key, tensor in text.items()}
    state |= write_model(llm, root / "llm", random)
    state |= draw_projectors(is_small, random)
    if is_small:
        del state["lm_head.weight"]  # tied
    projector_type, num_frames = ("all_in_one_small", 4) if is_small else ("all_in_one", 8)
    config = QWEN | {
        "model_type": "HumanOmni_qwen2",
        "rope_theta": 1000000.0,
        "tie_word_embeddings": is_small,
        "hidden_act": "silu",
        "mm_vision_tower": str(root / "siglip"),
        "mm_hidden_size": VISION_DIM,
        "mm_vision_select_layer": -2,
        "mm_projector_type": projector_type,
        "mm_vision_select_feature": "patch",
        "mm_audio_tower": str(root / "whisper"),
        "mm_audio_projector_type": "mlp2x_gelu",
        "audio_hidden_size": AUDIO_DIM,
        "num_frames": num_frames,
        "mm_use_x_start_end": True,
    }
    shutil.copytree(tokenizer, root / "model")
    (root / "model" / "config.json").write_text(json.dumps(config))
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, root / "model" / "model.safetensors")
    state |= {f"{VISION_TOWER}.{key}": tensor for key, tensor in vision.items()}
    for key, tensor in audio.items():
        if key.startswith("encoder."):
            state[f"{AUDIO_TOWER}.{key.removeprefix('encoder.')}"] = tensor
    return ReferenceHumanOmni(state, config, HEADS, is_small)


def draw_samples(is_small: bool) -> dict[str, Sample]:
    """Draw samples with video and audio, with video, and with audio; their answers have different lengths."""
    random = torch.Generator().manual_seed(7)
    shape = (4, 3, 56, 56) if is_small else (8, 3, 70, 70)
    samples = {}
    for number, (name, media) in enumerate({"both": [VIDEO, AUDIO], "video": [VIDEO], "audio": [AUDIO]}.items()):
        text = torch.randint(9, VOCABULARY, (12 + 3 * number,), generator=random)
        slots = [torch.tensor([slot, 20 + number]) for slot in media]
        ids = torch.cat([text[:3], *slots, text[3:]])
        labels = ids.where(torch.arange(len(ids)) >= len(ids) - 4 - number, torch.tensor(IGNORE_INDEX))
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        mel = torch.randn(NUM_BINS, 3000, generator=random) * 0.5
        instruction = torch.randint(9, VOCABULARY, (5 + 2 * number,), generator=random)
        samples[name] = Sample(ids, labels, instruction)
        if VIDEO in media:
            samples[name].frames = frames
        if AUDIO in media:
            samples[name].mel = mel
    return samples


def pad(values: Sequence[Tensor | None], default: Tensor) -> Signal:
    """Return the signal of a batch, padded in time; ``default`` has the shape of one time step."""
    longest = max((len(value) for value in values if value is not None), default=len(default))
    padded = default.new_zeros(len(values), longest, *default.shape[1:])
    mask = torch.zeros(len(values), longest, dtype=torch.bool)
    for index, value in enumerate(values):
        if value is not None:
            padded[index, : len(value)] = value
            mask[index, : len(value)] = True
    return Signal(padded, mask)


def make_batch(model: OmniModel, samples: Sequence[Sample]) -> Batch:
    """Return the samples as one packed sequence, with every slot as long as its tokens."""
    ids, labels, bounds = list[int](), list[int](), [0]
    for sample in samples:
        lengths = {}
        if sample.frames is not None:
            lengths["frames"] = len(sample.frames)
        if sample.mel is not None:
            lengths["waveform"] = 480_000
        counts = model.count_tokens(lengths)
        num_tokens = {VIDEO: counts["video"], AUDIO: counts["audio"]}
        for token, label in zip(sample.ids.tolist(), sample.labels.tolist(), strict=True):
            ids += [token] * num_tokens.get(token, 1)
            labels += [label] * num_tokens.get(token, 1)
        bounds.append(len(ids))
    side = model.encoders["video"].transform.size
    mels = [None if sample.mel is None else sample.mel.T for sample in samples]
    signals = {
        "instruction": pad([sample.instruction for sample in samples], torch.zeros(1, dtype=torch.long)),
        "video": pad([sample.frames for sample in samples], torch.zeros(1, 3, side, side, dtype=torch.uint8)),
        "audio": pad(mels, torch.zeros(6, NUM_BINS)),
    }
    positions = torch.cat([torch.arange(length) for length in torch.tensor(bounds).diff()])
    return Batch(signals, torch.tensor([ids]), torch.tensor([labels]), positions[None], tuple(bounds), 1)


def run_model(model: OmniModel, samples: Sequence[Sample]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the inputs of the language model by sample, the mean loss, and the weights of the branches."""
    inputs: list[Tensor] = []
    hook = model.llm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    batch = make_batch(model, samples)
    output = model(batch)
    hook.remove()
    embeddings = inputs[0][0].split(batch.lengths)
    return list(embeddings), output.loss / output.targets, model.last_fusion_weights()["gate"]


Pair = tuple[OmniModel, ReferenceHumanOmni, dict[str, Sample]]


@pytest.fixture(scope="module", params=[False, True], ids=["7B form", "0.5B form"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str) -> Pair:
    root = tmp_path_factory.mktemp("official")
    reference = write_official(root, request.param, tokenizer_folder)
    towers = {"vision_tower": "siglip", "audio_tower": "whisper", "instruction_encoder": "bert"}
    options = {key: str(root / name) for key, name in towers.items()}
    folder = convert(Request("humanomni", str(root / "model"), root / "converted", options))
    prompting = choose_prompting(folder, None)
    assert prompting is not None
    config = prompting.apply(read_config(folder))
    model, _ = build_with_weights(config.model, folder / "weights.safetensors")
    return model.eval().requires_grad_(False), reference, draw_samples(request.param)


def max_difference(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape
    return float((first - second).abs().max())


def splice(reference: ReferenceHumanOmni, sample: Sample) -> tuple[Tensor, Tensor]:
    return reference.splice(sample.ids, sample.labels, sample.frames, sample.mel, sample.instruction)


@torch.no_grad()
@pytest.mark.parametrize("names", [["both"], ["video"], ["audio"], ["both", "video", "audio"]], ids="+".join)
def test_embeddings_and_loss_equal_the_reference(pair: Pair, names: list[str]) -> None:
    model, reference, samples_by_name = pair
    samples = [samples_by_name[name] for name in names]
    embeddings, loss, weights = run_model(model, samples)
    reference.gate_weights.clear()
    expected = [splice(reference, sample) for sample in samples]
    for sample_embeddings, (expected_embeddings, _) in zip(embeddings, expected, strict=True):
        assert expected_embeddings.std() > 0.1, "the values are too small for the tolerance"
        assert max_difference(sample_embeddings, expected_embeddings) < ATOL
    assert max_difference(loss, reference.loss(expected)) < ATOL
    indices = [index for index, sample in enumerate(samples) if sample.frames is not None]
    if indices:
        assert max_difference(weights[indices], torch.stack(reference.gate_weights)) < ATOL


@torch.no_grad()
def test_number_of_tokens_equals_the_reference(pair: Pair) -> None:
    model, reference, samples = pair
    num_frames = reference.config["num_frames"]
    if reference.is_small:
        num_tokens = num_frames * 2**2
    else:
        num_tokens = num_frames * (3 // 2) ** 2 + len(range(1, num_frames, 4)) * 3**2
    both = samples["both"]
    assert both.frames is not None
    assert len(reference.encode_video(both.frames, both.instruction)) == num_tokens
    assert model.count_tokens({"frames": num_frames, "waveform": 1000}) == {"video": num_tokens, "audio": 500}


@torch.no_grad()
@pytest.mark.parametrize(
    "fault", ["branches swapped", "last hidden state", "first frame cut", "nearest pool", "slow first"]
)
def test_fault_in_the_reference_changes_the_loss(pair: Pair, fault: str) -> None:
    model, reference, samples = pair
    if reference.is_small and fault == "slow first":
        pytest.skip("no compressor")
    faulty = replace(reference, fault=fault)
    embeddings, loss, _ = run_model(model, [samples["both"]])
    expected = splice(faulty, samples["both"])
    assert max_difference(embeddings[0], expected[0]) > 1000 * ATOL
    assert max_difference(loss, faulty.loss([expected])) > 3 * ATOL
