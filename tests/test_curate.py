"""The verb: command lines, folders, and mistakes in one line."""

import json
from inspect import unwrap
from pathlib import Path

import pytest

from omnihuman import curate as verb
from omnihuman.build import compose_config
from omnihuman.curation.folder import check_out
from omnihuman.verb import name_word
from tests.curation.conftest import clips as clips
from tests.programs import run_program


def run(*overrides: str) -> None:
    unwrap(verb.run)(compose_config([*overrides, "workers=0"], "curate"))


def list_arguments(clips: Path, out: Path, *overrides: str) -> list[str]:
    conditions = "pipeline.operators.picture.conditions=[{column:short_side,least:1}]"
    return [f"path={clips}", f"out={out}", "pipeline=records", "source=records", "size=nano", conditions, *overrides]


def test_records_are_curated_and_resumed(clips: Path, tmp_path: Path) -> None:
    arguments = list_arguments(clips, tmp_path / "out", "max_failed=0.5", "partition_size=4", "workers=0")
    result = run_program("omnihuman.curate", *arguments)
    assert result.returncode == 0, result.stderr
    account = json.loads((tmp_path / "out" / "account.json").read_text())
    assert account["planned"] == account["written"] + account["dropped"] + account["failed"] == 6
    assert account["failed"] == 1 and account["operators"][4]["dropped"]["copy"] == 1
    records = json.loads((tmp_path / "out" / "records" / "train.json").read_text())
    assert len(records) == 2 * account["written"] and all(record["faces"] for record in records)
    status = run_program("omnihuman.curate", "status", f"out={tmp_path / 'out'}")
    assert "1 copy" in status.stdout and status.returncode == 0
    with pytest.raises(ValueError, match=r"out=.* the pipeline records; .*clips"):
        check_out(tmp_path / "out", "clips")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("slice=9/8", r"slice=9/8.* 1/8"),
        ("slice=0/8", r"slice=0/8.* 1/8"),
        ("workers=-1", r"workers=-1"),
        ("batch_size=0", r"batch_size=0"),
        ("source=table", r"source=table.*omnihuman records"),
        ("path=null", r"path=videos/"),
        ("action=start", r"action=start.*status, retry, gc"),
        ("action=status", r"out=.* no pipeline"),
        ("action=retry", r"why=timeout"),
    ],
)
def test_mistakes_name_the_key(clips: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(verb.run)(compose_config(list_arguments(clips, tmp_path / "out", "workers=0", override), "curate"))


def test_a_pipeline_is_needed(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pipeline=clips.*records"):
        run(f"out={tmp_path}", f"path={clips}")


def test_a_folder_with_other_files_is_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="other files"):
        run(*list_arguments(clips, tmp_path))


def test_a_dry_run_writes_nothing(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*list_arguments(clips, tmp_path / "out", "dry_run=true", "partition_size=2"))
    assert "6 clips in 3 partitions" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_the_first_word_is_an_action() -> None:
    assert name_word(["gc", "out=a"], "action") == ["action=gc", "out=a"]
    assert verb.complete_arguments(["+pipeline=clips", "source=sample", "size=7b"]) == [
        "pipeline=clips",
        "source=sample",
        "size=7b",
        "review=skip",
    ]
