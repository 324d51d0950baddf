"""VGGSound: a table without a header."""

import pytest

from omnihuman.source.vggsound import format_names

from .conftest import Dataset, summarize


def test_clips_of_several_downloads_are_found(dataset: Dataset) -> None:
    dataset.write("vggsound.csv", '---g-f_I2yQ,1,"bird chirping, tweeting",train', "--0PQM4-hqg,30,waterfall,test")
    dataset.add("video/---g-f_I2yQ_000001.mp4", "video/--0PQM4-hqg_30000_40000.mp4")
    records = dataset.records("source=vggsound")
    assert summarize(records["train"]) == [("video/---g-f_I2yQ_000001.mp4", "bird chirping, tweeting")]
    assert summarize(records["test"]) == [("video/--0PQM4-hqg_30000_40000.mp4", "waterfall")]
    assert records["test"][0]["conversations"][0]["value"].startswith("<audio>\n") and "audio" in records["test"][0]


def test_an_unknown_field_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source\.names=\['\{name\}'\]: .*start_ms"):
        format_names(["{name}"], "a", "1", 10.0)
