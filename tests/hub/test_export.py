import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor

import omnihuman
from omnihuman.hub.export import check_graph, export, select_data_options
from omnihuman.hub.graph import build_graph
from omnihuman.inference.answerer import Answerer
from omnihuman.inference.question import build_question
from omnihuman.official.conversion import Request, convert
from omnihuman.training.model_folder import load_model
from tests.official.folders import write_official

Folder = Callable[..., Path]


FILES = {
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "instruction_tokenizer/tokenizer.json",
    "model.safetensors.index.json",
    "README.md",
}


def test_files_of_the_folder(make_release: Folder) -> None:
    folder = make_release("humanomni_stage3")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} >= FILES
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "omnihuman" and config["architectures"] == ["OmniHumanForCausalLM"]
    data = json.loads((folder / "processor_config.json").read_text())["data"]
    assert data["num_frames"] == 8 and data["face"] == {"region": "boxes", "margin": 0.25}
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert len(modes) == 1, "weights are as readable as the other files"
    for file in folder.rglob("*.json"):
        assert str(Path.home()) not in file.read_text() and str(Path.cwd()) not in file.read_text(), file


def hash_files(folder: Path) -> dict[str, str]:
    """Return the hash of every file by its path."""
    hashes = {}
    for path in folder.rglob("*"):
        if path.is_file():
            hashes[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


@pytest.mark.parametrize("lora", ["merge", "adapter"])
def test_two_exports_have_the_same_bytes(lora: str, make_run: Folder, make_release: Folder, tmp_path: Path) -> None:
    export(make_run("favchat_stage3"), tmp_path / "again", lora=lora, max_shard_size="5MB")
    hashes = hash_files(make_release("favchat_stage3", lora))
    assert hash_files(tmp_path / "again") == hashes and {"README.md", "config.json"} < hashes.keys()


@pytest.mark.parametrize("lora", ["merge", "adapter"])
def test_no_file_asks_for_code(lora: str, make_release: Folder) -> None:
    folder = make_release("favchat_stage3", lora)
    for file in folder.rglob("*"):
        assert file.is_dir() or file.suffix in (".json", ".jinja", ".md", ".safetensors"), file
        if file.suffix == ".json":
            assert not {"auto_map", "custom_pipelines"} & {*json.loads(file.read_text())}, file


@pytest.mark.slow
def test_card_explains_the_message_without_registration(make_release: Folder) -> None:
    folder = make_release("humanomni_stage3")
    code = f"from transformers import AutoModelForCausalLM as Auto; Auto.from_pretrained({str(folder)!r})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    reason = re.findall(r"ValueError: .*`omnihuman` but Transformers (does not recognize)", process.stderr)
    assert reason and reason[0] in (folder / "README.md").read_text()


def test_shards_stay_below_their_limit(make_release: Folder) -> None:
    folder = make_release("humanomni_stage3")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    names = []
    for shard in {*index.values()}:
        tensors = load_file(folder / shard)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 5_000_000
        names += tensors
    assert sorted(names) == sorted(index)


def test_run_is_not_changed(make_run: Folder, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in make_run("humanomni_stage3").rglob("*")}
    export(make_run("humanomni_stage3"), tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in make_run("humanomni_stage3").rglob("*")} == before


def test_dtype_applies_to_all_parameters(make_run: Folder, tmp_path: Path) -> None:
    export(make_run("favchat_stage3"), tmp_path / "half", dtype="bfloat16")
    dtypes = {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()}
    assert torch.bfloat16 in dtypes and torch.float32 not in dtypes
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_two_dtypes_raise(make_run: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(make_run("humanomni_stage3"), tmp_path / "mixed")
    config = OmegaConf.load(folder / "config.yaml")
    config.model.llm.dtype = "bfloat16"
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(ValueError, match=r"bfloat16 and float32.*dtype=bfloat16"):
        export(folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_invalid_arguments_raise(make_run: Folder, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"out=.*not empty"):
        export(make_run("humanomni_stage3"), tmp_path / "full")
    with pytest.raises(ValueError, match=r"lora=.*merge, adapter"):
        export(make_run("humanomni_stage3"), tmp_path / "out", lora="both")
    with pytest.raises(ValueError, match=r"lora=adapter: .*no LoRA"):
        export(make_run("humanomni_stage3"), tmp_path / "out", lora="adapter")
    with pytest.raises(ValueError, match="no finished run"):
        export(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapter_has_the_trained_lora(make_release: Folder, make_run: Folder) -> None:
    folder = make_release("favchat_stage3", "adapter") / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    assert config["task_type"] == "CAUSAL_LM" and config["r"] == 16 and "lm_head" not in config["target_modules"]
    assert {*config["target_modules"]} == {name.split(".")[-3] for name in tensors}
    _, model = load_model(make_run("favchat_stage3"))
    parameters = dict(model.llm.model.named_parameters())
    for name, tensor in tensors.items():
        key = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        assert torch.equal(tensor, parameters[key])


def test_argument_that_is_not_in_the_graph_raises(make_run: Folder, make_release: Folder) -> None:
    config, model = load_model(make_run("humanomni_stage3"))
    graph, _ = build_graph(config.model, model)
    check_graph(graph, make_release("humanomni_stage3"), model)
    model.encoders["video"].layers[0].layer_norm1.eps = 1e-3
    with pytest.raises(ValueError, match=r"encoders.video.layers.0.layer_norm1 is .*eps=0.001.* but .*eps=1e-06"):
        check_graph(graph, make_release("humanomni_stage3"), model)


def test_two_instruction_tokenizers_raise(make_run: Folder) -> None:
    config, model = load_model(make_run("humanomni_stage3"))
    config.model.encoders.audio.tokenizer = "another"
    with pytest.raises(ValueError, match="one instruction tokenizer"):
        build_graph(config.model, model)


def test_face_detector_is_not_released() -> None:
    face = {"region": "boxes", "margin": 0.1, "detector": {"_target_": "omnihuman.data.face.YuNet", "model": "/x.onnx"}}
    data, notes = select_data_options(OmegaConf.create({"num_frames": 4, "face": face, "records": "x"}))
    assert data == {"num_frames": 4, "face": {"region": "boxes", "margin": 0.1}} and "detector" in notes[0]


@pytest.mark.parametrize("preset", [pytest.param("7b", marks=pytest.mark.slow), "0_5b"])
def test_export_of_a_converted_checkpoint(preset: str, tmp_path: Path, corpus: Path) -> None:
    omnihuman.register()
    official = write_official(tmp_path / "official", preset)
    folder = convert(Request("humanomni", str(official.folder), tmp_path / "converted", official.options))
    export(folder, tmp_path / "out")
    answerer, clip = Answerer.load(folder, device="cpu"), str(min((corpus / "media").glob("*.mp4")))
    answer = answerer.answer_prompts(
        [answerer.build_prompt(build_question({"video": clip, "instruction": "Who?"}))], max_new_tokens=12
    )[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    ids = model.generate(**processor(text="Who?", video=clip), max_new_tokens=12)
    assert tuple(token for token in ids[0].tolist() if token != model.llm.end_id) == answer.ids
    card = (tmp_path / "out" / "README.md").read_text()
    assert "HumanOmni, converted" in card and "Not trained" in card and str(tmp_path) not in card
