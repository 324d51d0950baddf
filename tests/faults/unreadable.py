"""``omnihuman.train`` on a rank whose disk answers no probe, as long as it plans; the main process reads."""

import os
import runpy
from pathlib import Path
from typing import Any

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample


def fail(path: Path, *args: Any) -> media.Header:
    """Read no header."""
    raise BadSample("unavailable", f"{path}: cannot be read at present.")


if __name__ == "__main__":
    if os.environ["RANK"] != "0":
        media.probe = fail
    runpy.run_module("omnihuman.train", run_name="__main__", alter_sys=True)
