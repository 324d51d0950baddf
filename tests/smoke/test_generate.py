"""Asking a trained run, and looking at a corpus, as a user does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from omnihuman.build import compose_config
from omnihuman.generate import record_of
from omnihuman.training.stage import run_stage
from omnihuman.verb import verbatim


def run(verb: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", f"omnihuman.{verb}", *arguments], capture_output=True, text=True,
                          check=False, timeout=300)  # fmt: skip
    return done.stdout + ("" if done.returncode == 0 else f"\nFAILED\n{done.stderr[-2000:]}")


def test_a_trained_run_answers_about_a_file_it_has_never_seen(corpus: Path, tmp_path: Path) -> None:
    given = ["+experiment=humanomni_stage3", "data=jsonl", f"data.records={corpus}/train.json", f"data.root={corpus}",
             f"runs={tmp_path}", "init_from=[]", "trainer.max_steps=1", "data.num_workers=0", "stage.batch_size=4",
             f"data.val_records={corpus}/val.json"]  # fmt: skip
    trained = run_stage(compose_config(given), given)
    columns = (trained.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/loss", "val/emotion/war", "val/emotion_video/uar", "val/gate/face/face"} <= set(columns)
    clip = next(iter(sorted((corpus / "media").glob("train_talk*.mp4"))))
    question = "instruction=What's the main emotion, please?\nhappy ,sad"
    said = run("generate", "run=humanomni_stage3", f"runs={tmp_path}", f"video={clip}", question, "max_new_tokens=4",
               "modal=video", f"frames_png={tmp_path}/frames.png")  # fmt: skip
    assert "answer:" in said and said.count(" s,") == 7 and "FAILED" not in said
    assert "interaction 0." in said and "body 0." in said and "face 0." in said
    width, height = Image.open(tmp_path / "frames.png").size
    assert width == 8 * height or width % 8 == 0


def test_questions_of_a_file_are_answered_in_its_order(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    clips = sorted((corpus / "media").glob("train_talk*.mp4"))
    (tmp_path / "a.mp4").write_bytes(clips[0].read_bytes())
    (tmp_path / "cut.mp4").write_bytes(clips[1].read_bytes()[:3000])
    turns = [{"from": "human", "value": "<video>\nWho, really?"}, {"from": "gpt", "value": "unused"}]
    lines = [
        {"id": "x", "video": "a.mp4", "instruction": "Who?"},
        {"video": "cut.mp4", "instruction": "Who?"},
        {"video": str(clips[1]), "instruction": "What is said?", "modal": "audio"},
        {"instruction": "Hello?", "modal": "text"},
        {"video": "a.mp4", "conversations": turns},
        {"video": "a.mp4"},
        {"vidoe": "a.mp4", "instruction": "Who?", "label": "mine"},
    ]
    file, out = tmp_path / "q.jsonl", tmp_path / "new" / "answers.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n{broken\n")
    folder = model_folder("humanomni_stage3")
    run("generate", f"run={folder}", f"questions={file}", f"out={out}", "batch_size=2", "max_new_tokens=3")
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in said] == ["x", "2", "3", "4", "5", "6", "7", "9"]
    assert ["error" in line for line in said] == [False, True, False, False, False, True, True, True]
    assert "cut.mp4" in said[1]["error"] and "what is the question" in said[5]["error"]
    assert "'video' is meant?" in said[6]["error"] and "q.jsonl:9: this is no JSON" in said[7]["error"]
    assert [[*line["weights"]] for line in said if "weights" in line] == [["gate"], [], [], ["gate"]]
    assert [line["slots"] for line in said if "slots" in line] == [["video", "audio"], ["audio"], [], ["video"]]
    alone = run("generate", f"run={folder}", f"video={clips[1]}", "modal=audio", "instruction=What is said?",
                "json=true", "max_new_tokens=3", "temperature=0")  # fmt: skip
    assert json.loads(alone)["answer"] == said[2]["answer"] and json.loads(alone)["ids"] == said[2]["ids"]


def test_a_run_that_was_never_trained_is_named_with_its_command(corpus: Path, tmp_path: Path) -> None:
    clip = next(iter(sorted((corpus / "media").glob("*.mp4"))))
    said = run("generate", "run=humanomni_stage3", f"runs={tmp_path}", f"video={clip}", "instruction=Who?")
    assert "train it: python -m omnihuman.train +experiment=humanomni_stage3" in said


def asked(**values: object) -> DictConfig:
    keys = {
        "video": None,
        "audio": None,
        "image": None,
        "modal": None,
        "start": None,
        "end": None,
        "instruction": "Who?",
    }
    return OmegaConf.create(keys | values)


def test_a_question_becomes_a_record(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.touch()
    assert record_of(asked(video=str(file))).messages[0] == ("user", "<video>\n<audio>\nWho?")
    assert record_of(asked(image=str(file))).messages[0] == ("user", "<image>\nWho?")
    assert record_of(asked(image=str(file))).slots == ("video",)
    assert record_of(asked(modal="text")).messages[0] == ("user", "Who?")
    assert record_of(asked(video="a.mp4", end=2), root=tmp_path).file == file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one"),
        ({"video": "a", "audio": "b"}, "exactly one"),
        ({"video": "nowhere.mp4"}, "no such file"),
        ({"video": ["a.mp4"]}, "must be text"),
        ({"video": __file__, "start": "soon"}, "must be seconds"),
        ({"video": __file__, "instruction": None}, "what is the question"),
    ],
)
def test_what_cannot_be_asked_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record_of(asked(**values))


@pytest.mark.parametrize(
    "text", ["a, b", "it's", 'say "x"', "[1]", "a=b", "what? {x}: 50%", "C:\\x", "$x ${y}", "back\\"]
)
def test_free_text_reaches_the_program_unchanged(text: str) -> None:
    config = compose_config(["run=x", verbatim(f"instruction={text}", ("instruction",))], root="generate")
    assert config.instruction == text


def test_inspect_counts_and_draws(corpus: Path, tmp_path: Path) -> None:
    said = run(
        "inspect", "data=jsonl", f"data.records={corpus}/val.json", f"data.root={corpus}", f"out={tmp_path}", "count=3"
    )
    assert "face" in said and "records of" in said and "FAILED" not in said
    assert Image.open(tmp_path / "val_records.png").size[0] > 600
