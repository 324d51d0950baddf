"""JSON and lines of annotation files."""

from pathlib import Path

import pytest

from omnihuman.data.text_files import read_json, read_lines


def test_an_invalid_json_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{oops}")
    with pytest.raises(ValueError, match=r"a\.json: this is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b\.json: .*no such file"):
        read_json(tmp_path / "b.json")


def test_files_with_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n  \r\ntwo\r\n")
    assert list(read_lines(tmp_path / "a.txt")) == [(f"{tmp_path}/a.txt:1", "one"), (f"{tmp_path}/a.txt:3", "two")]
    (tmp_path / "a.txt").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=r"a\.txt: .*UTF-8"):
        list(read_lines(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match=r"b\.txt: .*no such file"):
        list(read_lines(tmp_path / "b.txt"))
