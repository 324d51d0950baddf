"""A file of records as a benchmark."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.records import Records
from omnihuman.build import build, compose_part

Answered = Callable[..., list[Prediction]]
LABELS = ["joy", "sorrow", "deep sorrow"]


@pytest.fixture
def write(tmp_path: Path, clip: Path) -> Callable[..., str]:
    """Return a function that writes a file of records about one clip and returns its path."""

    def write_records(records: list[dict[str, Any]], name: str = "test.json") -> str:
        (tmp_path / "report.json").write_text(json.dumps({"root": str(clip.parent)}))
        path = tmp_path / name
        if path.suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        elif path.suffix == ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(records), path)
        else:
            path.write_text(json.dumps(records))
        return str(path)

    return write_records


def build_raw(number: int, answer: str, options: Any = None, task: str | None = "mood", **keys: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<video>\nWhich?"}, {"from": "gpt", "value": answer}]
    raw = {"id": f"r{number}", "video": "clip.mp4", "task": task, "conversations": turns, **keys}
    if options is not None:
        raw["meta"] = {"options": options}
    return raw


def build_moods(answers: list[str], options: Any = LABELS) -> list[dict[str, Any]]:
    return [build_raw(number, answer, options) for number, answer in enumerate(answers)]


@pytest.mark.parametrize("name", ["test.json", "test.jsonl", "test.parquet"])
def test_labels_of_the_records(name: str, write: Callable[..., str], answered: Answered, clip: Path) -> None:
    benchmark = Records(write(build_moods(["joy", "Deep sorrow.", "sorrow", "joy"]), name))
    questions = benchmark.questions()
    assert benchmark.labels == tuple(LABELS) and benchmark.kind == "label" and not benchmark.log_probs
    assert [q.reference for q in questions] == ["joy", "deep sorrow", "sorrow", "joy"]
    assert questions[0].record.messages == (("user", "<video>\nWhich?"), ("assistant", ""))
    assert questions[0].record.file == clip.resolve() and questions[0].options == benchmark.labels
    predictions = answered(questions, ["I see joy.", "deep sorrow", "joy or sorrow", None])
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    assert scores == {"war": pytest.approx(50), "uar": pytest.approx((50 + 100 + 0) / 3)}
    assert [benchmark.parse(prediction)[1] for prediction in predictions] == ["label", "label", "invalid", "invalid"]


def test_a_report_needs_no_data(write: Callable[..., str], answered: Answered) -> None:
    benchmark = Records(write(build_moods(["joy", "sorrow"])))
    predictions = answered(benchmark.questions(), ["sorrow", "sorrow"])
    config = compose_part("benchmark", "records")
    again = build(config, path="nowhere.json", **benchmark.data_options())
    assert again.labels == benchmark.labels and again.protocol()["task"] == "mood"
    assert [score.value for score in again.scores(predictions)] == [50.0, 50.0]


def test_other_words_of_labels_are_mapped(write: Callable[..., str], answered: Answered) -> None:
    path = write(build_moods(["joy", "gladness", "sorrow"], options=None))
    benchmark = Records(path, labels={"good": ["joy", "gladness"], "bad": "sorrow"})
    questions = benchmark.questions()
    assert [q.reference for q in questions] == ["good", "good", "bad"]
    predictions = answered(questions, ["good", "It is joy!", "bad"])
    assert [score.value for score in benchmark.scores(predictions)] == [100.0, 100.0]
    again = Records("nowhere.json", **benchmark.data_options())
    assert again.parse(predictions[1]) == ("good", "form")


def test_options_of_each_record_are_a_choice(write: Callable[..., str], answered: Answered) -> None:
    path = write([build_raw(0, "a woman", ["a man", "a woman"]), build_raw(1, "red", ["red", "blue", "dark red"])])
    benchmark = Records(path)
    questions = benchmark.questions()
    assert benchmark.kind == "choice" and benchmark.labels == () and questions[0].options == ("a man", "a woman")
    (score,) = benchmark.scores(answered(questions, ["A woman.", "dark red"]))
    assert (score.name, score.value) == ("accuracy", 50.0)


@pytest.mark.parametrize(
    ("kind", "answers", "names", "perfect"),
    [
        ("text", ["a man smiles at us", "a girl cries out loud"], ["cider", "rouge_l"], [10, 1]),
        ("speech", ["they see the car", ""], ["wer", "cer"], [0, 0]),
        ("speech", ["他有书", "他走了"], ["cer", "wer"], [0, 0]),
        ("labels", ["sad, angry", "happy"], None, [100]),
    ],
)
def test_kinds_without_options(
    kind: str,
    answers: list[str],
    names: list[str] | None,
    perfect: list[float],
    write: Callable[..., str],
    answered: Answered,
) -> None:
    benchmark = Records(write(build_moods(answers, options=None)), kind=kind)
    scores = benchmark.scores(answered(benchmark.questions(), answers))
    assert names is None or [score.name for score in scores] == names
    assert [score.value for score in scores[: len(perfect)]] == pytest.approx(perfect)


@pytest.mark.parametrize(("same", "different"), [("Yes", "No"), ("same", "different")])
def test_two_clips_are_pairs(same: str, different: str, write: Callable[..., str], answered: Answered) -> None:
    pairs = [build_raw(n, answer, second_clip="clip.mp4") for n, answer in enumerate([same, different, different])]
    benchmark = Records(write(pairs))
    questions = benchmark.questions()
    assert benchmark.kind == "pairs" and benchmark.log_probs and benchmark.max_new_tokens == 16
    predictions = answered(questions, ["Yes, the same.", "no", "Yes."])
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    assert scores == {"accuracy": pytest.approx(200 / 3)}
    assert [benchmark.parse(prediction)[0] == benchmark.labels[0] for prediction in predictions] == [True, False, True]


def test_the_last_turn_is_asked_in_its_context(write: Callable[..., str]) -> None:
    raw = build_raw(0, "a man", LABELS)
    raw["conversations"] += [{"from": "human", "value": "His mood?"}, {"from": "gpt", "value": "joy"}]
    (question, _) = Records(write([raw, *build_moods(["joy"])[:0], build_raw(1, "sorrow", LABELS)])).questions()
    assert question.reference == "joy" and [text for _, text in question.record.messages] == [
        "<video>\nWhich?",
        "a man",
        "His mood?",
        "",
    ]


def test_one_task_of_several_is_chosen(write: Callable[..., str]) -> None:
    path = write([*build_moods(["joy", "sorrow"]), build_raw(2, "a man smiles", task="caption")])
    with pytest.raises(ValueError, match=r"test\.json .*mood \(2\), caption \(1\).*benchmark\.task="):
        Records(path).questions()
    assert [q.id for q in Records(path, task="mood").questions()] == ["r0", "r1"]
    with pytest.raises(ValueError, match=r"benchmark\.task=moods.*mood \(2\)"):
        Records(path, task="moods").questions()


ERRORS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "an unknown label": (build_moods(["joy", "joyful"]), {}, r"json\[1\].*'joyful'.*'joy'.*benchmark\.labels="),
    "an unknown option": (
        [build_raw(0, "red", ["red", "blue"]), build_raw(1, "x", ["a", "b"])],
        {},
        r"json\[1\].*'x'.*'a', 'b'.*meta\.options",
    ),
    "no options": (build_moods(["joy"], None), {}, r"json\[0\].*meta\.options.*benchmark\.kind=text"),
    "no options in one record": ([*build_moods(["joy"]), build_raw(1, "joy")], {}, r"json\[1\].*meta\.options"),
    "no options of a choice": (build_moods(["joy"], None), {"kind": "choice"}, r"json\[0\].*meta\.options"),
    "options that are no list": (build_moods(["joy"], "joy"), {}, r"json\[0\].*meta\.options.*'joy'"),
    "an option twice": (build_moods(["joy"], ["joy", "Joy"]), {}, r"json\[0\].*meta\.options.*twice"),
    "different options": (
        [build_raw(0, "red", ["red", "blue"]), build_raw(1, "a", ["a", "b"])],
        {"kind": "label"},
        r"test\.json.*benchmark\.labels=.*kind=choice",
    ),
    "an empty caption": (build_moods(["  "], None), {"kind": "text"}, r"json\[0\].*'  '.*empty"),
    "answers that are no pair": (build_moods(["maybe"], None), {"kind": "pairs"}, r"benchmark\.labels=\[<same>"),
    "a missing file": (
        [*build_moods(["joy"]), build_raw(1, "joy", LABELS, video="no.mp4"), build_raw(2, "joy", video="x.mp4")],
        {},
        r"json\[1\].*no\.mp4.*benchmark\.root.*\(1 more record",
    ),
    "an id twice": ([build_raw(0, "joy", LABELS), build_raw(0, "joy", LABELS)], {}, r"'r0'.*json\[0\].*json\[1\]"),
    "no record": ([], {}, r"test\.json has no records"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_invalid_file_raises(name: str, write: Callable[..., str]) -> None:
    records, options, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        Records(write(records), **options).questions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "smell"}, r"kind=smell: .*\blabel\b"),
        ({"labels": ["joy"]}, r"labels=\['joy'\].*two"),
        ({"labels": "joy"}, r"labels=joy: .*two"),
        ({"labels": ["joy", "joy"]}, r"labels=.*different"),
        ({"labels": {"good": ["joy"], "bad": ["Joy"]}}, r"'Joy'.*'good'.*'bad'"),
        ({"labels": [True, "no"]}, r"True.*quotes"),
        ({"labels": ["a", "b"], "kind": "text"}, r"kind=text.*kind=label"),
        ({"labels": ["a", "b", "c"], "kind": "pairs"}, r"labels=.*kind=pairs"),
    ],
)
def test_an_invalid_option_raises(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Records("test.json", **options)


def test_the_root_of_the_media_can_be_given(write: Callable[..., str], clip: Path, tmp_path: Path) -> None:
    path = write(build_moods(["joy", "sorrow"]))
    (tmp_path / "report.json").unlink()
    with pytest.raises(ValueError, match=r"json\[0\].*clip\.mp4"):
        Records(path).questions()
    assert len(Records(path, root=str(clip.parent)).questions()) == 2


def test_a_folder_is_no_file(write: Callable[..., str], tmp_path: Path) -> None:
    write(build_moods(["joy"]))
    with pytest.raises(ValueError, match=r"benchmark\.path=.*: .*/test\.json\.$"):
        Records(str(tmp_path)).questions()


def test_links_are_followed_on_request(write: Callable[..., str], clip: Path, tmp_path: Path) -> None:
    path = write(build_moods(["joy", "sorrow"]))
    (tmp_path / "media").mkdir()
    (tmp_path / "media/clip.mp4").symlink_to(clip)
    root = str(tmp_path / "media")
    with pytest.raises(ValueError, match=r"json\[0\].*benchmark\.root.*benchmark\.follow_links=true"):
        Records(path, root=root).questions()
    assert len(Records(path, root=root, follow_links=True).questions()) == 2


@pytest.mark.parametrize(("keys", "name"), [({"path": "gone.json"}, "path"), ({"root": "gone"}, "root")])
def test_a_missing_file_or_folder_raises(keys: dict[str, str], name: str, write: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=rf"benchmark\.{name}=gone.*no such"):
        Records(**{"path": write(build_moods(["joy", "sorrow"])), **keys}).questions()
