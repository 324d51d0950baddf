"""A single model of the hub, FaceXFormer or UMT: our part with the converted weights gives the official output."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from omnihuman.build import compose_part
from omnihuman.encoder.bert import Bert
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.encoder.siglip import SigLIP
from omnihuman.encoder.umt import UMT
from omnihuman.encoder.whisper import Whisper
from omnihuman.llm.causal import CausalLM
from omnihuman.official.conversion import Request, convert
from omnihuman.types import Signal
from tests.official import layouts


def convert_model(source: str, path: Path, out: Path, **options: Any) -> Path:
    return convert(Request(source, str(path), out, options))


def make_frames(side: int, count: int = 2) -> Signal:
    values = torch.randint(0, 256, (1, count, 3, side, side), generator=torch.Generator().manual_seed(1))
    return Signal(values.to(torch.uint8), torch.ones(1, count, dtype=torch.bool))


def read_keys(folder: Path) -> dict[str, list[str]]:
    """Return status, and name or reason, of every official key."""
    keys = {}
    for line in (folder / "keys.tsv").read_text().splitlines()[1:]:
        _, key, *outcome = line.split("\t")
        keys[key] = outcome
    return keys


OTHER_SPELLINGS = {
    "whisper": {r"model\.": ""},
    "bert": {r"(.*LayerNorm)\.weight": r"\1.gamma", r"(.*LayerNorm)\.bias": r"\1.beta"},
}

BUFFERS = {
    "siglip": "vision_model.embeddings.position_ids",
    "bert": "bert.embeddings.position_ids",
    "qwen2": "model.layers.0.self_attn.rotary_emb.inv_freq",
}


def change_spelling(folder: Path, source: str) -> None:
    """Rename the tensors as transformers 4 or the owner does, and add a buffer of transformers 4."""
    layouts.rename_tensors(folder, OTHER_SPELLINGS.get(source, {}))
    state = load_file(folder / "model.safetensors")
    if source in BUFFERS:
        state[BUFFERS[source]] = torch.arange(3)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("other_spelling", [False, True])
@pytest.mark.parametrize("layer", [-1, -2])
def test_siglip(tmp_path: Path, layer: int, other_spelling: bool) -> None:
    official = layouts.write_tower(tmp_path / "official", "siglip")
    if other_spelling:
        change_spelling(tmp_path / "official", "siglip")
    out = convert_model("siglip", tmp_path / "official", tmp_path / "out")
    encoder = SigLIP(**layouts.VISION, weights=str(out), select_layer=layer)
    signal = make_frames(42)
    with torch.no_grad():
        pixels = signal.values[0] / 127.5 - 1
        expected = official.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[layer]
        torch.testing.assert_close(encoder(signal).tokens[0], expected, rtol=0, atol=1e-6)
    assert ["dropped", "the text tower"] in read_keys(out).values()
    assert json.loads((out / "config.json").read_text())["model_type"] == "siglip_vision_model"


@pytest.mark.parametrize("other_spelling", [False, True])
def test_whisper(tmp_path: Path, other_spelling: bool) -> None:
    official = layouts.write_tower(tmp_path / "official", "whisper")
    if other_spelling:
        change_spelling(tmp_path / "official", "whisper")
    out = convert_model("whisper", tmp_path / "official", tmp_path / "out")
    sizes = ("num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    encoder = Whisper(**{key: layouts.AUDIO[key] for key in sizes}, weights=str(out), keep="window")
    mel = torch.randn(1, 3000, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        state = official.model.encoder(mel.transpose(1, 2)).last_hidden_state
        expected = F.avg_pool1d(state.transpose(1, 2), 3, 3).transpose(1, 2)
        tokens = encoder(Signal(mel, torch.ones(1, 3000, dtype=torch.bool))).tokens[:, :, 0]
        torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-6)
    for key, (status, _) in read_keys(out).items():
        assert status == "dropped" or "decoder" not in key


@pytest.mark.parametrize("other_spelling", [False, True])
def test_bert(tmp_path: Path, tokenizer_folder: str, other_spelling: bool) -> None:
    official = layouts.write_tower(tmp_path / "official", "bert")
    shutil.copytree(tokenizer_folder, tmp_path / "official", dirs_exist_ok=True)
    if other_spelling:
        change_spelling(tmp_path / "official", "bert")
    out = convert_model("bert", tmp_path / "official", tmp_path / "out")
    sizes = {key: value for key, value in layouts.BERT.items() if key != "vocab_size"}
    encoder = Bert(**sizes, weights=str(out), tokenizer=str(out / "tokenizer"))
    ids = encoder.transform("happy or sad?")
    with torch.no_grad():
        expected = official.bert(input_ids=ids[None]).last_hidden_state[:, 0]
        token = encoder(Signal(ids[None], torch.ones(1, len(ids), dtype=torch.bool))).tokens[:, 0, 0]
    torch.testing.assert_close(token, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", ["qwen2", "mistral"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_language_models(tmp_path: Path, tokenizer_folder: str, source: str, is_tied: bool) -> None:
    official = layouts.write_tower(tmp_path / "official", source, tie_word_embeddings=is_tied)
    shutil.copytree(tokenizer_folder, tmp_path / "official", dirs_exist_ok=True)
    change_spelling(tmp_path / "official", source)
    out = convert_model(source, tmp_path / "official", tmp_path / "out")
    llm = CausalLM(str(out / "tokenizer"), template=compose_part("llm/template", "chatml"), weights=str(out))
    ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = official(input_ids=ids, labels=ids).loss * 19
        log_probs, _ = llm(llm.embed(ids), ids, torch.arange(20)[None], (0, 20))
        loss = -log_probs.sum()
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    assert ("lm_head.weight" in load_file(out / "model.safetensors")) is not is_tied


def test_facexformer(tmp_path: Path) -> None:
    official = layouts.write_facexformer(tmp_path / "official")
    out = convert_model("facexformer", tmp_path / "official", tmp_path / "out")
    encoder = FaceXFormer(**layouts.FACE, image_size=32, weights=str(out))
    with torch.no_grad():
        assert torch.equal(encoder(make_frames(32)).tokens, official(make_frames(32)).tokens)
    assert json.loads((out / "config.json").read_text()) == layouts.FACE
    file = convert_model("facexformer", tmp_path / "official/ckpts/model.pt", tmp_path / "file")
    assert (file / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def assert_same_umt(out: Path, official: UMT, has_norm: bool) -> None:
    """Check that the converted encoder is the official one below its last block."""
    encoder = UMT(**layouts.UMT_L, image_size=32, weights=str(out))
    expected = UMT(**layouts.UMT_L, image_size=32)
    state = expected.state_dict()
    for name, tensor in official.state_dict().items():
        if name in state and (has_norm or not name.startswith("vision_layernorm.")):
            state[name] = tensor
    expected.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(encoder(make_frames(32)).tokens, expected(make_frames(32)).tokens)
    assert json.loads((out / "config.json").read_text()) == layouts.UMT_L | {"table_frames": 4, "table_side": 14}


def test_umt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """UMT's own file has all blocks and no norm after the encoder."""
    file = tmp_path / "l16_25m.pth"
    official = layouts.write_umt(file)
    out = convert_model("umt", file, tmp_path / "out")
    assert "is initialized with 1 and 0" in capsys.readouterr().out
    assert_same_umt(out, official, has_norm=False)


@pytest.mark.parametrize("stage", [2, 3])
def test_umt_of_videochat2(tmp_path: Path, stage: Literal[2, 3]) -> None:
    """VideoChat2's file has the blocks below the last one, and other parts."""
    file = tmp_path / "l16_25m.pth"
    official, _ = layouts.write_videochat2(file, stage)
    out = convert_model("umt", file, tmp_path / "out")
    assert_same_umt(out, official, has_norm=True)
    outcomes = [outcome for key, outcome in read_keys(out).items() if "qformer" in key or "lora" in key]
    assert outcomes
    for outcome in outcomes:
        assert outcome == ["dropped", "another part: official=videochat2 reads it"]


def test_model_of_another_kind_raises(tmp_path: Path) -> None:
    layouts.write_tower(tmp_path / "official", "mistral")
    message = r"model_type 'mistral'; official=qwen2 .*'qwen2': .*official=mistral\b"
    with pytest.raises(ValueError, match=message):
        convert_model("qwen2", tmp_path / "official", tmp_path / "out")
    (tmp_path / "official/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"model_type 'gpt2'; official=qwen2 .*'qwen2'"):
        convert_model("qwen2", tmp_path / "official", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_unexpected_tensors_raise(tmp_path: Path) -> None:
    layouts.write_tower(tmp_path / "official", "siglip")
    file = tmp_path / "official/model.safetensors"
    complete = load_file(file)
    save_file({key: x for key, x in complete.items() if "vision_model.encoder.layers.1.mlp.fc1" not in key}, file)
    with pytest.raises(ValueError, match=r"\b2 parameters .*missing.*\['encoder\.layers\.1\.mlp\.fc1\.bias'"):
        convert_model("siglip", tmp_path / "official", tmp_path / "out")
    save_file(complete | {"vision_model.post_layernorm.bias": torch.ones(8)}, file)
    message = r"post_layernorm\.bias is \[8\], post_layernorm\.bias .* is \[16\]"
    with pytest.raises(ValueError, match=message):
        convert_model("siglip", tmp_path / "official", tmp_path / "out")
    save_file(complete | {"vision_model.adapter.weight": torch.ones(8)}, file)
    with pytest.raises(ValueError, match=r"\bsiglip\b.*'vision_model\.adapter\.weight'"):
        convert_model("siglip", tmp_path / "official", tmp_path / "out")


def test_incomplete_facexformer_raises(tmp_path: Path) -> None:
    layouts.write_facexformer(tmp_path)
    file = tmp_path / "ckpts/model.pt"
    state = torch.load(file, weights_only=True)["state_dict_backbone"]
    del state["linear_fuse.weight"]
    torch.save({"state_dict_backbone": state}, file)
    with pytest.raises(ValueError, match=r"model\.pt .*no key .*fuse\.weight: .*download"):
        convert_model("facexformer", tmp_path, tmp_path / "out")


def test_several_files_raise(tmp_path: Path) -> None:
    layouts.write_umt(tmp_path / "repo" / "l16_25m.pth")
    convert_model("umt", tmp_path / "repo", tmp_path / "out")
    shutil.copy(tmp_path / "repo/l16_25m.pth", tmp_path / "repo/b16.pth")
    with pytest.raises(ValueError, match=r"\b2 files .*\(b16\.pth, l16_25m\.pth\): .*path="):
        convert_model("umt", tmp_path / "repo", tmp_path / "other")
