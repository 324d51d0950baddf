"""Cuts of made clips, and of the built-in corpus."""

from pathlib import Path

import pytest

from omnihuman.operator.scenes import Scenes
from tests.curation.conftest import write_scenes
from tests.operator.conftest import apply_one, build_row

pytest.importorskip("scenedetect")


def test_a_row_for_each_scene(tmp_path: Path) -> None:
    row = build_row(write_scenes(tmp_path / "a.mp4"), seconds=1.2)
    first, second = apply_one(Scenes(min_seconds=0.2), tmp_path, row)
    assert first["start"] == 0.0 and first["end"] == second["start"] == pytest.approx(0.6, abs=0.05)
    assert second["end"] == pytest.approx(1.2) and first["num_scenes"] == 2


def test_one_scene_keeps_its_span(tmp_path: Path) -> None:
    row = build_row(write_scenes(tmp_path / "a.mp4"), seconds=1.2)
    assert apply_one(Scenes(min_seconds=0.8), tmp_path, row) == [{"start": 0.0, "end": None, "num_scenes": 1}]


def test_long_scenes_are_cut_into_equal_parts(tmp_path: Path) -> None:
    row = build_row(write_scenes(tmp_path / "a.mp4"), seconds=1.2)
    scenes = apply_one(Scenes(min_seconds=0.8, max_seconds=0.5), tmp_path, row)
    assert [scene["start"] for scene in scenes] == pytest.approx([0.0, 0.4, 0.8])
    assert scenes[-1]["end"] == pytest.approx(1.2)


@pytest.mark.slow
def test_cuts_of_the_corpus(tmp_path: Path) -> None:
    """At least 105 of the 108 cuts, and at most 2 where there is none."""
    from omnihuman.corpus.world import build_scenes
    from omnihuman.corpus.write import write_corpus

    write_corpus(tmp_path / "corpus")
    operator = Scenes()
    operator.setup(tmp_path)
    num_cuts = num_hits = num_false = 0
    for scene in build_scenes(0):
        file = tmp_path / "corpus" / "media" / f"{scene.id}.mp4"
        if not file.is_file():
            continue
        cuts = operator.find_cuts(build_row(file, seconds=scene.duration))
        if len(scene.shots) > 1:
            num_cuts += 1
            hits = [cut for cut in cuts if abs(cut - scene.shots[0].duration) < 0.25]
            num_hits += bool(hits)
            num_false += len(cuts) - bool(hits)
        else:
            num_false += len(cuts)
    assert num_cuts == 108 and num_hits >= 105 and num_false <= 2
