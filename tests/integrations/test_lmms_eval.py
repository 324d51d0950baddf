"""The lmms-eval plug-in: tasks match their benchmarks, and the model answers requests or raises."""

import importlib.util
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from omnihuman.benchmark.base import Prediction, Question
from omnihuman.build import config_dir
from omnihuman.data.messages import build_record
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import FaceDetection, Record
from omnihuman.inference.answer import Answer
from omnihuman.inference.answerer import Answerer
from omnihuman.integrations import lmms_eval_tasks as tasks
from omnihuman.modality import View

needs_lmms_eval = pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms_eval is not installed")

EMOTION = {"reference": "happy", "group": "fold_1"}
CAPTION = {"reference": "She smiles."}
SPEECH = {"reference": "she smiles"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "dfec": CAPTION,
    "dfew": EMOTION,
    "emer": CAPTION,
    "emer_ov": {"reference": ["happy"]},
    "fleurs": SPEECH | {"group": "en_us"},
    "librispeech": SPEECH | {"group": "test-clean"},
    "mafw": EMOTION,
    "mvbench_human": {
        "reference": "A",
        "group": "action_count",
        "options": ("A", "B"),
        "meta": {"candidates": ["2", "3"], "video": "1.mp4"},
    },
    "ravdess": EMOTION,
    "records": EMOTION,
    "sample": EMOTION,
    "speakers": SPEECH | {"group": "first", "meta": {"other_transcript": "no"}},
    "wenetspeech": SPEECH | {"group": "TEST_NET"},
}
"""Benchmark -> a question of it."""

WITHOUT_TASK = {
    "youtube_faces": "a question is about two videos, and the messages of lmms-eval have one",
    "youtube_faces_described": "a judge answers the questions from two answers",
}
"""Benchmark without a task -> the reason."""


class Loader(yaml.SafeLoader):
    """Loads functions as their names."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture(autouse=True)
def clear_cache() -> Iterator[None]:
    tasks.load_benchmark.cache_clear()
    yield
    tasks.load_benchmark.cache_clear()


def test_every_benchmark_has_a_task_or_a_reason() -> None:
    names = {path.stem for path in (Path(config_dir()) / "benchmark").glob("*.yaml")}
    assert names == set(EXAMPLES) | set(WITHOUT_TASK) and not set(EXAMPLES) & set(WITHOUT_TASK)


def list_options(name: str, folder: Path) -> list[str]:
    """Return the overrides of a benchmark whose data is in a folder."""
    if name == "sample":
        return ["benchmark=sample"]
    if name != "records":
        return [f"benchmark={name}", f"benchmark.root={folder}"]
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "happy"}]
    record = {"video": "1.mp4", "conversations": turns, "meta": {"options": ["happy", "sad"]}}
    (folder / "test.json").write_text(json.dumps([record]))
    return ["benchmark=records", f"benchmark.path={folder}/test.json"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_task_has_the_questions_and_scores_of_its_benchmark(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.mp4").touch()
    overrides = [*list_options(name, tmp_path), "tag=mine"]
    benchmark: Any = tasks.load_benchmark(tuple(overrides))
    if name != "records":
        record = Record("1", tmp_path / "1.mp4", "video", (("user", "<video>\nWho?"), ("assistant", "")), ("video",))
        question = Question(record, **EXAMPLES[name])
        monkeypatch.setattr(type(benchmark), "questions", lambda self: [question])
    assert tasks.write_task(tmp_path / "tasks", overrides) == f"omnihuman_{name}_mine"
    task = yaml.load((tmp_path / f"tasks/omnihuman_{name}_mine.yaml").read_text(), Loader)
    assert task["generation_kwargs"] == {"max_new_tokens": benchmark.max_new_tokens, "do_sample": False, "until": []}
    for value in (*task.values(), *(metric["aggregation"] for metric in task["metric_list"])):
        if str(value).startswith("omnihuman."):
            module, _, function = str(value).rpartition(".")
            assert module == tasks.__name__ and callable(getattr(tasks, function))
    lines = (tmp_path / "tasks" / task["dataset_kwargs"]["data_files"][task["test_split"]]).read_text().splitlines()
    (document,) = map(json.loads, lines)
    answer = json.dumps(EXAMPLES[name]["reference"])
    items = tasks.score_answer(document, ["2" if name == "mvbench_human" else answer.strip('"')])
    values = {metric: tasks.aggregate([item]) for metric, item in items.items()}
    assert list(values) == [metric["metric"] for metric in task["metric_list"]]
    for metric in task["metric_list"]:
        is_error = metric["metric"].startswith(("wer", "cer", "mer", "wrong")) and "other" not in metric["metric"]
        assert metric["higher_is_better"] is not is_error
    best = {True: 100.0, False: 0.0}[task["metric_list"][0]["higher_is_better"]]
    if name != "dfec":  # the CIDEr of a single caption is 0
        assert next(iter(values.values())) == pytest.approx(best), "the answer is the reference"


def test_a_question_that_a_task_cannot_ask_raises(tmp_path: Path) -> None:
    record = Record("7", tmp_path / "a.mp4", "video", (("user", "<video>\nWho?"), ("assistant", "")), ("video",))
    benchmark = tasks.load_benchmark(("benchmark=dfew", f"benchmark.root={tmp_path}"))
    for changed in (replace(record, second_clip=tmp_path), replace(record, messages=record.messages * 2)):
        with pytest.raises(ValueError, match=r"7: .*omnihuman evaluate benchmark=dfew"):
            tasks.check_questions(benchmark, [Question(changed, "happy")])
    two_steps = tasks.load_benchmark(("benchmark=dfew", f"benchmark.root={tmp_path}", "benchmark.two_step=true"))
    with pytest.raises(ValueError, match=r"several turns"):
        tasks.check_questions(two_steps, [Question(record, "happy")])
    log_probs = ("benchmark=mvbench_human", f"benchmark.root={tmp_path}", "benchmark.parser=log_probs")
    with pytest.raises(ValueError, match=r"mvbench_human: .*log-probabilities"):
        tasks.check_questions(tasks.load_benchmark(log_probs), [])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"benchmark= is missing"),
        (["benchmark=dfew", "benchmark.root=.", "view=V"], r"view=V: .*benchmark and tag"),
    ],
)
def test_a_task_without_benchmark_or_with_other_options_raises(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.write_task(tmp_path, overrides)


@pytest.mark.parametrize(
    "faces",
    [
        None,
        (),
        (FaceDetection(0.0, ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))), FaceDetection(0.5, ())),
        (FaceDetection(None, ((1.0, 2.0, 3.0, 4.0),)), FaceDetection(None, ())),
    ],
)
def test_a_question_survives_the_round_trip(faces: tuple[FaceDetection, ...] | None, tmp_path: Path) -> None:
    for name in ("a.mp4", "a.wav"):
        (tmp_path / name).touch()
    messages = (("user", "<video>\n<audio>\nWho?\nAnn ,Bob"), ("assistant", ""))
    record = Record(
        "1",
        tmp_path / "a.mp4",
        "video",
        messages,
        ("video", "audio"),
        1.5,
        4.0,
        faces=faces,
        fps=5.0,
        audio_track=tmp_path / "a.wav",
        needs=("video",),
        meta={"instruction": "Who?", "prime": "It is"},
        audio_stream=1,
        location="set_1.csv:2",
    )
    messages = (("user", "<audio>\nWho?"), ("assistant", ""))
    audio_only = Record("2", tmp_path / "a.wav", "audio", messages, ("audio",), 0.5)
    messages = (("user", "<video>\nWho?"), ("assistant", ""))
    video_only = replace(record, id="3", messages=messages, slots=("video",), needs=(), meta={})
    for original in (record, audio_only, video_only):
        doc = tasks.build_document("dfew", Question(original, "happy", "fold_1", ("happy", "sad"), {"k": 1}))
        extra = json.loads(doc["record"])
        rebuilt = build_record(tasks.build_messages(doc), original.id, "set_1.csv:2", tmp_path, extra)
        assert rebuilt == replace(original, location="set_1.csv:2")
        assert Prediction.from_json(json.loads(doc["prediction"]), "doc").prompt == doc["prompt"]
        assert tasks.list_media(doc) == [str(original.file)]


def test_entry_point_is_declared() -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(file.read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"omnihuman": "omnihuman.integrations.lmms_eval:manifest"}
    # its dependencies conflict with av>=17 and Hydra's antlr4
    assert not any(name.startswith("lmms") for name in project["optional-dependencies"]["lmms-eval"])


class FakeAnswerer:
    """Stands in for an Answerer: returns a fixed answer per file and records its batches."""

    def __init__(self, answers: dict[str, str], view: str = "VAF", unreadable: Sequence[str] = ()) -> None:
        self.answers, self.view, self.unreadable = answers, View(view), unreadable
        self.batches: list[tuple[list[str], dict[str, Any]]] = []

    def plan_questions(self, records: Sequence[Record]) -> Any:
        return FakeSamples(records, self.unreadable)

    def answer_batch(self, batch: Any, options: Sequence[Sequence[str]] = (), **generation_kwargs: Any) -> list[Answer]:
        self.batches.append(([record.file.stem for record in batch.records], generation_kwargs))
        return [Answer(self.answers[record.file.stem], 1) for record in batch.records]


class FakeSamples:
    """Stands in for Samples: the length of a prompt is that of its text."""

    def __init__(self, records: Sequence[Record], unreadable: Sequence[str]) -> None:
        self.planned = [SimpleNamespace(record=record) for record in records]
        self.lengths = [len(record.messages[0][1]) for record in records]
        skipped = [record.location for record in records if record.file.stem in unreadable]
        self.skipped, self.num_unlocated = [{"message": f"{source}: it is truncated"} for source in skipped], 0

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, micro_batch: MicroBatch) -> Any:
        return SimpleNamespace(records=[self.planned[index].record for index in micro_batch.indices], skipped=[])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function: answerer and arguments -> a model of lmms-eval."""

    def make(answerer: FakeAnswerer, **arguments: Any) -> Any:
        from omnihuman.integrations.lmms_eval import OmniHumanChat

        monkeypatch.setattr(Answerer, "load", classmethod(lambda cls, folder, **options: answerer))
        return OmniHumanChat(run="run_folder", **{"num_workers": 0, **arguments})

    return make


def build_requests(lm: Any, folder: Path, prompts: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Any]:
    docs = []
    for name, _, _ in prompts:
        (folder / f"{name}.mp4").touch()
        docs.append({"file": str(folder / f"{name}.mp4")})
    lm.task_dict["toy"] = {"test": docs}

    def build_messages(text: str) -> Any:
        return lambda doc: [
            {"role": "user", "content": [{"type": "video", "url": doc["file"]}, {"type": "text", "text": text}]}
        ]

    return [
        SimpleNamespace(args=("", build_messages(text), options, number, "toy", "test"))
        for number, (_, text, options) in enumerate(prompts)
    ]


@needs_lmms_eval
def test_answers_are_in_order_and_batches_share_options(model: Any, tmp_path: Path) -> None:
    answerer = FakeAnswerer({"a": "sad\n\nnext", "b": "happy", "c": "fear", "d": "a sad one"})
    lm = model(answerer, batch_size="2")
    plain, stopped = {"max_new_tokens": 4, "until": []}, {"max_new_tokens": 4, "until": ["\n\n"]}
    prompts = [
        ("a", "Who?", stopped),
        ("b", "Who is the one there?", plain),
        ("c", "Who is it?", plain),
        ("d", "Who is the one?", {**plain, "temperature": 0.5}),
    ]
    assert lm.generate_until(build_requests(lm, tmp_path, prompts)) == ["sad", "happy", "fear", "a sad one"]
    sampling = {"max_new_tokens": 4, "temperature": 0.5, "do_sample": True}
    assert answerer.batches == [(["a"], {"max_new_tokens": 4}), (["b", "c"], {"max_new_tokens": 4}), (["d"], sampling)]


@needs_lmms_eval
def test_an_invalid_question_raises(model: Any, tmp_path: Path) -> None:
    lm = model(FakeAnswerer({"a": "sad", "b": "sad"}, unreadable=["b"]))
    both = build_requests(lm, tmp_path, [("a", "Who?", {}), ("b", "Who?", {})])
    with pytest.raises(ValueError, match=r"\b1 of 2 .*toy\[1\]: .*truncated"):
        lm.generate_until(both)
    lm = model(FakeAnswerer({}, view="V"))
    messages = [{"role": "user", "content": [{"type": "audio", "url": str(tmp_path / "a.mp4")}]}]
    lm.task_dict["toy"] = {"test": [{}]}
    with pytest.raises(ValueError, match=r"toy\[0\]: .*audio .*no content .*view=V\b"):
        lm.generate_until([SimpleNamespace(args=("", lambda doc: messages, {}, 0, "toy", "test"))])
    for method in (lm.loglikelihood, lm.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match=r"omnihuman"):
            method([])


@needs_lmms_eval
def test_an_unsupported_modality_raises(model: Any) -> None:
    assert str(model(FakeAnswerer({}, view="VF")).view) == "VF"
    assert str(model(FakeAnswerer({}), view="VA").view) == "VA"
    assert str(model(FakeAnswerer({}, view="VF"), view="VAF").view) == "VF"
    with pytest.raises(ValueError, match=r"view=A: .*\bVF\b"):
        model(FakeAnswerer({}, view="VF"), view="A")
    with pytest.raises(ValueError, match=r"batch_size=auto: .*number"):
        model(FakeAnswerer({}), batch_size="auto")


@needs_lmms_eval
def test_lmms_eval_finds_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    point = EntryPoint("omnihuman", "omnihuman.integrations.lmms_eval:manifest", "lmms_eval.models")
    monkeypatch.setattr(ModelRegistryV2, "_select_entry_points", lambda self, group: [point])
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("omnihuman_chat").__name__ == "OmniHumanChat"


@needs_lmms_eval
def test_dfew_in_lmms_eval(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold 1: 3 of 4 right, recalls 1, 1/2, 1; fold 2: 1 of 1 right."""
    clips = {
        "1": (1, "1", "happy"),
        "2": (1, "2", "Sad."),
        "3": (1, "2", "happy"),
        "4": (1, "7", "fear"),
        "5": (2, "3", "neutral"),
    }
    (tmp_path / "videos").mkdir()
    split = tmp_path / "EmoLabel_DataSplit/test(single-labeled)"
    split.mkdir(parents=True)
    for fold in (1, 2):
        lines = [f"{int(name):05d},{label}" for name, (in_fold, label, _) in clips.items() if in_fold == fold]
        (split / f"set_{fold}.csv").write_text("\n".join(["video_name,label", *lines, ""]))
    for name in clips:
        (tmp_path / f"videos/{name}.mp4").touch()
    tasks.write_task(tmp_path / "tasks", ["benchmark=dfew", f"benchmark.root={tmp_path}", "benchmark.folds=[1,2]"])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    from lmms_eval import evaluator
    from lmms_eval.tasks import TaskManager

    lm = model(FakeAnswerer({name: answer for name, (_, _, answer) in clips.items()}), batch_size=3)
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    outcome = evaluator.simple_evaluate(model=lm, tasks=["omnihuman_dfew"], task_manager=manager, bootstrap_iters=0)
    results = outcome["results"]["omnihuman_dfew"]
    assert results["war,none"] == pytest.approx((75 + 100) / 2)
    assert results["uar,none"] == pytest.approx((100 * 2.5 / 3 + 100) / 2)
    samples = outcome["samples"]["omnihuman_dfew"]
    assert [sample["war"]["score"] for sample in samples] == [100, 100, 0, 100, 100]
    # of WAR, in its unit; lmms-eval has none for UAR
    assert results["war_stderr_clt,none"] == pytest.approx(100 * (0.2 / 5) ** 0.5)
    assert results["uar_stderr_clt,none"] != results["war_stderr_clt,none"]
    assert all(options == {"max_new_tokens": 16} for _, options in lm.answerer.batches)
