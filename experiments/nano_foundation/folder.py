"""Where the foundation's folders stand, and how one is written: complete or not at all."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel

import omnihuman

NANO = Path(omnihuman.__file__).parent / "foundation" / "nano"


@contextmanager
def replaced(folder: Path, keep: bool = False) -> Iterator[Path]:
    """A folder; a temporary one whose files then take their places in it, each in one move.

    Args:
        folder: where the files end.
        keep: leave other files of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        yield made
        fresh = {path.name for path in made.iterdir()}
        for path in sorted(made.iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)
        for path in () if keep else list(folder.iterdir()):
            if path.name not in fresh:
                path.unlink()
    finally:
        shutil.rmtree(made)


def save(model: PreTrainedModel, folder: Path) -> None:
    """A model; its folder with weights in half precision, which load in single precision."""
    with replaced(folder, keep=True) as out:
        copy.deepcopy(model).to(torch.float16).save_pretrained(out)
        path = out / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
