"""Folders of the foundation, which are written completely or not at all."""

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
def replace_files(folder: Path, keep: bool = False) -> Iterator[Path]:
    """Yield a temporary folder whose files are then moved into a folder, each in one move.

    Args:
        folder: target of the files.
        keep: do not delete other files of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        yield temporary
        names: set[str] = set()
        for path in sorted(temporary.iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)
            names.add(path.name)
        if not keep:
            for path in list(folder.iterdir()):
                if path.name not in names:
                    path.unlink()
    finally:
        shutil.rmtree(temporary)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Save a model in half precision, with a config that loads it in single precision."""
    with replace_files(folder, keep=True) as out:
        copy.deepcopy(model).to(torch.float16).save_pretrained(out)
        path = out / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
