"""Judgements survive, from any number of threads and processes."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from omnihuman.judge.cache import Cache, Judgement, compact

SAID = Judgement('{"score": 3} ☺', '{"score":3}', 10, 2, "judge-2024", "fp", "2026-01-01T00:00:00+00:00", 0.5, "text")


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "judgements.sqlite")
    assert cache.get(["a"]) == {}
    assert not cache.path.exists()  # looking makes no file
    cache.put("a", "detail", SAID)
    cache.put("b", "detail", replace(SAID, text="x\x00y"))
    cache.put("a", "detail", replace(SAID, seconds=1.5))
    cache.close()
    again = Cache(cache.path, read_only=True)
    assert again.get(["a", "b", "c"]) == {"a": replace(SAID, seconds=1.5), "b": replace(SAID, text="x\x00y")}
    assert [path.name for path in cache.path.parent.iterdir()] == ["judgements.sqlite"]  # one file to ship


def test_reading_alone_changes_nothing(tmp_path: Path) -> None:
    Cache(tmp_path / "c.sqlite").put("a", "detail", SAID)
    (tmp_path / "c.sqlite").chmod(0o444)
    before = (tmp_path / "c.sqlite").read_bytes()
    cache = Cache(tmp_path / "c.sqlite", read_only=True)
    assert cache.get(["a"]) == {"a": SAID}
    with pytest.raises(ValueError, match="readonly"):
        cache.put("b", "detail", SAID)
    assert (tmp_path / "c.sqlite").read_bytes() == before


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        Cache(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "text.sqlite").write_text("this is no database, but long enough to look for its header " * 10)
    with pytest.raises(ValueError, match=r"text.sqlite: this is no readable cache"):
        Cache(tmp_path / "text.sqlite").get(["a"])
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE judgements (key TEXT PRIMARY KEY, value BLOB)")
    with pytest.raises(ValueError, match="no such column"):
        Cache(tmp_path / "other.sqlite").get(["a"])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache=.*c\.sqlite: this is no readable cache of judgements \(.*exists"):
        Cache(tmp_path / "file" / "c.sqlite").put("a", "detail", SAID)


def test_many_threads(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.put(str(n), "detail", replace(SAID, tokens_in=n)), range(40)))
        found = list(pool.map(lambda n: cache.get([str(n)])[str(n)].tokens_in, range(40)))
    assert found == list(range(40))


SCRIPT = """
import sys
from omnihuman.judge.cache import Cache, Judgement
cache = Cache(sys.argv[1])
for n in range(20):
    cache.put(f"{sys.argv[2]} {n}", "detail", Judgement("t", "p", n, 0, "m", "f", "now", 0.0, "text"))
"""


def test_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(Cache(path).get([f"{name} {n}" for name in "abc" for n in range(20)])) == 60


def test_equal_content_has_one_text() -> None:
    assert compact({"b": [1, "é"], "a": None}) == compact({"a": None, "b": [1, "é"]}) == '{"a":null,"b":[1,"é"]}'
