"""Data of the parents of a run."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from omnihuman.build import compose_config
from omnihuman.training.chain import Chain, resolve_chain
from omnihuman.training.parents import check_parents
from omnihuman.training.stage_data import select_stage_data


def write_records(file: Path, *tasks: str | None) -> Path:
    records = []
    for number, task in enumerate(tasks):
        turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "Nobody."}]
        record = {"id": str(number), "video": "a.mp4", "conversations": turns}
        records.append(record if task is None else record | {"task": task})
    file.write_text(json.dumps(records))
    (file.parent / "a.mp4").touch()
    return file


def resolve(tmp_path: Path, records: object, *overrides: str) -> Chain:
    command_line = [
        "+experiment=humanomni_stage1",
        "data=json",
        f"data.records={records}",
        f"data.root={tmp_path}",
        f"runs={tmp_path}/runs",
        *overrides,
    ]
    return resolve_chain(compose_config(command_line), command_line)


def test_parents_train_on_the_records_of_their_tasks(tmp_path: Path) -> None:
    file = write_records(tmp_path / "all.json", "face", "face", "body", "interaction", "emotion")
    chain, console = resolve(tmp_path, file), Console(record=True, width=300)
    check_parents(chain, console)
    text = console.export_text()
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("    ")] == [
        ["(2", "face)"],
        ["(1", "body)"],
        ["(1", "interaction)"],
    ]
    assert text.count("missing: python -m omnihuman.train +experiment=humanomni_stage1_") == 3


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["emotion"], r"humanomni_stage1_face .* humanomni_stage1 .*\(face\).*same_data"),
        (["face", "body", "interaction", None], r"humanomni_stage1_face .*\b1 records"),
    ],
)
def test_parents_without_data_of_their_own_raise(tmp_path: Path, tasks: list[str | None], message: str) -> None:
    file = write_records(tmp_path / "stage1.json", *tasks)
    with pytest.raises(ValueError, match=message):
        check_parents(resolve(tmp_path, file))
    check_parents(resolve(tmp_path, file, "chain=same_data"))


def test_every_stage_has_its_own_files(tmp_path: Path) -> None:
    names = ("stage1", "stage1_face", "stage1_body", "stage1_interaction")
    files = {f"humanomni_{name}": write_records(tmp_path / f"{name}.json", None) for name in names}
    mapping = f"{{{', '.join(f'{name}: {file}' for name, file in files.items())}}}"
    chain = resolve(tmp_path, mapping)
    check_parents(chain)
    assert chain.config.data.records == str(files["humanomni_stage1"])
    for parent in chain.parents:
        assert parent.config.data.records == str(files[parent.config.name])


def test_stage_without_files_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.records .*humanomni_stage1.*humanomni_stage_1.*stage1: <file>"):
        resolve(tmp_path, "{humanomni_stage_1: a.json}")


def test_one_file_of_a_mixture_is_no_mapping_of_stages() -> None:
    config = compose_config(["+experiment=humanomni_stage1", "data=json", "data.records={path: a.json, weight: 2}"])
    assert select_stage_data(config) is config


def test_tasks_and_views_are_the_stages_own(tmp_path: Path) -> None:
    file = write_records(tmp_path / "all.json", "face")
    chain = resolve(tmp_path, file, "data.tasks={emotion: 3}", "data.views=[V]", "data.markers=false")
    assert chain.config.data.tasks.emotion == 3 and list(chain.config.data.views) == ["V"]
    face = chain.parents[0].config.data
    assert list(face.tasks) == ["face"] and list(face.views) == ["VF"] and not face.markers
