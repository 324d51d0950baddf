"""Records folders, and ``data=<path>`` on command lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.build import build, compose_config
from omnihuman.data.module import OmniData
from omnihuman.source.root import (
    expand_data_paths,
    find_media_root,
    has_report,
    read_records_folder,
)
from omnihuman.studies.config import compose_study
from omnihuman.study import quote_extra_overrides

from .conftest import build_entry


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with the records folder ``mine`` and its clips in ``clips``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(root)
    (tmp_path / "mine").mkdir()
    for split in ("train", "test"):
        (tmp_path / "mine" / f"{split}.json").write_text(json.dumps([build_entry(id=split)]))
    write_report(root="../clips")
    return tmp_path


def write_report(**report: Any) -> None:
    Path("mine", "report.json").write_text(json.dumps(report))


def compose_data(*overrides: str, root: str = "train") -> Any:
    return OmegaConf.to_container(compose_config(expand_data_paths(overrides), root), resolve=True)


def test_a_folder_gives_its_splits_and_the_root_of_the_media(folder: Path) -> None:
    config = compose_data("data=mine/")["data"]
    assert (config["path"], config["root"]) == ("mine", "clips")
    assert (config["records"], config["val_records"]) == ("mine/train.json", None)
    data = build(compose_config(expand_data_paths(["data=mine/"])).data)
    assert isinstance(data, OmniData) and data.path == "mine"
    assert [entry[1].id for entry in data.read_entries("train")] == ["train"]


@pytest.mark.parametrize("name", ["all.json", "all.jsonl", "all.parquet"])
def test_a_file_is_the_training_split(name: str, folder: Path) -> None:
    Path("mine", name).write_text("")
    config = compose_data(f"data=mine/{name}")["data"]
    assert (config["records"], config["val_records"], config["root"]) == (f"mine/{name}", None, "clips")


def test_inspect_takes_the_third_split_and_the_people_from_the_folder(folder: Path) -> None:
    write_report(root="../clips", person="meta.person")
    config = compose_data("data=mine/", root="inspect")
    assert (config["test_records"], config["person"]) == ("mine/test.json", "meta.person")
    plain = compose_data("data=sample", root="inspect")
    assert plain["test_records"] is None and plain["person"] is None


def test_keys_of_the_folder_can_be_replaced(folder: Path) -> None:
    config = compose_data("data=mine/", "data.val_records=mine/test.json", "data.root=.")["data"]
    assert (config["val_records"], config["root"]) == ("mine/test.json", ".")


def test_without_a_report_the_root_is_the_folder(folder: Path) -> None:
    Path("mine", "report.json").unlink()
    assert find_media_root("mine") == find_media_root("mine/test.json") == Path("mine")
    assert not has_report("mine") and not has_report("nowhere")


def test_a_root_can_be_absolute_or_beside_the_target_of_a_link(folder: Path) -> None:
    Path("deep/er").mkdir(parents=True)
    Path("deep/er/mine").symlink_to(folder / "mine")
    assert find_media_root("deep/er/mine").samefile("clips"), "not deep/er/clips"
    write_report(root=str(folder / "clips"))
    assert find_media_root("mine/train.json") == folder / "clips"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_report_of_another_kind_is_refused(content: str, folder: Path) -> None:
    Path("mine", "report.json").write_text(content)
    with pytest.raises(ValueError, match=r"mine/report\.json: .*omnihuman records"):
        read_records_folder("mine")


@pytest.mark.parametrize(
    "arguments",
    [["data=sample"], ["data.records=mine/train.json"], ["run=a/b", "~data"], ["base=mine/"], ["data"], ["data="]],
)
def test_other_arguments_stay(arguments: list[str], folder: Path) -> None:
    assert expand_data_paths(arguments) == arguments


def test_a_sweep_over_paths_is_a_sweep(folder: Path) -> None:
    assert expand_data_paths(["-m", "data=mine/,mine/test.json"]) == [
        "-m",
        "data=records",
        "data.path='mine','mine/test.json'",
    ]


@pytest.mark.parametrize("name", ["my clips, 2=new", "für [1]", "it's"])
def test_a_path_of_any_characters_is_one_value(name: str, folder: Path) -> None:
    Path("mine").rename(name)
    assert compose_data(f"data={name}/")["data"]["path"] == name
    assert compose_data(f'data="{name}/"')["data"]["path"] == name


def test_overrides_of_a_study_are_expanded_once(folder: Path) -> None:
    arguments = quote_extra_overrides(expand_data_paths(["favchat_ablation", "--", "data=mine/", "frames=4"]))
    extra = compose_study(*arguments[:1], arguments[1:]).extra_overrides
    assert expand_data_paths(extra) == ["data=records", "data.path='mine'", "frames=4"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data=mein/", r"^data=mein/: .* mine\?$"),
        ("data=mine/val.json", r"^data=mine/val\.json: .*no such.*"),
        ("data=nowhere/at/all", r"^data=nowhere/at/all: .*no such.*\.$"),
        ("data=labels.csv", r"^data=labels\.csv: .*omnihuman records source=table path=labels\.csv video="),
        ("data=mine/a.XLSX", r"^data=mine/a\.XLSX: .*omnihuman records source=table"),
        ("data=clips/", r"^data=clips/: .*train\.json.*omnihuman records source=folder path=clips/"),
        ("data=clips/talk.mp4", r"^data=clips/talk\.mp4: .*\.json, \.jsonl, \.parquet"),
        ("data=mine/,sample", r"^data=sample: .*no such"),
        ("data=[mine/,clips/]", r"data=json .*data\.records="),
    ],
)
def test_a_path_without_records_is_refused(argument: str, message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        expand_data_paths([argument])
