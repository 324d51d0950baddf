"""Duties of all public data sets: the origin of their layout, access, and a line in the guide."""

from pathlib import Path

import pytest

from omnihuman.build import build, compose_part, config_dir
from omnihuman.source.dataset import DatasetSource
from omnihuman.source.questions import load_questions

GUIDE = Path(config_dir()).parent / "docs" / "guide" / "data_sets.md"


def list_data_sets() -> list[str]:
    """Return the presets with an example of a command, which other sources lack."""
    paths = sorted(Path(config_dir(), "source").glob("*.yaml"))
    return [path.stem for path in paths if "# omnihuman records source=" in path.read_text()]


@pytest.mark.parametrize("name", list_data_sets())
def test_a_data_set_states_its_origin_and_is_in_the_guide(name: str, tmp_path: Path) -> None:
    text = Path(config_dir(), "source", f"{name}.yaml").read_text()
    assert f"omnihuman records source={name} path=" in text
    assert ("# Layout: " in text and "# Access: " in text) or "see celebv_hq.yaml" in text
    assert f"| `{name}` |" in GUIDE.read_text()
    config = compose_part("source", name)
    if "questions" not in config:
        return  # its files are conversations already
    source = build(config)(tmp_path, tmp_path)
    assert isinstance(source, DatasetSource) and source.questions == load_questions(config.questions)
    with pytest.raises(ValueError, match=str(tmp_path)):
        list(source.annotations())


def test_the_guide_names_data_sets_only() -> None:
    rows = [
        line.split("`")[1] for line in GUIDE.read_text().splitlines() if line.startswith("| `") and "=`" not in line
    ]
    assert sorted(rows) == list_data_sets()
