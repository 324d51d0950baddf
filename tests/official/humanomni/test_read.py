"""HumanOmni's official folders become model folders; contradictions between their files raise."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, CLIPVisionConfig

from omnihuman.data.record import Record
from omnihuman.inference.answerer import Answerer
from omnihuman.official.conversion import Request, convert
from omnihuman.official.humanomni.keys import map_key, report_keys
from omnihuman.official.humanomni.read import write_official as export_official
from omnihuman.training.model_folder import load_model
from tests.official.folders import AUDIO_PREFIX, OfficialFolder, convert_official, write_files, write_official


def copy_official(official: OfficialFolder, root: Path) -> OfficialFolder:
    """Copy an official folder, for changes."""
    folder = shutil.copytree(official.folder, root / "HumanOmni")
    return OfficialFolder(folder, official.siglip, official.whisper, official.bert, official.state, official.config)


def set_fields(official: OfficialFolder, **fields: Any) -> None:
    """Change fields of config.json; ``None`` removes a field."""
    config = {key: value for key, value in (dict(official.config) | fields).items() if value is not None}
    (official.folder / "config.json").write_text(json.dumps(config))


def replace_state(official: OfficialFolder, state: dict[str, Tensor]) -> None:
    for file in official.folder.glob("model*"):
        file.unlink()
    write_files(official.folder, state, "single")


def read_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights.safetensors")


def assert_equal(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("preset", ["7b", "0_5b"])
def test_every_parameter_has_its_official_value(
    officials: dict[str, OfficialFolder], converted: dict[str, Path], preset: str
) -> None:
    official = officials[preset]
    _, model = load_model(converted[preset])
    parameters = dict(model.named_parameters())
    names = report_keys(official.state, num_blocks=2, is_tied=preset == "0_5b").names
    assert set(names.values()) == set(parameters)
    for key, name in names.items():
        assert torch.equal(parameters[name], official.state[key]), key
    lines = [line.split("\t") for line in (converted[preset] / "keys.tsv").read_text().splitlines()[1:]]
    assert {line[1] for line in lines} == set(official.state)
    assert {line[1]: line[3] for line in lines if line[2] == "taken"} == names


@pytest.mark.parametrize(("preset", "depth", "every"), [("7b", 4, 4), ("0_5b", 2, None)])
def test_config_of_the_model_folder(
    officials: dict[str, OfficialFolder], converted: dict[str, Path], preset: str, depth: int, every: int | None
) -> None:
    official = officials[preset]
    config, model = load_model(converted[preset])
    assert model.llm.model.config.tie_word_embeddings == (preset == "0_5b")
    assert config.frames == config.data.num_frames == official.config["num_frames"]
    assert config.model.projectors.body.depth == depth
    compress: Any = OmegaConf.to_container(config.model.fusions.compress)
    assert compress["every"] == every
    source = json.loads((converted[preset] / "official.json").read_text())
    assert source["config"] == official.config
    first, second = (converted[preset] / "digest").read_text().split()
    assert first == second


def test_converted_folder_answers_questions(converted: dict[str, Path], corpus: Path) -> None:
    clip = min((corpus / "media").glob("*.mp4"))
    answerer = Answerer.load(converted["7b"], device="cpu")
    record = Record("q", clip, "video", (("user", "<video>\nWhat is seen?"), ("assistant", "")), ("video",))
    answer = answerer.answer_prompts([answerer.build_prompt(record)], max_new_tokens=3)[0]
    assert answer.prompt_tokens > 8 and sum(answer.weights["gate"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("layout", ["single", "bin", "bin shards"])
def test_layouts_and_spellings_give_the_same_weights(converted: dict[str, Path], layout: str, tmp_path: Path) -> None:
    official = write_official(tmp_path / "official", "7b", layout=layout, segment="")
    assert not any("vision_model" in key for key in official.state)
    folder = convert_official(official, tmp_path / "out")
    assert_equal(read_weights(folder), read_weights(converted["7b"]))


def test_towers_are_read_from_their_own_folders(converted: dict[str, Path], tmp_path: Path) -> None:
    """As the official loader does; the folders have the names of the hub, with a head, a text tower, a decoder."""
    official = write_official(tmp_path / "official", "7b", has_towers=False)
    assert not any("tower" in key for key in official.state)
    folder = convert_official(official, tmp_path / "out")
    assert_equal(read_weights(folder), read_weights(converted["7b"]))


def test_tower_option_overrides_the_checkpoint(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    official = officials["7b"]
    assert official.siglip is not None
    tower = shutil.copytree(official.siglip, tmp_path / "tower")
    state = {key: tensor + 1 for key, tensor in load_file(tower / "model.safetensors").items()}
    save_file(state, tower / "model.safetensors")
    out = convert_official(official, tmp_path / "out", vision_tower=str(tower))
    bias = read_weights(out)["encoders.video.embeddings.patch_embedding.bias"]
    assert torch.equal(bias, state["vision_model.embeddings.patch_embedding.bias"])
    assert "in its place" in (out / "keys.tsv").read_text()


def test_bfloat16_is_the_default_and_can_be_changed(tmp_path: Path) -> None:
    official = write_official(tmp_path / "official", "0_5b", dtype=torch.bfloat16)
    narrow = read_weights(convert_official(official, tmp_path / "bf16"))
    assert {tensor.dtype for tensor in narrow.values()} == {torch.bfloat16}
    folder = convert(Request("humanomni", str(official.folder), tmp_path / "f32", official.options, dtype="float32"))
    wide = read_weights(folder)
    assert {tensor.dtype for tensor in wide.values()} == {torch.float32}
    assert_equal({name: tensor.float() for name, tensor in narrow.items()}, wide)


def test_model_without_audio(tmp_path: Path) -> None:
    """HumanOmni-7B-Video."""
    official = write_official(tmp_path / "video", "7b", has_audio=False)
    _, model = load_model(convert_official(official, tmp_path / "out"))
    assert list(model.projectors) == ["interaction", "body", "face"] and model.count_tokens({"frames": 4})["audio"] == 0


def test_audio_projector_option_adds_audio(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    """HumanOmni-7B-Video with HumanOmni-7B-Audio's audio_projector.bin."""
    official = write_official(tmp_path / "video", "7b", has_audio=False)
    projector = str(tmp_path / "audio_projector.bin")
    state = {key: tensor for key, tensor in officials["7b"].state.items() if "audio_projector" in key}
    torch.save({f"base_model.{key}": tensor for key, tensor in state.items()}, projector)
    whisper = str(officials["7b"].whisper)
    folder = convert_official(official, tmp_path / "out", audio_projector=projector, audio_tower=whisper)
    weights = read_weights(folder)
    for key, tensor in state.items():
        assert torch.equal(weights[str(map_key(key))], tensor)
    assert any(name.startswith("encoders.audio.") for name in weights)
    export_official(folder, tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["mm_audio_tower"] == whisper and config["audio_hidden_size"] == 12
    with pytest.raises(ValueError, match=r"whisper: .*audio_tower=<"):
        convert_official(official, tmp_path / "x", audio_projector=projector, audio_tower=str(tmp_path / "nowhere"))


def test_adapter_file_must_equal_the_checkpoint(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    official = copy_official(officials["7b"], tmp_path)
    state = {key: tensor for key, tensor in official.state.items() if "audio_projector" in key}
    file = official.folder / "audio_projector.bin"
    torch.save(state, file)
    assert "the same as in the checkpoint" in (convert_official(official, tmp_path / "same") / "keys.tsv").read_text()
    torch.save({key: tensor + 1 for key, tensor in state.items()}, file)
    with pytest.raises(ValueError, match=r"audio_projector.* differs: .*audio_projector="):
        convert_official(official, tmp_path / "out")
    weights = read_weights(convert_official(official, tmp_path / "option", audio_projector=str(file)))
    assert torch.equal(weights["projectors.audio.layers.0.bias"], state["model.audio_projector.0.bias"] + 1)


def test_file_of_one_part_raises(tmp_path: Path) -> None:
    torch.save({"model.audio_projector.0.bias": torch.ones(2)}, tmp_path / "audio_projector.bin")
    with pytest.raises(ValueError, match=r"no language model.*path=HumanOmni-7B-Video audio_projector="):
        convert(Request("humanomni", str(tmp_path / "audio_projector.bin"), tmp_path / "out"))


def without_keys(*words: str) -> Callable[[OfficialFolder], None]:
    """Return a change that removes the keys with these words."""

    def change(official: OfficialFolder) -> None:
        state = dict(official.state)
        for key in official.state:
            if any(word in key for word in words):
                del state[key]
        replace_state(official, state)

    return change


def with_fields(**fields: Any) -> Callable[[OfficialFolder], None]:
    return lambda official: set_fields(official, **fields)


def with_tensor(key: str, tensor: Tensor) -> Callable[[OfficialFolder], None]:
    return lambda official: replace_state(official, dict(official.state) | {key: tensor})


CONTRADICTIONS: dict[str, tuple[str, Callable[[OfficialFolder], None], str]] = {
    "type": ("7b", with_fields(mm_projector_type="stc_connector"), "unknown mm_projector_type 'stc_connector'; exp"),
    "depth": (
        "7b",
        without_keys(".b3.", ".b4."),
        "mm_projector_type=all_in_one, whose stages have 4 .* have 2, as all_in_one_small has",
    ),
    "small": (
        "7b",
        with_fields(mm_projector_type="all_in_one_small"),
        "stages have 2 blocks, .* have 4, as all_in_one ",
    ),
    "frames": ("7b", with_fields(num_frames=None), "num_frames,.* frames=32"),
    "mm_hidden_size": ("7b", with_fields(mm_hidden_size=1152), "siglip's tokens is 16 by .*siglip, .* 1152 by config"),
    "audio_hidden_size": ("7b", with_fields(audio_hidden_size=1280), "whisper's tokens is 12 by .* 1280 by config"),
    "vocabulary": (
        "7b",
        with_fields(vocab_size=2048),
        "vocabulary is 2048 by .*vocab_size, 1024 by",
    ),
    "hidden_size": ("7b", with_fields(hidden_size=64), "language model is 64 by .* 32 by"),
    "no audio tower": ("7b", with_fields(mm_audio_tower=None), "no mm_audio_tower.* audio projector .*width 12"),
    "no audio projector": (
        "7b",
        without_keys("audio_projector"),
        "no audio projector .*mm_audio_tower: give",
    ),
    "compressor": (
        "0_5b",
        with_tensor("model.feature_compressor.vlm_key_projector.bias", torch.ones(256)),
        "no compressor.*model.feature_compressor.*compressor=true",
    ),
    "gate": (
        "7b",
        with_tensor("model.bert_gate.2.weight", torch.ones(2, 3584)),
        "branches is 2 by bert_gate.2.weight, 3",
    ),
    "width of the gate": (
        "7b",
        with_tensor("model.bert_gate.0.weight", torch.ones(9, 20)),
        "gate's width is 9 by .* 3584 by",
    ),
    "class token": ("7b", with_fields(mm_vision_select_feature="cls_patch"), "'cls_patch': SigLIP .*patches"),
    "missing": (
        "7b",
        without_keys("s2_body.b3.conv2.bn.bias"),
        r"1 parameters .* \['projectors.body.s2.b3.conv2.bn.bias'\]: .*download",
    ),
    "no head": ("7b", without_keys("lm_head"), "no tie_word_embeddings: .*shard"),
    "unknown": (
        "7b",
        with_tensor("model.resampler.query", torch.ones(1)),
        "1 keys .*HumanOmni, .*resampler",
    ),
    "shape": (
        "7b",
        with_tensor("model.layers.1.mlp.up_proj.weight", torch.ones(40, 32)),
        r"up_proj.weight is \[40, 32\], llm.model.model.layers.1.mlp.up_proj.weight .* is \[48, 32\]",
    ),
    "integers": (
        "7b",
        with_tensor("model.norm.weight", torch.ones(32, dtype=torch.int64)),
        "model.norm.weight is int64, .*floats",
    ),
    "layers": ("7b", with_fields(num_hidden_layers=1), "not in the model .*model.layers.1"),
    "rope": ("7b", with_fields(rope_scaling={"type": "yarn"}), "rope_scaling, .*HumanOmni"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradiction_raises(officials: dict[str, OfficialFolder], case: str, tmp_path: Path) -> None:
    preset, change, message = CONTRADICTIONS[case]
    official = copy_official(officials[preset], tmp_path)
    change(official)
    with pytest.raises(ValueError, match=message):
        convert_official(official, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_options_resolve_a_contradiction(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    official = copy_official(officials["0_5b"], tmp_path)
    CONTRADICTIONS["compressor"][1](official)
    set_fields(official, num_frames=None)
    config, _ = load_model(convert_official(official, tmp_path / "out", compressor=True, frames=4))
    assert config.frames == 4 and config.model.fusions.compress.every == 4


def test_error_names_the_fitting_tower(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    """A projector for SigLIP so400m, 1152 wide, with SigLIP base."""
    official = copy_official(officials["7b"], tmp_path)
    with_tensor("model.mm_projector.mlp_2xgelu_face.0.weight", torch.ones(32, 1152))(official)
    set_fields(official, mm_hidden_size=1152)
    message = r"16 by .*siglip tower .*vision_tower=google/siglip-so400m-patch14-384 fits"
    with pytest.raises(ValueError, match=message):
        convert_official(official, tmp_path / "out")


def test_checkpoint_of_a_ddp_module(
    officials: dict[str, OfficialFolder], converted: dict[str, Path], tmp_path: Path
) -> None:
    official = copy_official(officials["0_5b"], tmp_path)
    replace_state(official, {f"module.{key}": tensor for key, tensor in official.state.items()})
    folder = convert_official(official, tmp_path / "out")
    assert_equal(read_weights(folder), read_weights(converted["0_5b"]))


def test_unsuitable_towers_raise(officials: dict[str, OfficialFolder], tmp_path: Path) -> None:
    clip, bert = tmp_path / "clip", tmp_path / "bert"
    for folder, config in ((clip, CLIPVisionConfig()), (bert, BertConfig(hidden_size=24, num_attention_heads=2))):
        folder.mkdir()
        config.to_json_file(folder / "config.json")
    with pytest.raises(ValueError, match=r"clip_vision_model, .*siglip: .*vision_tower="):
        convert_official(officials["7b"], tmp_path / "out", vision_tower=str(clip))
    with pytest.raises(ValueError, match=r"bert's tokens is 24 by .*, 20 by"):
        convert_official(officials["7b"], tmp_path / "out", instruction_encoder=str(bert))


def test_missing_tower_raises(tmp_path: Path) -> None:
    official = write_official(tmp_path / "official", "7b", has_towers=False)
    set_fields(official, mm_vision_tower="/mnt/siglip")
    with pytest.raises(ValueError, match=r"siglip: /mnt/siglip: no such .* vision_tower=<"):
        convert_official(official, tmp_path / "out")


def test_unread_keys_are_dropped(officials: dict[str, OfficialFolder]) -> None:
    """Of the audio tower, the compressor and BERT these are the parameters that the official code never uses."""
    dropped = report_keys(officials["7b"].state, num_blocks=2).dropped
    assert {key for key in dropped if key.startswith(AUDIO_PREFIX)} == {
        f"{AUDIO_PREFIX}projector.weight",
        f"{AUDIO_PREFIX}projector.bias",
        f"{AUDIO_PREFIX}classifier.weight",
        f"{AUDIO_PREFIX}classifier.bias",
    }
    assert sum("pooler" in key for key in dropped) == 2 and sum("compressor" in key for key in dropped) == 4
    assert sum(key.startswith("model.vision_tower.") for key in dropped) == 16 + 11 + 2
