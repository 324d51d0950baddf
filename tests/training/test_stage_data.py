"""Data of a stage where the config names that of a whole system."""

import pytest

from omnihuman.build import compose_config
from omnihuman.training.chain import list_stages
from omnihuman.training.stage_data import select_stage_data


@pytest.mark.parametrize(
    ("system", "last"),
    [
        ("humanomni", "humanomni_stage3"),
        ("favchat", "favchat_stage3"),
        pytest.param("omni_emotion", "omni_emotion_recognition", marks=pytest.mark.slow),
    ],
)
def test_every_stage_of_a_system_has_files(system: str, last: str) -> None:
    data = [f"data={system}", "data.path=sets"]
    mapping = compose_config([f"+experiment={last}", "size=7b", *data]).data.records
    stages = list_stages(last)
    assert set(mapping) == set(stages)
    for stage in stages:
        config = select_stage_data(compose_config([f"+experiment={stage}", "size=7b", *data]))
        assert all(path.startswith("sets/") for path in config.data.records) and config.data.root is None


def test_a_stage_need_not_be_validated() -> None:
    overrides = ["+experiment=favchat_stage1", "data=json", "data.records=a.json"]
    config = compose_config([*overrides, "data.val_records={favchat_stage2: b.json}"])
    assert select_stage_data(config).data.val_records is None
