"""A stranger's path: an official checkpoint in, asked, trained on, given away, and asked again with transformers."""

import json
import subprocess
import sys
from pathlib import Path

from omnihuman.build import compose_config
from omnihuman.release.convert import Request, convert
from omnihuman.release.hub.export import export
from omnihuman.training.stage import run_stage
from tests.release.official import write_official

ELSEWHERE = """
import json, sys
import omnihuman
from transformers import AutoModelForCausalLM, AutoProcessor

folder, clip, question = sys.argv[1:]
model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
ids = model.generate(**processor(video=clip, text=question), max_new_tokens=6)
print(json.dumps({"answer": processor.batch_decode(ids)[0]}))
"""


def told(*command: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def test_in_asked_trained_out_and_asked_again(corpus: Path, tmp_path: Path) -> None:
    official = write_official(tmp_path / "official", "0_5b", frames=4)
    folder = convert(Request("humanomni", str(official.folder), tmp_path / "converted", official.options))
    clip, question = min((corpus / "media").glob("train_talk*.mp4")), "What is the main emotion?"
    asked = [f"video={clip}", f"instruction={question}", "json=true", "max_new_tokens=6"]
    first = told("-m", "omnihuman.generate", f"run={folder}", *asked)
    assert int(str(first["prompt_tokens"])) > 500 and first["slots"] == ["video", "audio"]

    given = ["+experiment=humanomni_stage3", f"base={folder}", "data=jsonl", f"data.records={corpus}/train.json",
             f"data.root={corpus}", f"runs={tmp_path}/runs", "trainer.max_steps=3", "data.num_workers=0",
             "stage.lr=0.05", "answers.modals=[]", "stage.batch_size=4", "validate_first=false"]  # fmt: skip
    run = run_stage(compose_config(given), given)
    trained = told("-m", "omnihuman.generate", f"run={run.folder}", *asked)
    assert trained["answer"] != first["answer"]

    export(run.folder, tmp_path / "mine")
    (tmp_path / "mine").rename(tmp_path / "moved")
    for gone in (folder, run.folder, official.folder):
        gone.rename(gone.with_name("gone"))
    assert told("-c", ELSEWHERE, str(tmp_path / "moved"), str(clip), question)["answer"] == trained["answer"]
