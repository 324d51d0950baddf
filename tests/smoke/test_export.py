import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from omnihuman.export import num_bytes


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_export_then_ask_with_transformers_in_another_process(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    folder, out, clip = model_folder("humanomni_stage3"), tmp_path / "mine", min((corpus / "media").glob("*.mp4"))
    done = run("-m", "omnihuman.export", f"run={folder}", f"out={out}", "max_shard_size=8MB")
    assert done.returncode == 0, done.stderr
    assert "model-00001-of-" in done.stdout and f"in {out}" in done.stdout and not done.stderr
    lines = "\n".join(line.strip() for line in done.stdout.splitlines()[-3:]).replace("clip.mp4", str(clip))
    told = run("-c", lines)
    assert told.returncode == 0, told.stderr
    asked = run(
        "-m",
        "omnihuman.generate",
        f"run={folder}",
        f"video={clip}",
        "instruction=What is the main emotion?",
        "stream=false",
    )
    assert asked.stdout.splitlines()[0] == f"answer: {told.stdout.strip()}"


def test_bad_options_are_named(tmp_path: Path) -> None:
    done = run("-m", "omnihuman.export", "run=any", f"out={tmp_path / 'x'}", "format=gguf")
    assert done.returncode and "choose from huggingface, humanomni" in done.stderr and not (tmp_path / "x").exists()
    with pytest.raises(ValueError, match="write it as 200MB or 5GB"):
        num_bytes("big")
