"""The example in CONTRIBUTING.md works as written."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from omnihuman.build import build, config_dir, register_resolvers
from omnihuman.types import Signal

ROOT = Path(__file__).parents[2]


def read_blocks() -> dict[str, str]:
    """Return the content of every file in the guide, by its name."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


def test_three_files_add_a_projector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = read_blocks()
    code, yaml, test = files
    assert [code, yaml, test] == [
        "src/omnihuman/projector/bottleneck.py",
        "conf/projector/bottleneck.yaml",
        "tests/projector/test_bottleneck.py",
    ]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    name = "omnihuman.projector.bottleneck"
    spec = importlib.util.spec_from_file_location(name, tmp_path / code)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys.modules["omnihuman.projector"], "bottleneck", module, raising=False)

    register_resolvers()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        overrides = [
            "+experiment=humanomni_stage1_face",
            f"hydra.searchpath=[file://{tmp_path}/conf]",
            "projector@model.projectors.face=bottleneck",
        ]
        config = compose("train", overrides=overrides)
    model = build(config.model)
    assert type(model.projectors["face"]).__name__ == "BottleneckProjector"
    frames = Signal(torch.zeros(1, 8, 3, 112, 112, dtype=torch.uint8), torch.ones(1, 8, dtype=torch.bool))
    projected = model.projectors["face"](model.encoders["video"](frames))
    assert projected.tokens.shape == (1, 8, 49, model.llm.hidden_size)

    scope: dict[str, object] = {}
    exec(compile(files[test], test, "exec"), scope)
    tests = [function for key, function in scope.items() if key.startswith("test_")]
    assert len(tests) == 1
    for function in tests:
        function()  # type: ignore[operator]
