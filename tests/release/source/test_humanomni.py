"""HumanOmni's official folders become model folders, say what contradicts itself, and come back bit for bit."""

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
from transformers import BertConfig, CLIPVisionConfig, SiglipVisionConfig

from omnihuman.convert.humanomni import report, to_ours
from omnihuman.data.record import Record
from omnihuman.evaluation.answerer import Answerer
from omnihuman.release.convert import Request, convert
from omnihuman.release.source.humanomni import write_official as write_back
from omnihuman.training.finished import load_model
from tests.release.official import EARS, Official, make, write_files, write_official


def copy(official: Official, root: Path) -> Official:
    """The folder once more, to be changed."""
    folder = shutil.copytree(official.folder, root / "HumanOmni")
    return Official(folder, official.siglip, official.whisper, official.bert, official.state, official.config)


def say(official: Official, **fields: Any) -> None:
    said = {key: value for key, value in (dict(official.config) | fields).items() if value is not None}
    (official.folder / "config.json").write_text(json.dumps(said))


def rewrite(official: Official, state: dict[str, Tensor]) -> None:
    for file in official.folder.glob("model*"):
        file.unlink()
    write_files(official.folder, state, "single")


@pytest.mark.parametrize("form", ["7b", "0_5b"])
def test_every_parameter_holds_its_official_value(
    officials: dict[str, Official], converted: dict[str, Path], form: str
) -> None:
    official = officials[form]
    config, model = load_model(converted[form])
    ours = {name: tensor for name, tensor in model.named_parameters()}
    taken = report(official.state, blocks=2, tied=form == "0_5b").taken
    assert set(taken.values()) == set(ours)
    assert all(torch.equal(ours[name], official.state[key]) for key, name in taken.items())
    assert model.llm.model.config.tie_word_embeddings == (form == "0_5b")
    assert config.frames == config.data.num_frames == official.config["num_frames"]
    assert config.model.projectors.body.depth == (4 if form == "7b" else 2)
    assert OmegaConf.to_container(config.model.fusions.compress)["every"] == (4 if form == "7b" else None)  # type: ignore[index, call-overload]
    said = json.loads((converted[form] / "source.json").read_text())
    assert said["config"] == official.config
    lines = [line.split("\t") for line in (converted[form] / "keys.tsv").read_text().splitlines()[1:]]
    assert {line[1] for line in lines} == set(official.state)
    assert {line[1]: line[3] for line in lines if line[2] == "taken"} == taken
    first, second = (converted[form] / "digest").read_text().split()
    assert first == second


def test_a_converted_folder_can_be_asked(converted: dict[str, Path], corpus: Path) -> None:
    file = next(path for path in sorted((corpus / "media").iterdir()) if path.suffix == ".mp4")
    answerer = Answerer.of_run(converted["7b"], device="cpu")
    record = Record("q", file, "video", (("user", "<video>\nWhat is seen?"), ("assistant", "")), ("video",))
    answer = answerer.ask([answerer.prompt(record)], max_new_tokens=3)[0]
    assert answer.prompt_tokens > 8 and sum(answer.weights["gate"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("layout", ["single", "bin", "bin shards"])
def test_every_layout_and_both_spellings_become_the_same(
    officials: dict[str, Official], converted: dict[str, Path], layout: str, tmp_path: Path
) -> None:
    official = write_official(tmp_path / "official", "7b", layout=layout, segment="")  # type: ignore[arg-type]
    assert not any("vision_model" in key for key in official.state)
    ours = load_file(make(official, tmp_path / "out") / "weights.safetensors")
    expected = load_file(converted["7b"] / "weights.safetensors")
    assert set(ours) == set(expected) and all(torch.equal(ours[name], expected[name]) for name in expected)


def test_towers_come_from_their_own_folders(converted: dict[str, Path], tmp_path: Path) -> None:
    """As their loader does it; a folder has the names of the hub, with a head, a text tower, a decoder."""
    official = write_official(tmp_path / "official", "7b", towers="beside")
    assert not any("tower" in key for key in official.state)
    ours = load_file(make(official, tmp_path / "out") / "weights.safetensors")
    expected = load_file(converted["7b"] / "weights.safetensors")
    assert set(ours) == set(expected) and all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_tower_that_is_named_goes_before_the_one_inside(officials: dict[str, Official], tmp_path: Path) -> None:
    official = officials["7b"]
    assert official.siglip is not None
    other = shutil.copytree(official.siglip, tmp_path / "other")
    state = {key: x + 1 for key, x in load_file(other / "model.safetensors").items()}
    save_file(state, other / "model.safetensors")
    out = make(official, tmp_path / "out", vision_tower=str(other))
    ours = load_file(out / "weights.safetensors")["encoders.video.embeddings.patch_embedding.bias"]
    assert torch.equal(ours, state["vision_model.embeddings.patch_embedding.bias"])
    assert "in its place" in (out / "keys.tsv").read_text()


def test_bfloat16_stays_and_can_be_changed(tmp_path: Path) -> None:
    official = write_official(tmp_path / "official", "0_5b", dtype=torch.bfloat16)
    kept = load_file(make(official, tmp_path / "kept") / "weights.safetensors")
    assert {x.dtype for x in kept.values()} == {torch.bfloat16}
    made = convert(Request("humanomni", str(official.folder), tmp_path / "f32", official.options, dtype="float32"))
    wide = load_file(made / "weights.safetensors")
    assert {x.dtype for x in wide.values()} == {torch.float32}
    assert all(torch.equal(kept[name].float(), wide[name]) for name in kept)


def test_without_ears_and_with_those_of_a_file(officials: dict[str, Official], tmp_path: Path) -> None:
    """HumanOmni-7B-Video, then with HumanOmni-7B-Audio's audio_projector.bin."""
    video = write_official(tmp_path / "video", "7b", hears=False)
    deaf = make(video, tmp_path / "deaf")
    _, model = load_model(deaf)
    assert list(model.projectors) == ["interaction", "body", "face"] and model.layouts({"frames": 4})["audio"] == 0
    projector = tmp_path / "audio_projector.bin"
    state = {key: x for key, x in officials["7b"].state.items() if "audio_projector" in key}
    torch.save({f"base_model.{key}": x for key, x in state.items()}, projector)
    ears = {"audio_projector": str(projector), "audio_tower": str(officials["7b"].whisper)}
    hearing = load_file(make(video, tmp_path / "hearing", **ears) / "weights.safetensors")
    for key, tensor in state.items():
        assert torch.equal(hearing[str(to_ours(key))], tensor)
    assert any(name.startswith("encoders.audio.") for name in hearing)
    write_back(tmp_path / "hearing", tmp_path / "back")
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert said["mm_audio_tower"] == ears["audio_tower"] and said["audio_hidden_size"] == 12
    with pytest.raises(ValueError, match=r"whisper: .*audio_tower=<folder or hub id>"):
        make(video, tmp_path / "named", audio_projector=str(projector), audio_tower=str(tmp_path / "nowhere"))


def test_an_adapter_beside_must_agree_or_be_named(officials: dict[str, Official], tmp_path: Path) -> None:
    official = copy(officials["7b"], tmp_path)
    state = {key: x for key, x in official.state.items() if "audio_projector" in key}
    file = official.folder / "audio_projector.bin"
    torch.save(state, file)
    assert "the same as in the checkpoint" in (make(official, tmp_path / "same") / "keys.tsv").read_text()
    torch.save({key: x + 1 for key, x in state.items()}, file)
    with pytest.raises(ValueError, match=r"both hold audio_projector, and .* differs: say which with audio_projector="):
        make(official, tmp_path / "out")
    ours = load_file(make(official, tmp_path / "named", audio_projector=str(file)) / "weights.safetensors")
    assert torch.equal(ours["projectors.audio.layers.0.bias"], state["model.audio_projector.0.bias"] + 1)


def test_a_file_of_one_part_alone(tmp_path: Path) -> None:
    torch.save({"model.audio_projector.0.bias": torch.ones(2)}, tmp_path / "audio_projector.bin")
    with pytest.raises(ValueError, match=r"holds no language model.*path=HumanOmni-7B-Video audio_projector="):
        convert(Request("humanomni", str(tmp_path / "audio_projector.bin"), tmp_path / "out"))


def shallow(official: Official) -> None:
    gone = (".b3.", ".b4.")
    rewrite(official, {key: x for key, x in official.state.items() if not any(each in key for each in gone)})


def without(word: str) -> Callable[[Official], None]:
    return lambda official: rewrite(official, {key: x for key, x in official.state.items() if word not in key})


def instead(**fields: Any) -> Callable[[Official], None]:
    return lambda official: say(official, **fields)


def given(key: str, tensor: Tensor) -> Callable[[Official], None]:
    return lambda official: rewrite(official, dict(official.state) | {key: tensor})


CONTRADICTIONS: dict[str, tuple[str, Callable[[Official], None], str]] = {
    "type": ("7b", instead(mm_projector_type="stc_connector"), "mm_projector_type is 'stc_connector', known are"),
    "depth": ("7b", shallow, "mm_projector_type=all_in_one, whose stages have 4 .* have 2, as all_in_one_small has"),
    "small": ("7b", instead(mm_projector_type="all_in_one_small"), "stages have 2 blocks, .* have 4, as all_in_one "),
    "frames": ("7b", instead(num_frames=None), "has no num_frames, .* say frames=32"),
    "mm_hidden_size": ("7b", instead(mm_hidden_size=1152), "siglip's tokens is 16 by .*siglip, .* 1152 by config"),
    "audio_hidden_size": ("7b", instead(audio_hidden_size=1280), "whisper's tokens is 12 by .* 1280 by config"),
    "vocabulary": ("7b", instead(vocab_size=2048), "vocabulary is 2048 by config.json's vocab_size, 1024 by rows of"),
    "hidden_size": ("7b", instead(hidden_size=64), "width of the language model is 64 by config.json's .* 32 by"),
    "ears": ("7b", instead(mm_audio_tower=None), "no mm_audio_tower, but there is an audio projector of width 12"),
    "no ears": ("7b", without("audio_projector"), "no audio projector though config.json names mm_audio_tower: give"),
    "compressor": ("0_5b", given("model.feature_compressor.vlm_key_projector.bias", torch.ones(256)),
                   "whose code .* has no compressor, but .* holds model.feature_compressor"),
    "gate": ("7b", given("model.bert_gate.2.weight", torch.ones(2, 3584)), "branches is 2 by bert_gate.2.weight, 3"),
    "gate's width": ("7b", given("model.bert_gate.0.weight", torch.ones(9, 20)), "gate's width is 9 by .* 3584 by"),
    "class token": ("7b", instead(mm_vision_select_feature="cls_patch"), "'cls_patch': SigLIP has patches only"),
    "missing": ("7b", without("s2_body.b3.conv2.bn.bias"),
                r"1 parameters .* \['projectors.body.s2.b3.conv2.bn.bias'\]: is the download"),
    "no head": ("7b", without("lm_head"), "does not say tie_word_embeddings: is a shard missing"),
    "unknown": ("7b", given("model.resampler.query", torch.ones(1)), "1 keys .* unknown to HumanOmni, .*resampler"),
    "shape": ("7b", given("model.layers.1.mlp.up_proj.weight", torch.ones(40, 32)),
              r"up_proj.weight is \[40, 32\], llm.model.model.layers.1.mlp.up_proj.weight .* is \[48, 32\]"),
    "integers": ("7b", given("model.norm.weight", torch.ones(32, dtype=torch.int64)),
                 "model.norm.weight is int64, weights are floats"),
    "layers": ("7b", instead(num_hidden_layers=1), "no place in the model .*model.layers.1"),
    "rope": ("7b", instead(rope_scaling={"type": "yarn"}), "has rope_scaling, which no released HumanOmni has"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_contradiction_names_both_sides(officials: dict[str, Official], what: str, tmp_path: Path) -> None:
    form, change, words = CONTRADICTIONS[what]
    official = copy(officials[form], tmp_path)
    change(official)
    with pytest.raises(ValueError, match=words):
        make(official, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_what_the_user_says_settles_it(officials: dict[str, Official], tmp_path: Path) -> None:
    official = copy(officials["0_5b"], tmp_path)
    CONTRADICTIONS["compressor"][1](official)
    say(official, num_frames=None)
    config, _ = load_model(make(official, tmp_path / "out", compressor=True, frames=4))
    assert config.frames == 4 and config.model.fusions.compress.every == 4


def test_the_tower_that_fits_is_named(officials: dict[str, Official], tmp_path: Path) -> None:
    """A projector of 1152, SigLIP so400m's, in front of SigLIP base."""
    official = copy(officials["7b"], tmp_path)
    rewrite(official, dict(official.state) | {"model.mm_projector.mlp_2xgelu_face.0.weight": torch.ones(32, 1152)})
    say(official, mm_hidden_size=1152)
    with pytest.raises(
        ValueError, match=r"16 by the siglip tower .*vision_tower=google/siglip-so400m-patch14-384 fits"
    ):
        make(official, tmp_path / "out")


def test_saved_from_within_ddp(officials: dict[str, Official], converted: dict[str, Path], tmp_path: Path) -> None:
    official = copy(officials["0_5b"], tmp_path)
    rewrite(official, {f"module.{key}": x for key, x in official.state.items()})
    made = load_file(make(official, tmp_path / "out") / "weights.safetensors")
    expected = load_file(converted["0_5b"] / "weights.safetensors")
    assert made.keys() == expected.keys() and all(torch.equal(made[name], expected[name]) for name in made)


def test_other_towers_and_towers_that_are_away(officials: dict[str, Official], tmp_path: Path) -> None:
    clip, bert = tmp_path / "clip", tmp_path / "bert"
    for folder, config in ((clip, CLIPVisionConfig()), (bert, BertConfig(hidden_size=24, num_attention_heads=2))):
        folder.mkdir()
        config.to_json_file(folder / "config.json")
    with pytest.raises(ValueError, match=r"is a clip_vision_model, a siglip is needed: give vision_tower="):
        make(officials["7b"], tmp_path / "out", vision_tower=str(clip))
    with pytest.raises(ValueError, match=r"width of bert's tokens is 24 by the bert tower .*, 20 by the layer"):
        make(officials["7b"], tmp_path / "out", instruction_encoder=str(bert))
    SiglipVisionConfig(hidden_size=16).to_json_file(tmp_path / "config.json")
    official = write_official(tmp_path / "beside", "7b", towers="beside", change={"mm_vision_tower": "/mnt/siglip"})
    with pytest.raises(ValueError, match=r"siglip: /mnt/siglip: there is no such .* vision_tower=<folder or hub id>"):
        make(official, tmp_path / "out")


def test_what_is_dropped_is_what_their_code_never_reads(officials: dict[str, Official]) -> None:
    dropped = report(officials["7b"].state, blocks=2).dropped
    assert {key for key in dropped if key.startswith(EARS)} == {
        f"{EARS}{name}.{kind}" for name in ("projector", "classifier") for kind in ("weight", "bias")
    }
    assert sum("pooler" in key for key in dropped) == 2 and sum("compressor" in key for key in dropped) == 4
    assert sum(key.startswith("model.vision_tower.") for key in dropped) == 16 + 11 + 2
