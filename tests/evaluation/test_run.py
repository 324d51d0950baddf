"""Options of an evaluation on the command line, and its folder."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from omnihuman.evaluation.run import count_processes, parse_share, prepare_folder


def build_config(share: str | None = None, limit: Any = None) -> DictConfig:
    return OmegaConf.create({"share": share, "limit": limit})


def test_a_share_is_an_index_and_a_count() -> None:
    assert parse_share(build_config()) == (0, 1)
    assert parse_share(build_config("2/8", 5)) == (2, 8)


@pytest.mark.parametrize("share", ["8/8", "3", "a/b", "-1/2"])
def test_an_invalid_share_raises(share: str) -> None:
    with pytest.raises(ValueError, match=f"share={share}: .*index/count"):
        parse_share(build_config(share))


@pytest.mark.parametrize("limit", [0, -3, 2.5])
def test_an_invalid_limit_raises(limit: Any) -> None:
    with pytest.raises(ValueError, match=f"limit={limit}: .*positive number"):
        parse_share(build_config(None, limit))


def test_a_folder_has_predictions_of_one_set_of_options(tmp_path: Path) -> None:
    folder, description = tmp_path / "VA-cot", {"run": "net", "tag": "cot", "faces": None}
    prepare_folder(folder, description, overwrite=False)
    prepare_folder(folder, description, overwrite=False)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    with pytest.raises(ValueError, match=r"differing: faces\b.*overwrite=true"):
        prepare_folder(folder, {**description, "faces": "whole"}, overwrite=False)
    OmegaConf.save(OmegaConf.create({"run": "net"}), folder / "config.yaml")  # without keys that are null
    prepare_folder(folder, description, overwrite=False)


def test_overwrite_renames_the_old_folder(tmp_path: Path) -> None:
    folder, description = tmp_path / "VA-cot", {"run": "net", "tag": "cot", "faces": None}
    prepare_folder(folder, description, overwrite=True)
    prepare_folder(folder, {**description, "faces": "whole"}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VA-cot", "VA-cot.1"]


def test_processes_are_a_number_or_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert (count_processes(2), count_processes("auto")) == (2, 4)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert count_processes("auto") == 1
    for processes in (0, "all"):
        with pytest.raises(ValueError, match=f"processes={processes}: .*auto"):
            count_processes(processes)
