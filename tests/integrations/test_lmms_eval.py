"""The lmms-eval plug-in: its tasks say what the benchmarks say, and its model answers for a run, or says why not."""

import importlib.util
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.data.messages import record_of
from omnihuman.data.plan import Row
from omnihuman.data.record import Record, Sighting
from omnihuman.evaluation.answerer import Answer, Answerer
from omnihuman.integrations.lmms_eval_tasks import utils

TASKS = Path(str(files("omnihuman") / "integrations" / "lmms_eval_tasks"))
YAMLS = sorted(TASKS.glob("*.yaml"))
needs_kit = pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms_eval is not installed")


class Loader(yaml.SafeLoader):
    """Functions stay names."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def task_of(path: Path) -> dict[str, Any]:
    template = yaml.load((TASKS / "_template_yaml").read_text(), Loader)
    return {**template, **yaml.load(path.read_text(), Loader)}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    utils.benchmark_of.cache_clear()
    yield
    utils.benchmark_of.cache_clear()


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_task_says_what_its_benchmark_says(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, name = task_of(path), path.stem
    assert (task["task"], task["test_split"]) == (f"omnihuman_{name}", name)
    assert task["dataset_kwargs"] == {"data_files": {name: "stub.json"}} and (TASKS / "stub.json").is_file()
    assert tuple(one["metric"] for one in task["metric_list"]) == utils.FIGURES[name]
    for value in (*task.values(), *(one["aggregation"] for one in task["metric_list"])):
        if str(value).startswith("omnihuman."):
            module, _, function = str(value).rpartition(".")
            assert module == utils.__name__ and callable(getattr(utils, function))
    monkeypatch.setenv(f"OMNIHUMAN_{name.upper()}", f"root={tmp_path}")
    benchmark = utils.benchmark_of(name)
    assert benchmark.name == name
    assert task["generation_kwargs"] == {
        "max_new_tokens": benchmark.max_new_tokens, "do_sample": False, "until": []
    }  # fmt: skip
    truth = ["sad"] if name == "emer_ov" else (benchmark.labels or ("A face.",))[0]
    asked = [Prediction(name, str(n), "fold_1", "Which?", truth, "sad") for n in range(2)]
    shown = {score.name: score for score in benchmark.scores(asked)}
    assert all(shown[figure].higher_is_better for figure in utils.FIGURES[name])


def test_every_task_of_the_table_has_its_yaml() -> None:
    assert {path.stem for path in YAMLS} == set(utils.FIGURES)


def test_options_are_missing_until_they_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIHUMAN_DFEW", raising=False)
    with pytest.raises(ValueError, match=r"export OMNIHUMAN_DFEW='root=...'"):
        utils.benchmark_of("dfew")
    monkeypatch.setenv("OMNIHUMAN_DFEW", "root='/my data' folds=[2] parser=official")
    benchmark: Any = utils.benchmark_of("dfew")
    assert (benchmark.root, benchmark.folds, benchmark.parser) == (Path("/my data"), (2,), "official")


@pytest.mark.parametrize("sightings", [
    None, (), (Sighting(0.0, ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))), Sighting(0.5, ())),
    (Sighting(None, ((1.0, 2.0, 3.0, 4.0),)), Sighting(None, ())),
])  # fmt: skip
def test_a_question_arrives_as_it_was_asked(sightings: tuple[Sighting, ...] | None, tmp_path: Path) -> None:
    for name in ("a.mp4", "a.wav"):
        (tmp_path / name).touch()
    said = (("user", "<video>\n<audio>\nWho?\nAnn ,Bob"), ("assistant", ""))
    record = Record("1", tmp_path / "a.mp4", "video", said, ("video", "audio"), 1.5, 4.0, faces=sightings, rate=5.0,
                    sound=tmp_path / "a.wav", needs=("video",), source="set_1.csv:2")  # fmt: skip
    alone = Record("2", tmp_path / "a.wav", "audio", (("user", "<audio>\nWho?"), ("assistant", "")), ("audio",), 0.5)
    seen = replace(record, id="3", messages=(("user", "<video>\nWho?"), ("assistant", "")), slots=("video",), needs=())
    for each in (record, alone, seen):
        doc = utils.document_of("dfew", Question(each, "happy", "fold_1", ("happy", "sad"), {"k": 1}))
        extra = json.loads(doc["record"])
        made = record_of(utils.messages(doc), each.id, "set_1.csv:2", tmp_path, extra)
        assert made == replace(each, source="set_1.csv:2")
        assert Prediction.of(json.loads(doc["prediction"]), "doc").prompt == doc["prompt"]
        assert utils.visuals(doc) == [str(each.file)]


def test_the_entry_point_and_the_layer_are_declared() -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(file.read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"omnihuman": "omnihuman.integrations.lmms_eval:manifest"}
    # pip cannot solve it beside av>=17 and Hydra's antlr4
    assert not any(name.startswith("lmms") for name in project["optional-dependencies"]["lmms-eval"])


class Talker:
    """In the place of an Answerer: says what it is told to about a file, and remembers its batches."""

    def __init__(self, answers: dict[str, str], senses: str = "VAF", unreadable: Sequence[str] = ()) -> None:
        self.answers, self.senses, self.unreadable = answers, senses, unreadable
        self.batches: list[tuple[list[str], dict[str, Any]]] = []

    def plan(self, records: Sequence[Record]) -> Any:
        return Planned(records, self.unreadable)

    def answer(self, batch: Any, options: Sequence[Sequence[str]] = (), **how: Any) -> list[Answer]:
        self.batches.append(([record.file.stem for record in batch.records], how))
        return [Answer(self.answers[record.file.stem], 1) for record in batch.records]


class Planned:
    """In the place of Samples: a prompt is as long as its text."""

    def __init__(self, records: Sequence[Record], unreadable: Sequence[str]) -> None:
        self.planned = [SimpleNamespace(record=record) for record in records]
        self.lengths = [len(record.messages[0][1]) for record in records]
        lost = [record.source for record in records if record.file.stem in unreadable]
        self.skipped, self.without_boxes = [{"message": f"{place}: it is truncated"} for place in lost], 0

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, row: Row) -> Any:
        return SimpleNamespace(records=[self.planned[index].record for index in row.samples], skipped=[])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a model over a talker."""

    def make(talker: Talker, **arguments: Any) -> Any:
        from omnihuman.integrations.lmms_eval import OmniHumanChat

        monkeypatch.setattr(Answerer, "of_run", classmethod(lambda cls, folder, **how: talker))
        return OmniHumanChat(run="some", **{"num_workers": 0, **arguments})

    return make


def requests(lm: Any, folder: Path, prompts: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Any]:
    docs = []
    for name, _, _ in prompts:
        (folder / f"{name}.mp4").touch()
        docs.append({"file": str(folder / f"{name}.mp4")})
    lm.task_dict["toy"] = {"test": docs}

    def messages_for(words: str) -> Any:
        return lambda doc: [
            {"role": "user", "content": [{"type": "video", "url": doc["file"]}, {"type": "text", "text": words}]}
        ]

    return [
        SimpleNamespace(args=("", messages_for(words), how, number, "toy", "test"))
        for number, (_, words, how) in enumerate(prompts)
    ]


@needs_kit
def test_answers_come_back_in_order_and_batches_are_of_one_kind(model: Any, tmp_path: Path) -> None:
    talker = Talker({"a": "sad\n\nnext", "b": "happy", "c": "fear", "d": "a sad one"})
    lm = model(talker, batch_size="2")
    plain, stopped = {"max_new_tokens": 4, "until": []}, {"max_new_tokens": 4, "until": ["\n\n"]}
    asked = [("a", "Who?", stopped), ("b", "Who is the one there?", plain), ("c", "Who is it?", plain),
             ("d", "Who is the one?", {**plain, "temperature": 0.5})]  # fmt: skip
    assert lm.generate_until(requests(lm, tmp_path, asked)) == ["sad", "happy", "fear", "a sad one"]
    warm = {"max_new_tokens": 4, "temperature": 0.5, "do_sample": True}
    assert talker.batches == [
        (["a"], {"max_new_tokens": 4}), (["b", "c"], {"max_new_tokens": 4}), (["d"], warm)
    ]  # fmt: skip


@needs_kit
def test_what_cannot_be_asked_is_an_error_and_no_empty_answer(model: Any, tmp_path: Path) -> None:
    lm = model(Talker({"a": "sad", "b": "sad"}, unreadable=["b"]))
    both = requests(lm, tmp_path, [("a", "Who?", {}), ("b", "Who?", {})])
    with pytest.raises(ValueError, match=r"1 of 2 questions cannot be asked, the first: toy\[1\]: it is truncated"):
        lm.generate_until(both)
    lm = model(Talker({}, senses="V"))
    sound = [{"role": "user", "content": [{"type": "audio", "url": str(tmp_path / "a.mp4")}]}]
    lm.task_dict["toy"] = {"test": [{}]}
    with pytest.raises(ValueError, match=r"toy\[0\]: there is nothing in its audio that modality=V could use"):
        lm.generate_until([SimpleNamespace(args=("", lambda doc: sound, {}, 0, "toy", "test"))])
    for ask in (lm.loglikelihood, lm.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match=r"omnihuman"):
            ask([])


@needs_kit
def test_a_modality_that_the_run_lacks_is_refused(model: Any) -> None:
    assert model(Talker({}, senses="VF")).modality == "VF"
    assert model(Talker({}), modality="VA").modality == "VA"
    with pytest.raises(ValueError, match=r"modality=A: the run can be asked with V, F, VF"):
        model(Talker({}, senses="VF"), modality="A")
    with pytest.raises(ValueError, match=r"batch_size=auto: give a number"):
        model(Talker({}), batch_size="auto")


@needs_kit
def test_the_kit_finds_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    point = EntryPoint("omnihuman", "omnihuman.integrations.lmms_eval:manifest", "lmms_eval.models")
    monkeypatch.setattr(ModelRegistryV2, "_select_entry_points", lambda self, group: [point])
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("omnihuman_chat").__name__ == "OmniHumanChat"


@needs_kit
def test_dfew_through_the_kit(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold 1: 3 of 4 right, recalls 1, 1/2, 1; fold 2: 1 of 1 right."""
    clips = {"1": (1, "1", "happy"), "2": (1, "2", "Sad."), "3": (1, "2", "happy"), "4": (1, "7", "fear"),
             "5": (2, "3", "neutral")}  # fmt: skip
    (tmp_path / "videos").mkdir()
    split = tmp_path / "EmoLabel_DataSplit/test(single-labeled)"
    split.mkdir(parents=True)
    for fold in (1, 2):
        lines = [f"{int(name):05d},{label}" for name, (in_fold, label, _) in clips.items() if in_fold == fold]
        (split / f"set_{fold}.csv").write_text("\n".join(["video_name,label", *lines, ""]))
    for name in clips:
        (tmp_path / f"videos/{name}.mp4").touch()
    monkeypatch.setenv("OMNIHUMAN_DFEW", f"root={tmp_path} folds=[1,2]")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    from lmms_eval import evaluator
    from lmms_eval.tasks import TaskManager

    lm = model(Talker({name: answer for name, (_, _, answer) in clips.items()}), batch_size=3)
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    found = evaluator.simple_evaluate(model=lm, tasks=["omnihuman_dfew"], task_manager=manager, bootstrap_iters=0)
    figures = found["results"]["omnihuman_dfew"]
    assert figures["war,none"] == pytest.approx((75 + 100) / 2)
    assert figures["uar,none"] == pytest.approx((100 * 2.5 / 3 + 100) / 2)
    samples = found["samples"]["omnihuman_dfew"]
    assert [one["war"]["score"] for one in samples] == [100, 100, 0, 100, 100]
    # of WAR, in its unit; for UAR the kit has none
    assert figures["war_stderr_clt,none"] == pytest.approx(100 * (0.2 / 5) ** 0.5)
    assert figures["uar_stderr_clt,none"] != figures["war_stderr_clt,none"]
    assert all(how == {"max_new_tokens": 16} for _, how in lm.answerer.batches)
