"""The written corpus: real h264 and aac, the same bytes for one seed, and never complete when it is not."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from omnihuman.data.sample import write as writing
from omnihuman.data.sample.draw import frames
from omnihuman.data.sample.world import Scene, scenes


def _few(seed: int) -> list[Scene]:
    """One scene of every kind of file."""
    kinds: dict[object, Scene] = {}
    for scene in scenes(seed):
        kinds.setdefault(
            (
                scene.split == "train",
                scene.kind == "shots",
                scene.has_video,
                scene.has_audio,
                scene.is_still,
                scene.seed % 2,
            ),
            scene,
        )
    return list(kinds.values())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    monkeypatch.setattr(writing, "scenes", _few)
    return _few(0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "scenes", _few)
        return writing.write(tmp_path_factory.mktemp("corpus") / "sample", seed=0, workers=1)


def _rows(corpus: Path) -> list[dict[str, object]]:
    return [row for split in ("train", "val", "test") for row in json.loads((corpus / f"{split}.json").read_text())]


def test_media_are_real_and_as_long_as_told(corpus: Path) -> None:
    for scene in _few(0):
        path = next((corpus / "media").glob(f"{scene.id}.*"))
        if scene.is_still:
            continue
        with av.open(str(path)) as file:
            assert [s.codec_context.name for s in file.streams.video] == ["h264"] * scene.has_video
            names = [s.codec_context.name for s in file.streams.audio]
            assert names == (["pcm_s16le"] if path.suffix == ".wav" else ["aac"]) * scene.has_audio
            length = (file.duration or 0) / av.time_base
            assert abs(length - scene.duration) < 0.15, (scene.id, length)
            if scene.has_video:
                decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
                drawn = frames(scene)
                assert decoded.shape == drawn.shape
                assert np.abs(decoded.astype(int) - drawn).mean() < 8


def test_records_name_files_that_exist_and_boxes_inside_them(corpus: Path) -> None:
    rows = _rows(corpus)
    assert len({row["id"] for row in rows}) == len(rows) > 30
    by_id = {scene.id: scene for scene in _few(0)}
    for row in rows:
        (key,) = {"video", "image", "audio"} & set(row)
        name = str(row[key])
        assert (corpus / name).is_file() and {"conversations", "task", "needs", "meta"} <= set(row)
        scene = by_id[Path(name).stem]
        faces = row.get("faces", [])
        assert isinstance(faces, list) and (scene.from_behind or bool(faces) == scene.has_video)
        for face in faces:
            x0, y0, x1, y1 = face["box"]
            assert 0 <= x0 < x1 <= scene.width and 0 <= y0 < y1 <= scene.height and 0 <= face["time"] < scene.duration


def test_no_box_moves_across_a_cut(corpus: Path) -> None:
    scene = next(scene for scene in _few(0) if scene.shots)
    times = [
        face["time"] for row in _rows(corpus) if row.get("video") == f"media/{scene.id}.mp4" for face in row["faces"]
    ]
    half = scene.duration / 2
    assert times == sorted(times) and half in times and half - 1 / scene.fps in times


def test_one_seed_gives_the_same_bytes_with_any_number_of_processes(
    corpus: Path, tmp_path: Path, few: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = writing.write(tmp_path / "again", seed=0, workers=2)
    files = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert (corpus / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.parametrize("width", [120, 128, 160])
def test_encoding_gives_the_same_bytes_each_time(tmp_path: Path, width: int) -> None:
    scene = next(s for s in scenes(0) if s.width == width and s.kind == "act")
    seen = set()
    for count in range(8):
        np.random.default_rng(count).bytes(40000 * (count + 1))  # leaves different memory behind
        writing._write_av(tmp_path / "clip.mp4", frames(scene), None, scene.fps)
        seen.add((tmp_path / "clip.mp4").read_bytes())
    assert len(seen) == 1


def test_a_complete_corpus_is_not_written_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_fill", lambda *_: pytest.fail("written again"))
    assert writing.is_complete(corpus, 0) and not writing.is_complete(corpus, 1)
    assert writing.write(corpus, seed=0) == corpus


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, few: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(scene: Scene, out: str, seed: int) -> list[dict[str, object]]:
        if scene.id == few[3].id:
            raise KeyboardInterrupt
        return real(scene, out, seed)

    real = writing.write_scene
    monkeypatch.setattr(writing, "write_scene", stop)
    with pytest.raises(KeyboardInterrupt):
        writing.write(tmp_path / "sample", seed=0, workers=1)
    assert not writing.is_complete(tmp_path / "sample", 0) and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(writing, "write_scene", real)
    assert writing.is_complete(writing.write(tmp_path / "sample", seed=0, workers=1), 0)


def test_damage_is_noticed_and_mended(tmp_path: Path, few: list[Scene]) -> None:
    out = writing.write(tmp_path / "sample", seed=0, workers=1)
    clip = next((out / "media").glob("*.mp4"))
    whole = clip.read_bytes()
    clip.write_bytes(whole[:-100])
    assert not writing.is_complete(out, 0)
    writing.write(out, seed=0, workers=1)
    assert writing.is_complete(out, 0) and clip.read_bytes() == whole


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        writing.write(tmp_path, seed=0)
    with pytest.raises(ValueError, match="is a file"):
        writing.write(tmp_path / "mine.txt", seed=0)
