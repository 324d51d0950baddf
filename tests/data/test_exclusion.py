"""Lists of excluded samples: one for each source, and frozen for a run."""

from pathlib import Path

import pytest

from omnihuman.data.exclusion import Exclusions, quarantine


def describe(name: str, reason: str = "corrupt") -> dict[str, str]:
    return {"id": name, "file": f"/m/{name}.mp4", "reason": reason, "message": "bad"}


def test_sources_of_the_same_name_have_lists_of_their_own(tmp_path: Path) -> None:
    exclusions = Exclusions(tmp_path)
    files = [exclusions.find_list(source) for source in ("a/train.json", "b/train.json", "a/../a/train.json")]
    assert files[0] == files[2] != files[1]
    assert files[0] is not None and files[0].name.startswith("train-")
    quarantine(files[0], describe("1"))
    excluded = exclusions.read("a/train.json")
    assert (
        excluded["1", "/m/1.mp4"]["reason"] == "quarantined" and str(files[0]) in excluded["1", "/m/1.mp4"]["message"]
    )
    assert not exclusions.read("b/train.json")


def test_without_a_folder_there_is_no_list() -> None:
    assert Exclusions(None).find_list("train.json") is None and not Exclusions(None).read("train.json")


def test_a_frozen_list_does_not_grow(tmp_path: Path) -> None:
    exclusions, source = Exclusions(tmp_path / "q"), "train.json"
    exclusions.freeze(tmp_path / "excluded.jsonl", {source: [describe("1", "missing_file")], "val.json": []})
    live = exclusions.find_list(source)
    assert live is not None
    quarantine(live, describe("2"))
    restored = Exclusions(tmp_path / "q")
    restored.restore(tmp_path / "excluded.jsonl")
    for frozen in (exclusions, restored):
        assert frozen.read(source) == {("1", "/m/1.mp4"): describe("1", "missing_file")}
        assert not frozen.read("val.json")
    assert exclusions.digest == restored.digest is not None
    assert [*Exclusions(tmp_path / "q").read(source)] == [("2", "/m/2.mp4")]
    (tmp_path / "excluded.jsonl").write_text("")
    changed = Exclusions(tmp_path / "q")
    changed.restore(tmp_path / "excluded.jsonl")
    assert changed.digest != restored.digest


@pytest.mark.parametrize("line", ["oops", "[]", "{}", '{"id": 1, "file": "a"}', "null"])
def test_an_invalid_line_raises(line: str, tmp_path: Path) -> None:
    exclusions = Exclusions(tmp_path)
    file = exclusions.find_list("train.json")
    assert file is not None
    quarantine(file, describe("1"))
    with file.open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(ValueError, match=rf"{file.name}:2.*remove the line"):
        exclusions.read("train.json")
