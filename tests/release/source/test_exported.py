import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.evaluation.answerer import Answerer
from omnihuman.generate import record_of
from omnihuman.release.convert import Request, convert
from omnihuman.release.hub.card import bases_of
from omnihuman.training.finished import load_model, read_config

Folder = Callable[..., Path]


@pytest.mark.parametrize("experiment", ["humanomni_stage3", "omni_emotion_recognition", "favchat_stage3"])
def test_a_release_becomes_a_model_folder_that_answers_as_the_run(
    experiment: str, run_of: Folder, released: Folder, corpus: Path, tmp_path: Path
) -> None:
    folder = convert(Request("omnihuman", str(released(experiment)), tmp_path / "again"))
    clip = str(min((corpus / "media").glob("train_talk*.mp4")))
    record = record_of({"video": clip, "instruction": "What is the main emotion?"})
    answers = []
    for each in (run_of(experiment), folder):
        answerer = Answerer.of_run(each, merge_lora=True, device="cpu")
        answers.append(answerer.ask([answerer.prompt(record)], max_new_tokens=6)[0])
    assert answers[0].ids == answers[1].ids and answers[0].prompt_tokens == answers[1].prompt_tokens
    config, model = load_model(folder)
    assert config.data.num_frames == read_config(run_of(experiment)).data.num_frames
    assert ("audio" in config.data.views) is ("audio" in model.encoders)
    assert [*bases_of(folder, config)] == [*dict.fromkeys(bases_of(run_of(experiment), config))] or "foundation" in str(
        [*bases_of(folder, config)]
    )


def test_a_bare_model_with_an_adapter_is_refused(released: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="export the run with lora=merge"):
        convert(Request("omnihuman", str(released("favchat_stage3", "adapter")), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("config.json", ("graph", "llm", "_target_"), "os.system", "only a class of omnihuman.llm"),
        ("processor_config.json", ("data", "root"), "/", "no root"),
        ("processor_config.json", ("data", "separator"), "${oc.env:HOME}", "only plain values"),
        ("processor_config.json", ("data",), 3, "says no data"),
    ],
)
def test_a_strangers_folder_is_checked(
    file: str, keys: tuple[str, ...], value: object, message: str, released: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(released("favchat_stage3"), tmp_path / "theirs")
    said: Any = json.loads((folder / file).read_text())
    inner = said
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / file).write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message):
        convert(Request("omnihuman", str(folder), tmp_path / "out"))


def test_where_a_model_folder_is_wanted_a_release_says_what_to_do(released: Folder) -> None:
    with pytest.raises(ValueError, match=r"convert source=omnihuman path="):
        read_config(released("favchat_stage3"))


def test_its_own_generation_options_stay(released: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(released("favchat_stage3"), tmp_path / "theirs")
    said = json.loads((folder / "config.json").read_text())
    said["graph"]["llm"]["generation"] = {"repetition_penalty": 1.05}
    (folder / "config.json").write_text(json.dumps(said))
    made = convert(Request("omnihuman", str(folder), tmp_path / "out"))
    assert OmegaConf.load(made / "config.yaml").model.llm.generation == {"repetition_penalty": 1.05}
