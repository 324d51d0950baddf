"""The command: unknown and missing keys are errors that name the cure."""

from pathlib import Path

import pytest

from omnihuman.data.sample import __main__ as command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out=x", "sead=1"], "unknown key sead"),
        (["seed=1"], "out is missing"),
        (["out=x", "seed=one"], "seed=one is not a whole number"),
        (["out=x", "workers=0"], "workers=0 is not a whole number"),
    ],
)
def test_wrong_words_are_errors(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.main(words)


def test_it_writes_where_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(command, "write", lambda *given: seen.extend(given) or Path(given[0]))
    command.main([f"out={tmp_path / 'here'}", "seed=3"])
    assert seen == [str(tmp_path / "here"), 3, None]
    assert "written in" in capsys.readouterr().out
