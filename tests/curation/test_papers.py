"""The papers' pipelines write the branches, tasks and subsets that their stages train on."""

import json
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import compose_config
from omnihuman.corpus.world import build_scenes
from omnihuman.corpus.write import MARKER, VERSION, write_scene
from omnihuman.curate import prepare
from omnihuman.curation.account import write_account
from omnihuman.curation.folder import write_state
from omnihuman.curation.pipeline import Pipeline
from omnihuman.data.record import Record
from omnihuman.judge.scripted import ScriptedJudge
from omnihuman.source.records import RecordsSource
from omnihuman.source.root import SPLITS
from tests.curation.conftest import run_here

KINDS = {"talk": 6, "act": 1, "interact": 1, "pair": 1, "shots": 1}
"""Kind of scene -> clips of the slice of the corpus."""

STEP = 7
"""Clips from one to the next: the emotion of two is in face and voice, of two in the face, of two in the voice."""


@pytest.fixture(scope="module")
def corpus_slice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a few clips of each kind that passes for the built-in corpus."""
    folder = tmp_path_factory.mktemp("slice")
    (folder / "media").mkdir()
    records = []
    for kind, count in KINDS.items():
        scenes = (scene for scene in build_scenes(0) if scene.kind == kind and scene.split == "train")
        for scene in islice(scenes, 0, STEP * count, STEP):
            records += write_scene(scene, str(folder), 0)
    for split in SPLITS:
        (folder / f"{split}.json").write_text(json.dumps(records if split == "train" else []))
    (folder / MARKER).write_text(json.dumps({"seed": 0, "version": VERSION, "files": {}}))
    return folder


def curate(name: str, corpus: Path, out: Path, *overrides: str) -> Pipeline:
    """Run a pipeline on a corpus in this process, and return it."""
    source = ["source=sample", f"path={corpus}", "size=nano", "review=skip", "judge@captioner=scripted"]
    config = compose_config([f"pipeline={name}", f"out={out}", *source, *overrides], "curate")
    return run_here(prepare(config, out))


def count_records(folder: Path) -> Counter[str]:
    """Return the records of the training by their tasks, all of them valid."""
    records = list(RecordsSource(folder).records())
    assert all(isinstance(record, Record) and record.file.is_file() for record in records)
    return Counter(str(record.task) for record in records if isinstance(record, Record))


def drop_operator(name: str, operator: str) -> str:
    """Return the order of a pipeline without an operator."""
    order: Any = compose_config([f"pipeline={name}", "size=nano", "out=x"], "curate").pipeline.orders.saving
    return f"pipeline.order=[{','.join(key for key in order if key != operator)}]"


def test_humanomni_writes_its_branches(corpus_slice: Path, tmp_path: Path) -> None:
    curate("humanomni", corpus_slice, tmp_path / "out", drop_operator("humanomni", "scenes"))  # which needs a package
    counts = count_records(tmp_path / "out" / "records")
    assert counts["caption"] == sum(KINDS.values()) == counts["interaction"]
    assert counts["face"] == 2 * (KINDS["talk"] + KINDS["shots"]) + KINDS["act"] + KINDS["interact"]
    assert counts["body"] == KINDS["talk"] + KINDS["shots"] + 2 * (KINDS["act"] + KINDS["interact"])
    mixture = (tmp_path / "out" / "records" / "mixture.yaml").read_text()
    assert mixture == "tasks:\n  body: 1\n  caption: 1\n  face: 1\n  interaction: 1\n"


def test_omni_emotion_writes_disjoint_subsets(
    corpus_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(curate, "omni_emotion", corpus_slice, tmp_path / "out", "pipeline.operators.sample.size=1")
    first = run()
    folder = tmp_path / "out" / "records"
    hre, sre = count_records(folder / "hre"), count_records(folder / "sre")
    assert hre["reason"] == hre["open_emotion"] == 3 and sre["reason"] == sre["open_emotion"] >= 2
    assert count_records(folder) == hre + sre
    write_state(first, [])
    (*_, last) = write_account(first.out)
    assert last.live == hre["reason"] + sre["reason"] and last.dropped["no_subset"] == KINDS["talk"] - last.live
    monkeypatch.setattr(ScriptedJudge, "query", None)  # a stricter threshold makes no call
    subsets = "{name:hre,where:[{column:subset,among:[hre]}]},{name:sre,where:[{column:alignment_score,least:8}]}"
    second = run(f"pipeline.operators.write.subsets=[{subsets}]")
    assert [level.folder for level in second.levels[:-2]] == [level.folder for level in first.levels[:-2]]
    assert count_records(folder / "hre") == hre and count_records(folder / "sre")["reason"] == 1


def test_favchat_writes_summaries_and_questions(corpus_slice: Path, tmp_path: Path) -> None:
    curate("favchat", corpus_slice, tmp_path / "out", "pipeline.order=paper")
    counts = count_records(tmp_path / "out" / "records")
    portraits = KINDS["talk"] + KINDS["shots"]  # of larger faces
    assert counts["summary"] == portraits and counts["hard_qa"] + counts["face_qa"] == 4 * portraits
    assert min(counts["hard_qa"], counts["face_qa"]) >= 4


LEAST = {
    "humanomni": {"": {"face": 900, "body": 700, "interaction": 600, "caption": 600}},
    "omni_emotion": {
        "": {"reason": 300, "open_emotion": 300},
        "hre": {"reason": 15, "open_emotion": 15},
        "sre": {"reason": 270, "open_emotion": 270},
    },
    "favchat": {"": {"summary": 380, "hard_qa": 800, "face_qa": 600}},
}
"""Pipeline -> folder of the records -> task -> least number of records of the training split."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST)
def test_the_corpus_gives_enough_of_each_task(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if name == "humanomni":
        pytest.importorskip("scenedetect")
    folder = tmp_path_factory.getbasetemp() / "built_in"
    out = tmp_path_factory.mktemp("out")
    curate(name, folder, out)
    for subset, tasks in LEAST[name].items():
        counts = count_records(out / "records" / subset)
        assert all(counts[task] >= least for task, least in tasks.items()), counts
