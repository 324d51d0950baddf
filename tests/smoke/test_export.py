"""Export on the command line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from omnihuman.export import parse_size
from tests.programs import run_program


@pytest.mark.slow
def test_printed_example_answers_like_generate(
    model_folder: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    folder, out, clip = model_folder("humanomni_stage3"), tmp_path / "mine", min((corpus / "media").glob("*.mp4"))
    export = run_program("omnihuman.export", f"run={folder}", f"out={out}", "max_shard_size=8MB")
    assert export.returncode == 0, export.stderr
    assert "model-00001-of-" in export.stdout and f"in {out}" in export.stdout and not export.stderr
    example = "\n".join(line.strip() for line in export.stdout.splitlines()[-4:])
    transformers = subprocess.run(
        [sys.executable, "-c", example.replace("clip.mp4", str(clip))], capture_output=True, text=True, check=False
    )
    assert transformers.returncode == 0, transformers.stderr
    generate = run_program(
        "omnihuman.generate",
        f"run={folder}",
        f"video={clip}",
        "instruction=What is the main emotion?",
        "stream=false",
    )
    assert generate.stdout.splitlines()[0] == f"answer: {transformers.stdout.strip()}"


def test_unknown_format_raises_before_writing(tmp_path: Path) -> None:
    export = run_program("omnihuman.export", "run=any", f"out={tmp_path / 'x'}", "format=gguf")
    assert export.returncode and "choose from huggingface, humanomni, vllm" in export.stderr
    assert not (tmp_path / "x").exists()


def test_invalid_size_raises() -> None:
    with pytest.raises(ValueError, match="200MB or 5GB"):
        parse_size("big")
