"""SECURITY.md: one test for each promise."""

import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from omnihuman.build import compose_config, compose_part
from omnihuman.data.messages import parse_generation_options
from omnihuman.data.record import BadSample, parse_record
from omnihuman.gate import check_config, read_config
from omnihuman.llm.causal import CausalLM
from omnihuman.serving.guard import is_cross_site
from omnihuman.serving.openai import RequestLimits
from omnihuman.serving.process import private_folder
from omnihuman.serving.uploads import RequestError, Uploads
from omnihuman.training.chain import resolve_chain
from omnihuman.training.model_folder import load_model
from omnihuman.training.runs import FINISHED
from omnihuman.training.stage import run_stage

PROMISES = (Path(__file__).parents[2] / "SECURITY.md").read_text()
TARGET = "omnihuman.model.omni.torch.hub.load"
"""A function that is reached through a module of ours."""


class Touch:
    """A pickle that would run code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture
def call_verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that runs a verb in this process, and returns the line with which it ends."""

    def call(verb: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["omnihuman"])
        with pytest.raises(SystemExit) as exit_:
            import_module(f"omnihuman.{verb}").main(list(arguments))
        return str(exit_.value)

    yield call
    HydraConfig.instance().cfg = None


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder that is a run, an evaluation and a release at once, each with a hostile target."""
    folder = tmp_path / "hostile"
    evaluation = folder / "evaluation" / "sample" / "VA"
    evaluation.mkdir(parents=True)
    for name in ("weights.safetensors", FINISHED):
        (folder / name).touch()
    (folder / "digest").write_text("a\nb\n")
    node = {"_target_": TARGET, "repo_or_dir": "evil/repo", "model": "evil"}
    OmegaConf.save(OmegaConf.create({"model": {"llm": node}, "data": node}), folder / "config.yaml")
    OmegaConf.save(OmegaConf.create({"run": "x", "view": "VA", "benchmark": node}), evaluation / "config.yaml")
    (evaluation / "predictions.jsonl").write_text("{}\n")
    return folder


VERBS = {
    "generate": ("run={0}", "instruction=Who?", "view=text"),
    "chat": ("run={0}", "port=0"),
    "serve": ("run={0}", "port=0"),
    "evaluate": ("run={0}", "benchmark=sample", "benchmark.root={1}", "benchmark.split=val"),
    "export": ("run={0}", "out={0}/out"),
    "export to humanomni": ("run={0}", "out={0}/out", "format=humanomni"),
    "train": ("+experiment=humanomni_stage3", "base={0}", "runs={0}/runs"),
    "plan": ("+experiment=humanomni_stage3", "base={0}"),
    "report": ("run={0}",),
    "report on a folder": ("folder={0}/evaluation/sample/VA",),
}


@pytest.mark.parametrize("name", VERBS)
def test_hostile_folder_is_refused_by_every_verb(
    name: str, hostile: Path, corpus: Path, call_verb: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnihuman.serving.pool.context", multiprocessing.get_context("fork"))  # no second import
    monkeypatch.setattr(torch.hub, "load", lambda *args, **kwargs: pytest.fail("code of a stranger ran"))
    message = call_verb(name.partition(" ")[0], *(text.format(hostile, corpus) for text in VERBS[name]))
    assert message.startswith(f"error: {hostile}") and f"_target_ is '{TARGET}'" in message and "\n" not in message


def test_hostile_release_is_refused(hostile: Path, call_verb: Callable[..., str], tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    torch.save({"weight": torch.zeros(1)}, release / "pytorch_model.bin")
    graph = {"_target_": "omnihuman.model.omni.OmniModel", "llm": {"_target_": TARGET}}
    (release / "config.json").write_text(json.dumps({"model_type": "omnihuman", "graph": graph}))
    message = call_verb("convert", "official=omnihuman", f"path={release}", f"out={tmp_path / 'out'}")
    assert str(release) in message and f"llm._target_ is '{TARGET}'" in message and "\n" not in message


def test_plugins_open_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from omnihuman.projector.linear import LinearProjector\nclass Mine(LinearProjector): ...\n"
    (tmp_path / "opened.py").write_text(f"{code}class Other(Mine): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("omnihuman.gate.list_plugins", lambda: {"opened.Mine": "opened"})
    node = {"_target_": "opened.Mine", "_partial_": True}
    check_config("x", {"model": {"projectors": {"face": node}}})
    for place in ("encoders", "fusions"):
        with pytest.raises(ValueError, match=r"_target_ is 'opened\.Mine'"):
            check_config("x", {"model": {place: {"face": node}}})
    for target in ("opened.Other", "opened.LinearProjector", "opened.Mine.forward"):
        with pytest.raises(ValueError, match=f"_target_ is '{target}'"):
            check_config("x", {"model": {"projectors": {"face": node | {"_target_": target}}}})


def test_command_line_reaches_no_module_through_ours(
    call_verb: Callable[..., str], corpus: Path, tmp_path: Path
) -> None:
    target = f"++optimizer._target_={TARGET}"
    options = (f"data.root={corpus}", f"runs={tmp_path}", target)
    message = call_verb("train", "+experiment=humanomni_stage1_face", *options)
    assert TARGET in message and "\n" not in message


def test_config_of_a_folder_does_not_read_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    (tmp_path / "config.yaml").write_text("name: ${oc.env:SECRET}")
    with pytest.raises(ValueError, match=r"config\.yaml: name is .*oc\.env") as error:
        read_config(tmp_path / "config.yaml")
    assert "s3cret" not in str(error.value)


def test_hostile_checkpoint_is_refused(corpus: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    files = ["data=json", f"data.records={corpus}/train.json", f"data.val_records={corpus}/val.json"]
    overrides = ["+experiment=humanomni_stage1_face", *files, f"data.root={corpus}", f"runs={tmp_path}"]
    config = compose_config(overrides)
    run = resolve_chain(config, overrides).run
    run.open(config)
    torch.save({"state_dict": {}, "loops": Touch(marker)}, run.checkpoints / "step=1.ckpt")
    with pytest.raises(ValueError, match=r"step=1\.ckpt.*overwrite=true"):
        run_stage(config, overrides)
    assert not marker.exists()


def test_hostile_weights_are_refused(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, marker = tmp_path / "run", tmp_path / "marker"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((model_folder("humanomni_stage1_face") / "config.yaml").read_bytes())
    (folder / FINISHED).touch()
    torch.save({"state_dict": Touch(marker)}, folder / "weights.safetensors")
    with pytest.raises(Exception, match=r"(?i)header|safetensors"):
        load_model(folder)
    assert not marker.exists()


def test_downloads_run_no_code(tokenizer_folder: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\nclass Evil: ...\n")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    template = compose_part("llm/template", "chatml")
    with pytest.raises(ValueError, match=r"trust_remote_code|tokenizer"):
        CausalLM(str(tmp_path), template=template, architecture={"model_type": "qwen2"})
    for fields in ({"auto_map": {"AutoConfig": "evil.Evil"}}, {"attn_implementation": "evil/kernel"}):
        with pytest.raises(ValueError, match=rf"llm\.architecture has {next(iter(fields))}"):
            CausalLM(tokenizer_folder, template=template, architecture={"model_type": "qwen2", **fields})
    with pytest.raises(ValueError, match=r"llm\.lora has megatron_core"):
        CausalLM(tokenizer_folder, template=template, weights="x", lora={"megatron_core": "evil"})
    assert not marker.exists()


def test_paths_of_records_stay_in_the_root(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "Ann"}]
    for path in ("../a.mp4", "/etc/a.mp4"):
        with pytest.raises(BadSample, match="root"):
            parse_record({"id": "a", "video": path, "conversations": turns}, "a", tmp_path / "media", "x.json:1")


def test_requests_name_no_files_and_no_urls(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    for url in (str(tmp_path / "a.mp4"), f"file://{tmp_path}/a.mp4", "http://127.0.0.1/a.mp4"):
        with pytest.raises(RequestError, match=r"data: URL .*allow="):
            Uploads(RequestLimits().media).fetch(url, tmp_path)


def test_uploads_are_deleted() -> None:
    with private_folder("test") as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "a.mp4").touch()
    assert not folder.exists()


@pytest.mark.parametrize("verb", ["chat", "serve"])
def test_network_is_opt_in(verb: str) -> None:
    assert compose_config(["run=x"], verb).host == "127.0.0.1"


def test_web_pages_of_other_sites_get_no_answer() -> None:
    """Both servers call the function; their own tests send requests."""
    assert is_cross_site({"headers": [(b"host", b"localhost:8000"), (b"origin", b"http://evil.example")]})
    assert compose_config(["run=x"], "serve").cors == []


def test_slow_clients_keep_no_place_from_others() -> None:
    """Tests of both servers send such bodies."""
    config = compose_config(["run=x"], "serve")
    assert 0 < config.max_body_seconds < config.max_seconds


def test_values_of_requests_are_checked() -> None:
    for name, value in (("temperature", 1e-300), ("top_p", float("nan")), ("max_new_tokens", 2**63)):
        with pytest.raises(ValueError, match=name):
            parse_generation_options({name: value})


def test_every_promise_names_its_test() -> None:
    promised = PROMISES.partition("## Promised")[2].partition("## Not promised")[0]
    named = set(re.findall(r"`(test_\w+)`", promised))
    tests = {name for name in globals() if name.startswith("test_")} - {"test_every_promise_names_its_test"}
    assert named == tests
    assert all("`test_" in promise for promise in promised.split("\n- ")[1:])
