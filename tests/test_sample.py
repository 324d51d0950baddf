"""The verb: missing and invalid keys are errors that name the cure."""

from inspect import unwrap
from pathlib import Path

import pytest
from omegaconf.errors import MissingMandatoryValue

from omnihuman import sample as verb
from omnihuman.build import compose_config


def run(*overrides: str) -> None:
    unwrap(verb.main)(compose_config(overrides, "sample"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=one", r"seed=one .*whole number .*\b0\b"),
        ("workers=0", r"workers=0 .*whole number .*\b1\b"),
    ],
)
def test_invalid_values_raise(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("out=x", override)


def test_missing_folder_raises() -> None:
    with pytest.raises(MissingMandatoryValue, match="out"):
        run()


def test_corpus_is_written_to_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []

    def record_call(out: str, *arguments: object) -> Path:
        calls.append((out, *arguments))
        return Path(out)

    monkeypatch.setattr(verb, "write_corpus", record_call)
    run(f"out={tmp_path / 'corpus'}", "seed=3")
    assert calls == [(str(tmp_path / "corpus"), 3, None)]
    assert "written in" in capsys.readouterr().out
