"""Recordings with segments in one JSON file."""

from pathlib import Path

import pytest

from omnihuman.source.recordings import read_recordings, read_value


def test_recordings_are_read_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "GigaSpeech.json"
    file.write_text('{"audios": [{"path": "a"}, {"path": "b"}]}')
    assert list(read_recordings(file)) == [
        (f"{file}: audios[0]", {"path": "a"}),
        (f"{file}: audios[1]", {"path": "b"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"audios": [{}', r"after audios\[0\]"), ('{"a": []}', r"GigaSpeech\.json: .*audios"), (None, r"no such file")],
)
def test_an_invalid_file_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "GigaSpeech.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_recordings(file))


def test_a_value_of_another_type_is_refused() -> None:
    assert read_value({"path": "a"}, "path", "audios[0]", str) == "a"
    for entry in ({"path": 1}, {}, []):
        with pytest.raises(ValueError, match=r"audios\[0\]: path .*str"):
            read_value(entry, "path", "audios[0]", str)
