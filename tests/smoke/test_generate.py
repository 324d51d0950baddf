"""The verb ``generate`` on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from omnihuman.build import compose_config
from omnihuman.inference.question import build_question
from omnihuman.overrides import quote_argument
from omnihuman.training.stage import run_stage
from tests.programs import run_program


def run_verb(verb: str, *arguments: str) -> str:
    """Return the output of a verb, with ``FAILED`` and its errors if it failed."""
    process = run_program(f"omnihuman.{verb}", *arguments)
    if process.returncode == 0:
        return process.stdout
    return f"{process.stdout}\nFAILED\n{process.stderr[-2000:]}"


def test_trained_run_answers_a_question_about_a_file(corpus: Path, tmp_path: Path) -> None:
    overrides = [
        "+experiment=humanomni_stage3",
        "data=json",
        f"data.records={corpus}/train.json",
        f"data.val_records={corpus}/val.json",
        f"data.root={corpus}",
        f"runs={tmp_path}",
        "init_from=[]",
        "trainer.max_steps=1",
        "data.features=null",
        "data.num_workers=0",
        "data.val_limit=8",
        "validation.limit=2",
        "recipe.batch_size=4",
        "validate_first=false",
    ]
    run = run_stage(compose_config(overrides), overrides)
    columns = (run.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/loss", "val/emotion/war", "val/emotion_VF/uar", "val/gate/face/face"} <= set(columns)
    clip = min((corpus / "media").glob("train_talk*.mp4"))
    question = "instruction=What's the main emotion, please?\nhappy ,sad"
    output = run_verb(
        "generate",
        "run=humanomni_stage3",
        f"runs={tmp_path}",
        f"video={clip}",
        question,
        "max_new_tokens=4",
        "view=VF",
        f"frames_png={tmp_path}/frames.png",
    )
    assert "answer:" in output and output.count(" s,") == 7 and "FAILED" not in output
    assert "interaction 0." in output and "body 0." in output and "face 0." in output
    width, height = Image.open(tmp_path / "frames.png").size
    assert width == 8 * height or width % 8 == 0


def test_questions_of_a_file_are_answered_in_order(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    clips = sorted((corpus / "media").glob("train_talk*.mp4"))
    (tmp_path / "a.mp4").write_bytes(clips[0].read_bytes())
    (tmp_path / "cut.mp4").write_bytes(clips[1].read_bytes()[:3000])
    turns = [{"from": "human", "value": "<video>\nWho, really?"}, {"from": "gpt", "value": "unused"}]
    lines = [
        {"id": "x", "video": "a.mp4", "instruction": "Who?"},
        {"video": "cut.mp4", "instruction": "Who?"},
        {"video": str(clips[1]), "instruction": "What is said?", "view": "A"},
        {"instruction": "Hello?", "view": "text"},
        {"video": "a.mp4", "conversations": turns},
        {"video": "a.mp4"},
        {"vidoe": "a.mp4", "instruction": "Who?", "label": "mine"},
    ]
    file, out = tmp_path / "q.jsonl", tmp_path / "new" / "answers.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n{broken\n")
    folder = model_folder("humanomni_stage3")
    options = [f"run={folder}", f"questions={file}", f"out={out}", "batch_size=2", "max_new_tokens=3"]
    output = run_verb("generate", *options)
    assert "FAILED" in output and "q.jsonl: line 2, 6, 7, 9 failed" in output
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in answers] == ["x", "2", "3", "4", "5", "6", "7", "9"]
    assert ["error" in line for line in answers] == [False, True, False, False, False, True, True, True]
    assert "cut.mp4" in answers[1]["error"] and "instruction=" in answers[5]["error"]
    assert "did you mean 'video'?" in answers[6]["error"] and "q.jsonl:9: malformed JSON" in answers[7]["error"]
    assert [[*line["weights"]] for line in answers if "weights" in line] == [["gate"], [], [], ["gate"]]
    assert [line["slots"] for line in answers if "slots" in line] == [["video", "audio"], ["audio"], [], ["video"]]
    output = run_verb(
        "generate",
        f"run={folder}",
        f"video={clips[1]}",
        "view=A",
        "instruction=What is said?",
        "json=true",
        "max_new_tokens=3",
        "temperature=0",
    )
    alone = json.loads(output)
    assert alone["answer"] == answers[2]["answer"] and alone["ids"] == answers[2]["ids"]


def test_missing_run_raises_with_the_command_that_trains_it(corpus: Path, tmp_path: Path) -> None:
    clip = min((corpus / "media").glob("*.mp4"))
    output = run_verb("generate", "run=humanomni_stage3", f"runs={tmp_path}", f"video={clip}", "instruction=Who?")
    assert "train it: omnihuman train +experiment=humanomni_stage3" in output


def build_config(**values: object) -> DictConfig:
    keys = {
        "video": None,
        "audio": None,
        "image": None,
        "view": None,
        "start": None,
        "end": None,
        "instruction": "Who?",
    }
    return OmegaConf.create(keys | values)


def test_question_is_converted_to_a_record(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.touch()
    assert build_question(build_config(video=str(file))).messages[0] == ("user", "<video>\n<audio>\nWho?")
    assert build_question(build_config(image=str(file))).messages[0] == ("user", "<image>\nWho?")
    assert build_question(build_config(image=str(file))).slots == ("video",)
    assert build_question(build_config(view="text")).messages[0] == ("user", "Who?")
    assert build_question(build_config(video="a.mp4", end=2), root=tmp_path).file == file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one"),
        ({"video": "a", "audio": "b"}, "exactly one"),
        ({"video": "nowhere.mp4"}, "no such file"),
        ({"video": ["a.mp4"]}, "must be text"),
        ({"video": __file__, "start": "soon"}, "must be seconds"),
        ({"video": __file__, "instruction": None}, "instruction="),
        ({"video": __file__, "start": 3, "end": 2}, r"end 2 .* start 3"),
        ({"video": __file__, "end": 0}, "end 0"),
        ({"video": __file__, "start": -1}, "seconds, got -1"),
        ({"video": __file__, "start": float("nan")}, "seconds, got nan"),
        ({"video": __file__, "end": float("inf")}, r"seconds.* inf"),
    ],
)
def test_invalid_question_raises(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_question(build_config(**values))


@pytest.mark.parametrize(
    "text", ["a, b", "it's", 'say "x"', "[1]", "a=b", "what? {x}: 50%", "C:\\x", "$x ${y}", "back\\"]
)
def test_instruction_in_free_text_is_unchanged(text: str) -> None:
    config = compose_config(["run=x", quote_argument(f"instruction={text}", ("instruction",), ())], root="generate")
    assert config.instruction == text
