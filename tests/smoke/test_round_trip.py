"""The whole path of an official checkpoint: convert, answer, train, export, and answer with transformers alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from omnihuman.build import compose_config
from omnihuman.hub.export import export
from omnihuman.official.conversion import Request, convert
from omnihuman.training.stage import run_stage
from tests.official.folders import write_official

TRANSFORMERS_SCRIPT = """
import json, sys
import omnihuman
from transformers import AutoModelForCausalLM, AutoProcessor

omnihuman.register()
folder, clip, question = sys.argv[1:]
model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
ids = model.generate(**processor(video=clip, text=question), max_new_tokens=6)
print(json.dumps({"answer": processor.batch_decode(ids)[0]}))
"""


def run_python(*arguments: str) -> dict[str, object]:
    """Run Python in a new process, and return the JSON that it prints."""
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    return dict(json.loads(process.stdout))


@pytest.mark.slow
def test_exported_folder_answers_like_the_trained_model(corpus: Path, tmp_path: Path) -> None:
    official = write_official(tmp_path / "official", "0_5b", frames=4)
    folder = convert(Request("humanomni", str(official.folder), tmp_path / "converted", official.options))
    clip, question = min((corpus / "media").glob("train_talk*.mp4")), "What is the main emotion?"
    arguments = [f"video={clip}", f"instruction={question}", "json=true", "max_new_tokens=6"]
    first = run_python("-m", "omnihuman.generate", f"run={folder}", *arguments)
    assert int(str(first["prompt_tokens"])) > 500 and first["slots"] == ["video", "audio"]

    overrides = [
        "+experiment=humanomni_stage3",
        f"base={folder}",
        "data=json",
        f"data.records={corpus}/train.json",
        f"data.root={corpus}",
        f"runs={tmp_path}/runs",
        "trainer.max_steps=3",
        "data.num_workers=0",
        "recipe.lr=0.05",
        "validation.views=[]",
        "recipe.batch_size=4",
        "validate_first=false",
    ]
    run = run_stage(compose_config(overrides), overrides)
    trained = run_python("-m", "omnihuman.generate", f"run={run.folder}", *arguments)
    assert trained["answer"] != first["answer"]

    export(run.folder, tmp_path / "mine")
    (tmp_path / "mine").rename(tmp_path / "moved")
    for source in (folder, run.folder, official.folder):  # the exported folder needs none of them
        source.rename(source.with_name("renamed"))
    exported = run_python("-c", TRANSFORMERS_SCRIPT, str(tmp_path / "moved"), str(clip), question)
    assert exported["answer"] == trained["answer"]
