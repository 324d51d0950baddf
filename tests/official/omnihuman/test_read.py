import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.hub.card import find_bases
from omnihuman.inference.answerer import Answerer
from omnihuman.inference.question import build_question
from omnihuman.official.conversion import Request, convert
from omnihuman.training.model_folder import load_model
from omnihuman.training.run_search import read_config

Folder = Callable[..., Path]


@pytest.mark.parametrize(
    "experiment",
    ["humanomni_stage3", "favchat_stage3", pytest.param("omni_emotion_recognition", marks=pytest.mark.slow)],
)
def test_converted_release_answers_as_the_run(
    experiment: str, make_run: Folder, make_release: Folder, corpus: Path, tmp_path: Path
) -> None:
    run = make_run(experiment)
    folder = convert(Request("omnihuman", str(make_release(experiment)), tmp_path / "converted"))
    clip = str(min((corpus / "media").glob("train_talk*.mp4")))
    record = build_question({"video": clip, "instruction": "What is the main emotion?"})
    answers = []
    for path in (run, folder):
        answerer = Answerer.load(path, merge_lora=True, device="cpu")
        answers.append(answerer.answer_prompts([answerer.build_prompt(record)], max_new_tokens=6)[0])
    assert answers[0].ids == answers[1].ids and answers[0].prompt_tokens == answers[1].prompt_tokens
    config, model = load_model(folder)
    assert config.data.num_frames == read_config(run).data.num_frames
    assert ("A" in config.data.views) is ("audio" in model.encoders)
    bases, run_bases = list(find_bases(folder, config)), list(dict.fromkeys(find_bases(run, config)))
    assert bases == run_bases or "foundation" in str(bases)


def test_base_model_with_an_adapter_raises(make_release: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lora=merge"):
        convert(Request("omnihuman", str(make_release("favchat_stage3", "adapter")), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("config.json", ("graph", "llm", "_target_"), "os.system", r"'os\.system'.*omnihuman\.llm"),
        ("processor_config.json", ("data", "root"), "/", r"unknown .*\broot\b"),
        ("processor_config.json", ("data", "separator"), "${oc.env:HOME}", r"oc\.env:HOME.*plain value"),
        ("processor_config.json", ("data",), 3, "has no data"),
    ],
)
def test_untrusted_folder_is_checked(
    file: str, keys: tuple[str, ...], value: object, message: str, make_release: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(make_release("favchat_stage3"), tmp_path / "release")
    content: Any = json.loads((folder / file).read_text())
    node = content
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        convert(Request("omnihuman", str(folder), tmp_path / "out"))


def test_release_in_place_of_a_model_folder_names_the_command(make_release: Folder) -> None:
    with pytest.raises(ValueError, match=r"convert official=omnihuman path="):
        read_config(make_release("favchat_stage3"))


def test_generation_options_are_kept(make_release: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(make_release("favchat_stage3"), tmp_path / "release")
    content = json.loads((folder / "config.json").read_text())
    content["graph"]["llm"]["generation"] = {"repetition_penalty": 1.05}
    (folder / "config.json").write_text(json.dumps(content))
    converted = convert(Request("omnihuman", str(folder), tmp_path / "out"))
    assert OmegaConf.load(converted / "config.yaml").model.llm.generation == {"repetition_penalty": 1.05}
