import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoProcessor

from omnihuman.evaluation.answerer import Answerer
from omnihuman.generate import record_of
from omnihuman.llm.causal import CausalLM
from omnihuman.release.convert import Request, convert
from omnihuman.release.hub.export import check_graph, data_of, export
from omnihuman.release.hub.graph import graph_of
from omnihuman.training.finished import load_model
from tests.release.official import write_official

Folder = Callable[..., Path]


def test_what_stands_in_the_folder(released: Folder) -> None:
    folder = released("humanomni_stage3")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "instruction_tokenizer/tokenizer.json", "model.safetensors.index.json", "README.md",
    } <= names  # fmt: skip
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards = [load_file(folder / name) for name in {*index.values()}]
    assert sum(map(len, shards)) == len(index)
    assert all(sum(tensor.nbytes for tensor in shard.values()) <= 5_000_000 for shard in shards)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "omnihuman" and config["architectures"] == ["OmniHumanForCausalLM"]
    data = json.loads((folder / "processor_config.json").read_text())["data"]
    assert data["num_frames"] == 8 and data["face"] == {"source": "boxes", "margin": 0.25}
    for file in folder.rglob("*.json"):
        assert str(Path.home()) not in file.read_text() and str(Path.cwd()) not in file.read_text(), file


def test_the_run_stays_as_it_was(run_of: Folder, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_of("humanomni_stage3").rglob("*")}
    export(run_of("humanomni_stage3"), tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in run_of("humanomni_stage3").rglob("*")} == before


def test_a_dtype_holds_for_everything(run_of: Folder, tmp_path: Path) -> None:
    export(run_of("favchat_stage3"), tmp_path / "half", dtype="bfloat16")
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()}
    assert torch.bfloat16 in kinds and torch.float32 not in kinds
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_two_dtypes_need_a_word(run_of: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(run_of("humanomni_stage3"), tmp_path / "mixed")
    config = OmegaConf.load(folder / "config.yaml")
    config.model.llm.dtype = "bfloat16"
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(ValueError, match="bfloat16 and float32, a release has one"):
        export(folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_what_cannot_be_written(run_of: Folder, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="holds something already"):
        export(run_of("humanomni_stage3"), tmp_path / "full")
    with pytest.raises(ValueError, match="choose from merge, adapter"):
        export(run_of("humanomni_stage3"), tmp_path / "out", lora="both")
    with pytest.raises(ValueError, match="the run has no LoRA"):
        export(run_of("humanomni_stage3"), tmp_path / "out", lora="adapter")
    with pytest.raises(ValueError, match="no finished run"):
        export(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_adapts_what_it_has_learned_on(released: Folder, run_of: Folder) -> None:
    folder = released("favchat_stage3", "adapter") / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    assert config["task_type"] == "CAUSAL_LM" and config["r"] == 16 and "lm_head" not in config["target_modules"]
    assert {*config["target_modules"]} == {name.split(".")[-3] for name in tensors}
    _, run = load_model(run_of("favchat_stage3"))
    learned = dict(run.llm.model.named_parameters())
    assert all(
        torch.equal(tensor, learned[name.removeprefix("base_model.model.").replace(".weight", ".default.weight")])
        for name, tensor in tensors.items()
    )


def test_what_only_the_weights_knew_is_noticed(run_of: Folder, released: Folder) -> None:
    config, model = load_model(run_of("humanomni_stage3"))
    graph, _ = graph_of(config.model, model)
    check_graph(graph, released("humanomni_stage3"), model)
    model.encoders["video"].layers[0].layer_norm1.eps = 1e-3
    with pytest.raises(ValueError, match=r"encoders.video.layers.0.layer_norm1 is .*eps=0.001.* make .*eps=1e-06"):
        check_graph(graph, released("humanomni_stage3"), model)


def test_two_tokenizers_of_the_instruction_are_too_many(run_of: Folder) -> None:
    config, model = load_model(run_of("humanomni_stage3"))
    config.model.encoders.audio.tokenizer = "another"
    with pytest.raises(ValueError, match="give them the same"):
        graph_of(config.model, model)
    assert isinstance(model.llm, CausalLM)


def test_a_detector_stays_behind() -> None:
    face = {"source": "boxes", "margin": 0.1, "detector": {"_target_": "omnihuman.data.face.YuNet", "model": "/x.onnx"}}
    data, notes = data_of(OmegaConf.create({"num_frames": 4, "face": face, "records": "x"}))
    assert data == {"num_frames": 4, "face": {"source": "boxes", "margin": 0.1}} and "detector" in notes[0]


@pytest.mark.parametrize("form", ["7b", "0_5b"])
def test_a_converted_checkpoint_is_released_as_a_run_is(form: Any, tmp_path: Path, corpus: Path) -> None:
    official = write_official(tmp_path / "official", form)
    folder = convert(Request("humanomni", str(official.folder), tmp_path / "converted", official.options))
    export(folder, tmp_path / "out")
    answerer, clip = Answerer.of_run(folder, device="cpu"), str(min((corpus / "media").glob("*.mp4")))
    answer = answerer.ask([answerer.prompt(record_of({"video": clip, "instruction": "Who?"}))], max_new_tokens=12)[0]
    model, processor = (each.from_pretrained(tmp_path / "out") for each in (AutoModelForCausalLM, AutoProcessor))
    ids = model.generate(**processor(text="Who?", video=clip), max_new_tokens=12)
    assert (*(token for token in ids[0].tolist() if token != model.llm.end_id),) == answer.ids
    card = (tmp_path / "out" / "README.md").read_text()
    assert "HumanOmni, converted" in card and "Nothing was trained" in card and str(tmp_path) not in card
