"""The command: unknown, missing and invalid arguments are errors that name the cure."""

from pathlib import Path

import pytest

from omnihuman.sample import __main__ as command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x", "sead=1"], "unknown key sead; expected out, seed, workers"),
        (["seed=1"], "out is missing"),
        (["out=x", "seed=one"], "seed=one is invalid; expected a whole number of at least 0"),
        (["out=x", "workers=0"], "workers=0 is invalid; expected a whole number of at least 1"),
    ],
)
def test_invalid_arguments_raise(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.main(arguments)


def test_corpus_is_written_to_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []

    def record_call(out: str, *arguments: object) -> Path:
        calls.append((out, *arguments))
        return Path(out)

    monkeypatch.setattr(command, "write_corpus", record_call)
    command.main([f"out={tmp_path / 'corpus'}", "seed=3"])
    assert calls == [(str(tmp_path / "corpus"), 3, None)]
    assert "written in" in capsys.readouterr().out
