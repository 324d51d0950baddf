"""The written corpus: valid h264 and aac, the same bytes for the same seed, and complete only after the last file."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from omnihuman.corpus import write as writing
from omnihuman.corpus.draw import render_frames
from omnihuman.corpus.world import Scene, build_scenes


def _sample_scenes(seed: int) -> list[Scene]:
    """Return one scene of every kind of file."""
    kinds: dict[object, Scene] = {}
    for scene in build_scenes(seed):
        media = (scene.has_video, scene.has_audio, scene.is_still, scene.seed % 2)
        kinds.setdefault((scene.split == "train", scene.kind == "shots", media), scene)
    return list(kinds.values())


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """The scenes of a small corpus, which replaces the full one."""
    monkeypatch.setattr(writing, "build_scenes", _sample_scenes)
    return _sample_scenes(0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small corpus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "build_scenes", _sample_scenes)
        return writing.write_corpus(tmp_path_factory.mktemp("corpus") / "sample", seed=0, workers=1)


def _read_records(corpus: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for split in ("train", "val", "test"):
        records += json.loads((corpus / f"{split}.json").read_text())
    return records


@pytest.mark.parametrize("scene", [s for s in _sample_scenes(0) if not s.is_still], ids=lambda scene: scene.id)
def test_media_files_are_valid_and_have_the_length_of_the_scene(corpus: Path, scene: Scene) -> None:
    path = next((corpus / "media").glob(f"{scene.id}.*"))
    audio_codec = "pcm_s16le" if path.suffix == ".wav" else "aac"
    with av.open(str(path)) as file:
        assert [s.codec_context.name for s in file.streams.video] == ["h264"] * scene.has_video
        assert [s.codec_context.name for s in file.streams.audio] == [audio_codec] * scene.has_audio
        assert abs((file.duration or 0) / av.time_base - scene.duration) < 0.15
        if scene.has_video:
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
            frames = render_frames(scene)
            assert decoded.shape == frames.shape
            assert np.abs(decoded.astype(int) - frames).mean() < 8


def test_records_name_existing_files_and_boxes_inside_the_frame(corpus: Path) -> None:
    records = _read_records(corpus)
    assert len({record["id"] for record in records}) == len(records) > 30
    scenes = {scene.id: scene for scene in _sample_scenes(0)}
    for record in records:
        (key,) = {"video", "image", "audio"} & set(record)
        assert (corpus / record[key]).is_file() and {"conversations", "task", "needs", "meta"} <= set(record)
        scene = scenes[Path(record[key]).stem]
        faces = record.get("faces", [])
        assert scene.from_behind or bool(faces) == scene.has_video
        for face in faces:
            x0, y0, x1, y1 = face["box"]
            assert 0 <= x0 < x1 <= scene.width and 0 <= y0 < y1 <= scene.height and 0 <= face["time"] < scene.duration


def test_boxes_do_not_move_across_a_cut(corpus: Path) -> None:
    scene = next(scene for scene in _sample_scenes(0) if scene.shots)
    video = f"media/{scene.id}.mp4"
    record = next(record for record in _read_records(corpus) if record.get("video") == video)
    times = [face["time"] for face in record["faces"]]
    half = scene.duration / 2
    assert times == sorted(times) and half in times and half - 1 / scene.fps in times


def test_same_seed_gives_the_same_bytes_with_any_number_of_processes(
    corpus: Path, tmp_path: Path, scenes: list[Scene]
) -> None:
    copy = writing.write_corpus(tmp_path / "copy", seed=0, workers=2)
    files = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    for name in files:
        assert (corpus / name).read_bytes() == (copy / name).read_bytes(), name


@pytest.mark.parametrize("width", [120, 128, 160])
def test_encoding_is_deterministic(tmp_path: Path, width: int) -> None:
    scene = next(s for s in build_scenes(0) if s.width == width and s.kind == "act")
    contents = set()
    for count in range(8):
        np.random.default_rng(count).bytes(40000 * (count + 1))  # leaves other values in free memory
        writing._write_av(tmp_path / "clip.mp4", render_frames(scene), None, scene.fps)
        contents.add((tmp_path / "clip.mp4").read_bytes())
    assert len(contents) == 1


def test_complete_corpus_is_not_written_again(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_write_files", lambda *_: pytest.fail("written again"))
    assert writing.is_complete(corpus, 0) and not writing.is_complete(corpus, 1)
    assert writing.write_corpus(corpus, seed=0) == corpus


def test_interrupted_write_leaves_no_files(
    tmp_path: Path, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = writing.write_scene

    def interrupt(scene: Scene, out: str, seed: int) -> list[dict[str, Any]]:
        if scene.id == scenes[3].id:
            raise KeyboardInterrupt
        return original(scene, out, seed)

    monkeypatch.setattr(writing, "write_scene", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writing.write_corpus(tmp_path / "sample", seed=0, workers=1)
    assert not writing.is_complete(tmp_path / "sample", 0) and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(writing, "write_scene", original)
    assert writing.is_complete(writing.write_corpus(tmp_path / "sample", seed=0, workers=1), 0)


def test_damaged_corpus_is_written_again(tmp_path: Path, scenes: list[Scene]) -> None:
    out = writing.write_corpus(tmp_path / "sample", seed=0, workers=1)
    clip = next((out / "media").glob("*.mp4"))
    content = clip.read_bytes()
    clip.write_bytes(content[:-100])
    assert not writing.is_complete(out, 0)
    writing.write_corpus(out, seed=0, workers=1)
    assert writing.is_complete(out, 0) and clip.read_bytes() == content


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ValueError, match=r"out=.*other files"):
        writing.write_corpus(tmp_path, seed=0)
    with pytest.raises(ValueError, match=r"out=.*is a file"):
        writing.write_corpus(tmp_path / "notes.txt", seed=0)
