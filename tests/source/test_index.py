"""The source of an index."""

from pathlib import Path

import pytest

from omnihuman.build import build, compose_part
from omnihuman.source.index import IndexSource


def test_an_index_has_no_root(tmp_path: Path) -> None:
    source = build(compose_part("source", "index"))(tmp_path, None)
    assert source.location == str(tmp_path) and source.headers.parent == tmp_path
    with pytest.raises(ValueError, match=r"data\.root=media: .*leave data\.root out"):
        IndexSource(tmp_path, "media")
