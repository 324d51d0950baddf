"""Keys of a protocol that depend on data are those that benchmarks write."""

from pathlib import Path

import pytest

from omnihuman import benchmark
from omnihuman.evaluation.metrics import DATA_KEYS

SOURCES = [path.read_text() for path in Path(str(benchmark.__file__)).parent.glob("*.py")]


@pytest.mark.parametrize("key", DATA_KEYS)
def test_a_benchmark_writes_the_key(key: str) -> None:
    assert any(f'"{key}"' in source for source in SOURCES)
