"""What the command line of an evaluation may say, and whose folder it is."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.evaluation.run import open_folder, share_of


def test_parts_that_are_there() -> None:
    def of(share: str | None = None, limit: Any = None) -> tuple[int, int]:
        return share_of(OmegaConf.create({"share": share, "limit": limit}))

    assert of() == (0, 1) and of("2/8", 5) == (2, 8)
    for share in ("8/8", "3", "a/b", "-1/2"):
        with pytest.raises(ValueError, match=f"share={share}"):
            of(share)
    for limit in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"limit={limit}"):
            of(None, limit)


def test_a_folder_holds_answers_to_one_way_of_asking(tmp_path: Path) -> None:
    folder, said = tmp_path / "VA-cot", {"run": "net", "tag": "cot", "faces": None}
    open_folder(folder, said, overwrite=False)
    open_folder(folder, said, overwrite=False)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    with pytest.raises(ValueError, match=r"made in another way \(differing: faces\)"):
        open_folder(folder, {**said, "faces": "whole"}, overwrite=False)
    OmegaConf.save(OmegaConf.create({"run": "net"}), folder / "config.yaml")  # from before these keys were written
    open_folder(folder, said, overwrite=False)
    open_folder(folder, {**said, "faces": "whole"}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VA-cot", "VA-cot.1"]
