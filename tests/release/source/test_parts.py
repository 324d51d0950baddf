"""A single model of the hub, FaceXFormer or UMT: the part that loads the converted folder is that very model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnihuman.encoder.bert import Bert
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.encoder.siglip import SigLIP
from omnihuman.encoder.umt import UMT
from omnihuman.encoder.whisper import Whisper
from omnihuman.llm.causal import CausalLM
from omnihuman.release.convert import Request, convert
from omnihuman.types import Signal
from tests.release import layouts


def converted(source: str, path: Path, out: Path, **options: Any) -> Path:
    return convert(Request(source, str(path), out, options))


def frames(side: int, count: int = 2) -> Signal:
    values = torch.randint(0, 256, (1, count, 3, side, side), generator=torch.Generator().manual_seed(1))
    return Signal(values.to(torch.uint8), torch.ones(1, count, dtype=torch.bool))


def fates(folder: Path) -> dict[str, list[str]]:
    lines = (folder / "keys.tsv").read_text().splitlines()[1:]
    return {line.split("\t")[1]: line.split("\t")[2:] for line in lines}


def respelt(folder: Path, source: str) -> None:
    """As transformers 4 or an owner spells it."""
    patterns = {
        "siglip": {},
        "whisper": {r"model\.": ""},
        "bert": {r"(.*LayerNorm)\.weight": r"\1.gamma", r"(.*LayerNorm)\.bias": r"\1.beta"},
        "qwen2": {},
        "mistral": {},
    }
    layouts.renamed(folder, patterns[source])
    state = load_file(folder / "model.safetensors")
    buffers = {"siglip": "vision_model.embeddings.position_ids", "bert": "bert.embeddings.position_ids",
               "qwen2": "model.layers.0.self_attn.rotary_emb.inv_freq"}  # fmt: skip
    if source in buffers:
        state[buffers[source]] = torch.arange(3)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("spelt", ["as saved", "otherwise"])
@pytest.mark.parametrize("layer", [-1, -2])
def test_siglip(tmp_path: Path, layer: int, spelt: str) -> None:
    theirs = layouts.tower(tmp_path / "official", "siglip")
    if spelt == "otherwise":
        respelt(tmp_path / "official", "siglip")
    out = converted("siglip", tmp_path / "official", tmp_path / "out")
    ours = SigLIP(**layouts.VISION, weights=str(out), select_layer=layer)
    given = frames(42)
    with torch.no_grad():
        pixels = given.values[0] / 127.5 - 1
        state = theirs.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[layer]
        torch.testing.assert_close(ours(given).tokens[0], state, rtol=0, atol=1e-6)
    assert {why[1] for why in fates(out).values() if why[0] == "dropped"} >= {"the text tower"}
    assert json.loads((out / "config.json").read_text())["model_type"] == "siglip_vision_model"


@pytest.mark.parametrize("spelt", ["as saved", "otherwise"])
def test_whisper(tmp_path: Path, spelt: str) -> None:
    theirs = layouts.tower(tmp_path / "official", "whisper")
    if spelt == "otherwise":
        respelt(tmp_path / "official", "whisper")
    out = converted("whisper", tmp_path / "official", tmp_path / "out")
    ours = Whisper(num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
                   weights=str(out), keep="window")  # fmt: skip
    mel = torch.randn(1, 3000, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        state = theirs.model.encoder(mel.transpose(1, 2)).last_hidden_state
        pooled = F.avg_pool1d(state.transpose(1, 2), 3, 3).transpose(1, 2)
        made = ours(Signal(mel, torch.ones(1, 3000, dtype=torch.bool))).tokens[:, :, 0]
        torch.testing.assert_close(made, pooled, rtol=0, atol=1e-6)
    assert not any("decoder" in key for key, fate in fates(out).items() if fate[0] == "taken")


@pytest.mark.parametrize("spelt", ["as saved", "otherwise"])
def test_bert(tmp_path: Path, tokenizer_folder: str, spelt: str) -> None:
    theirs = layouts.tower(tmp_path / "official", "bert")
    shutil.copytree(tokenizer_folder, tmp_path / "official", dirs_exist_ok=True)
    if spelt == "otherwise":
        respelt(tmp_path / "official", "bert")
    out = converted("bert", tmp_path / "official", tmp_path / "out")
    ours = Bert(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                weights=str(out), tokenizer=str(out / "tokenizer"))  # fmt: skip
    ids = ours.transform("happy or sad?")
    with torch.no_grad():
        state = theirs.bert(input_ids=ids[None]).last_hidden_state[:, 0]
        made = ours(Signal(ids[None], torch.ones(1, len(ids), dtype=torch.bool))).tokens[:, 0, 0]
    torch.testing.assert_close(made, state, rtol=0, atol=1e-6)


def sums(model: CausalLM, ids: Tensor) -> Tensor:
    return model(model.embed(ids), ids, torch.arange(ids.shape[1])[None], (0, ids.shape[1]))[0]


@pytest.mark.parametrize("source", ["qwen2", "mistral"])
@pytest.mark.parametrize("tied", [False, True])
def test_language_models(tmp_path: Path, tokenizer_folder: str, source: str, tied: bool) -> None:
    theirs = layouts.tower(tmp_path / "official", source, tie_word_embeddings=tied)
    shutil.copytree(tokenizer_folder, tmp_path / "official", dirs_exist_ok=True)
    respelt(tmp_path / "official", source)
    out = converted(source, tmp_path / "official", tmp_path / "out")
    ours = CausalLM(str(out / "tokenizer"), weights=str(out))
    ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = theirs(input_ids=ids, labels=ids).loss * 19
        torch.testing.assert_close(sums(ours, ids), loss, rtol=1e-6, atol=1e-6)
    assert ("lm_head.weight" in load_file(out / "model.safetensors")) is not tied


def test_facexformer(tmp_path: Path) -> None:
    theirs = layouts.facexformer(tmp_path / "official")
    out = converted("facexformer", tmp_path / "official", tmp_path / "out")
    ours = FaceXFormer(**layouts.FACE, image_size=32, weights=str(out))
    with torch.no_grad():
        assert torch.equal(ours(frames(32)).tokens, theirs(frames(32)).tokens)
    assert json.loads((out / "config.json").read_text()) == layouts.FACE
    alone = converted("facexformer", tmp_path / "official/ckpts/model.pt", tmp_path / "alone")
    assert (alone / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("file", ["umt", "stage 2", "stage 3"])
def test_umt(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """UMT's own file, whole, and the vision encoder of VideoChat2's, which ends below the last block."""
    place = tmp_path / "l16_25m.pth"
    theirs = layouts.umt(place) if file == "umt" else layouts.videochat2(place, 3 if file == "stage 3" else 2)[0]
    out = converted("umt", place, tmp_path / "out")
    ours = UMT(**layouts.UMT_L, image_size=32, weights=str(out))
    same = UMT(**layouts.UMT_L, image_size=32)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("blocks.2.")}
    if file == "umt":
        assert "begins as 1 and 0" in capsys.readouterr().out
        state |= {name: x for name, x in same.state_dict().items() if name.startswith("vision_layernorm.")}
    same.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(ours(frames(32)).tokens, same(frames(32)).tokens)
    assert json.loads((out / "config.json").read_text()) == layouts.UMT_L | {"table_frames": 4, "table_side": 14}
    others = [fate for key, fate in fates(out).items() if "qformer" in key or "lora" in key]
    assert all(fate == ["dropped", "another part: source=videochat2 takes it"] for fate in others)
    assert bool(others) == (file != "umt")


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    layouts.tower(tmp_path / "official", "mistral")
    with pytest.raises(ValueError, match=r"is of a 'mistral', source=qwen2 reads a 'qwen2': give source=mistral\."):
        converted("qwen2", tmp_path / "official", tmp_path / "out")
    (tmp_path / "official/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="choose the source that fits"):
        converted("qwen2", tmp_path / "official", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_of_another_shape(tmp_path: Path) -> None:
    layouts.tower(tmp_path / "official", "siglip")
    file = tmp_path / "official/model.safetensors"
    whole = load_file(file)
    save_file({key: x for key, x in whole.items() if "vision_model.encoder.layers.1.mlp.fc1" not in key}, file)
    with pytest.raises(ValueError, match=r"2 parameters are in no file, the first \['encoder.layers.1.mlp.fc1.bias'"):
        converted("siglip", tmp_path / "official", tmp_path / "out")
    save_file(whole | {"vision_model.post_layernorm.bias": torch.ones(8)}, file)
    with pytest.raises(
        ValueError, match=r"post_layernorm.bias is \[8\], post_layernorm.bias of the model .* is \[16\]"
    ):
        converted("siglip", tmp_path / "official", tmp_path / "out")
    save_file(whole | {"vision_model.adapter.weight": torch.ones(8)}, file)
    with pytest.raises(ValueError, match=r"unknown to siglip, the first is 'vision_model.adapter.weight'"):
        converted("siglip", tmp_path / "official", tmp_path / "out")


def test_a_face_file_with_holes(tmp_path: Path) -> None:
    layouts.facexformer(tmp_path)
    file = tmp_path / "ckpts/model.pt"
    state = torch.load(file, weights_only=True)["state_dict_backbone"]
    del state["linear_fuse.weight"]
    torch.save({"state_dict_backbone": state}, file)
    with pytest.raises(ValueError, match=r"model.pt has nothing that becomes fuse.weight: is the download complete"):
        converted("facexformer", tmp_path, tmp_path / "out")


def test_a_folder_with_several_files(tmp_path: Path) -> None:
    layouts.umt(tmp_path / "repo" / "l16_25m.pth")
    converted("umt", tmp_path / "repo", tmp_path / "out")
    shutil.copy(tmp_path / "repo/l16_25m.pth", tmp_path / "repo/b16.pth")
    with pytest.raises(ValueError, match=r"holds 2 files .pt or .pth \(b16.pth, l16_25m.pth\): give path="):
        converted("umt", tmp_path / "repo", tmp_path / "other")
