"""Paths below a root: links, folders, and everything that leads out."""

from pathlib import Path

import pytest

from omnihuman.data.paths import PathError, resolve_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder in the layout of a hub's cache: its files are links to files outside of it."""
    root = tmp_path / "snapshots" / "1a2b"
    (root / "clips").mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "c0ffee").write_text("x")
    (root / "clips" / "a.mp4").symlink_to("../../../blobs/c0ffee")
    (root / "all").symlink_to("../../blobs")
    (root / "frames").mkdir()
    (root / "frames" / "1.png").symlink_to("../../../blobs/c0ffee")
    (root / "own.mp4").write_text("x")
    (root / "same.mp4").symlink_to("own.mp4")
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "broken.mp4").symlink_to("nowhere.mp4")
    return root


def test_a_link_out_of_the_root_is_named_with_target_and_cure(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "blobs" / "c0ffee"
    links = {"clips/a.mp4": "clips/a.mp4", "all/c0ffee": "all", "frames": "frames/1.png"}
    for name, link in links.items():
        with pytest.raises(PathError) as caught:
            resolve_path(root, name, allow_folder=True)
        message = str(caught.value)
        assert caught.value.reason == "outside_root"
        assert str(root / link) in message and str(target) in message and "data.source.follow_links=true" in message


def test_links_are_followed_where_that_is_allowed(root: Path) -> None:
    for name in ("clips/a.mp4", "all/c0ffee", "frames", "own.mp4"):
        assert resolve_path(root, name, allow_folder=True, follow_links=True) == root / name


def test_links_within_the_root_need_no_option(root: Path) -> None:
    assert resolve_path(root, "same.mp4") == root / "own.mp4"
    assert resolve_path(root, str(root / "own.mp4")) == root / "own.mp4"


@pytest.mark.parametrize("follow_links", [False, True])
def test_no_option_allows_a_path_to_leave_the_root(root: Path, tmp_path: Path, follow_links: bool) -> None:
    (tmp_path / "secret").write_text("x")
    for name in ("../../secret", "clips/../../../secret", str(tmp_path / "secret"), "all/../../../secret"):
        with pytest.raises(PathError, match=r"outside data\.root"):
            resolve_path(root, name, follow_links=follow_links)


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("name", ["loop.mp4", "broken.mp4", "nowhere", "clips", "a\0b", "a" * 5000, "C:\\a.mp4"])
def test_a_path_without_a_file_is_a_missing_file(root: Path, name: str, follow_links: bool) -> None:
    with pytest.raises(PathError) as caught:
        resolve_path(root, name, follow_links=follow_links)
    assert caught.value.reason == "missing_file"
