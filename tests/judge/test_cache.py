"""The cache of judgements, with any number of threads and processes."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from omnihuman.judge.cache import Cache, Judgement, canonical_json

JUDGEMENT = Judgement(
    '{"score": 3} ☺', '{"score":3}', 10, 2, "judge-2024", "fp", "2026-01-01T00:00:00+00:00", 0.5, "text"
)


def test_get_returns_what_put_wrote(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "judgements.sqlite")
    assert cache.get(["a"]) == {}
    assert not cache.path.exists()  # reading creates no file
    cache.put("a", "detail", JUDGEMENT)
    cache.put("b", "detail", replace(JUDGEMENT, text="x\x00y"))
    cache.put("a", "detail", replace(JUDGEMENT, seconds=1.5))
    cache.close()
    again = Cache(cache.path, read_only=True)
    assert again.get(["a", "b", "c"]) == {"a": replace(JUDGEMENT, seconds=1.5), "b": replace(JUDGEMENT, text="x\x00y")}
    assert [path.name for path in cache.path.parent.iterdir()] == ["judgements.sqlite"]  # a single file


def test_read_only_does_not_change_the_file(tmp_path: Path) -> None:
    Cache(tmp_path / "c.sqlite").put("a", "detail", JUDGEMENT)
    (tmp_path / "c.sqlite").chmod(0o444)
    content = (tmp_path / "c.sqlite").read_bytes()
    cache = Cache(tmp_path / "c.sqlite", read_only=True)
    assert cache.get(["a"]) == {"a": JUDGEMENT}
    with pytest.raises(ValueError, match="readonly"):
        cache.put("b", "detail", JUDGEMENT)
    assert (tmp_path / "c.sqlite").read_bytes() == content


def test_other_files_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        Cache(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "text.sqlite").write_text("this is no database, but long enough to look for its header " * 10)
    with pytest.raises(ValueError, match=r"text\.sqlite: .*readable cache"):
        Cache(tmp_path / "text.sqlite").get(["a"])
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE judgements (key TEXT PRIMARY KEY, value BLOB)")
    with pytest.raises(ValueError, match="no such column"):
        Cache(tmp_path / "other.sqlite").get(["a"])


def test_an_impossible_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cache=.*c\.sqlite: .*readable cache .*\(.*exists"):
        Cache(tmp_path / "file" / "c.sqlite").put("a", "detail", JUDGEMENT)


def test_threads(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.put(str(n), "detail", replace(JUDGEMENT, tokens_in=n)), range(40)))
        tokens = list(pool.map(lambda n: cache.get([str(n)])[str(n)].tokens_in, range(40)))
    assert tokens == list(range(40))


SCRIPT = """
import sys
from omnihuman.judge.cache import Cache, Judgement
cache = Cache(sys.argv[1])
for n in range(20):
    cache.put(f"{sys.argv[2]} {n}", "detail", Judgement("t", "p", n, 0, "m", "f", "now", 0.0, "text"))
"""


def test_processes(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    keys = [f"{name} {n}" for name, n in product("abc", range(20))]
    assert len(Cache(path).get(keys)) == 60


def test_equal_content_has_equal_json() -> None:
    assert (
        canonical_json({"b": [1, "é"], "a": None})
        == canonical_json({"a": None, "b": [1, "é"]})
        == '{"a":null,"b":[1,"é"]}'
    )
