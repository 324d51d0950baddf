"""What strangers send: looked at, kept for a while, and nothing else read."""

import base64
import io
import stat
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.serving.uploads import Limits, Refused, Uploads, plain


@pytest.fixture
def clip(corpus: Path) -> Path:
    return next(iter(sorted((corpus / "media").glob("train_talk*.mp4"))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    return tmp_path / "private"


def data(content: bytes, head: str = "data:;base64,") -> str:
    return head + base64.b64encode(content).decode()


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


def test_the_ending_is_what_the_content_is(clip: Path, folder: Path) -> None:
    uploads = Uploads(Limits())
    kept = uploads.take(data(clip.read_bytes(), "data:image/png;name=../../x.png;base64,"), folder)
    assert kept.parent == folder and kept.suffix == ".mp4" and kept.read_bytes() == clip.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    picture = uploads.take("DATA:video/mp4;base64," + base64.b64encode(png(8, 8)).decode(), folder)
    assert picture.suffix == ".png" and picture.stem != kept.stem
    lines = base64.encodebytes(clip.read_bytes()).decode()
    assert uploads.take(f"data:;BASE64,{lines}", folder).read_bytes() == clip.read_bytes()


def test_what_is_no_medium_or_too_large_leaves_nothing_behind(clip: Path, folder: Path) -> None:
    content = clip.read_bytes()
    small = Uploads(Limits(bytes=1000, pixels=100, seconds=0.5))
    cases = [
        (Uploads(Limits()), content[: len(content) // 2], "unreadable_media", 400),
        (Uploads(Limits()), b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "unreadable_media", 400),
        (Uploads(Limits()), b"", "unreadable_media", 400),
        (small, b"x" * 1001, "media_too_large", 413),
        (small, png(11, 10), "media_too_large", 413),
        (Uploads(Limits()), png(20_000, 20_000), "media_too_large", 413),  # 50 kB that would be 400 MB of pixels
        (Uploads(Limits(seconds=0.5)), content, "media_too_long", 413),
        (Uploads(Limits(pixels=100)), content, "media_too_large", 413),
    ]
    for uploads, sent, code, status in cases:
        with pytest.raises(Refused) as refused:
            uploads.take(data(sent), folder)
        assert (refused.value.code, refused.value.status) == (code, status)
        assert str(folder) not in str(refused.value) and not list(folder.iterdir())


def test_a_message_names_a_file_as_its_owner_does() -> None:
    said = "this clip (question): /srv/tmp/ab12/a b.mp4 is cut (data.on_bad_sample=skip leaves such samples out.)"
    assert plain(said, {Path("/srv/tmp/ab12/a b.mp4"): "a&b.mp4"}) == "a&b.mp4 is cut."
    assert plain("messages: choose another view (data.views).", {}) == "choose another view."


@pytest.mark.parametrize(
    "url", ["data:video/mp4,abc", "data:video/mp4;base64", "data:;base64,a*c=", "data:;base64,a", "data:;base64,äöüß"]
)
def test_a_data_url_is_base64(url: str, folder: Path) -> None:
    with pytest.raises(Refused, match="base64"):
        Uploads(Limits()).take(url, folder)


def test_only_files_below_the_allowed_folders_are_read(corpus: Path, clip: Path, folder: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "mine too"
    mine.mkdir()
    other.mkdir()
    (mine / "a clip.mp4").write_bytes(clip.read_bytes())
    (mine / "in").symlink_to(mine / "a clip.mp4")
    (mine / "out").symlink_to(clip)
    (mine / "notes.txt").write_text("secret")
    (other / "b.mp4").write_bytes(clip.read_bytes())
    uploads = Uploads(Limits(), [mine])
    file = mine / "a clip.mp4"
    for url in (str(file), f"file://{file}", file.as_uri(), f"file://localhost{file}", str(mine / "in")):
        assert uploads.take(url, folder) == file
    refusals = set()
    there, nowhere = str(other / "b.mp4"), str(other / "c.mp4")
    for url in (
        there, nowhere, str(mine / "out"), str(mine / "gone.mp4"), f"{mine}/../mine too/b.mp4", str(mine), "a clip.mp4",
        f"file://elsewhere{file}", f"http://127.0.0.1{file}", f"https://127.0.0.1{file}", "ftp://x/y", "file:///etc/passwd",
        f"{mine}/%2e%2e/mine too/b.mp4", "/proc/self/environ", "\0", "x" * 10_000, "", "file://[", f"concat:{file}",
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            uploads.take(url, folder)
        assert (refused.value.code, refused.value.status) == ("url_not_allowed", 400)
        refusals.add(str(refused.value).replace(repr(url if len(url) <= 80 else f"{url[:80]}..."), "it"))
    assert len(refusals) == 1  # nothing tells what is there
    with pytest.raises(Refused, match="not a media file") as unread:
        uploads.take(str(mine / "notes.txt"), folder)
    assert "secret" not in str(unread.value) and not list(folder.iterdir())
    with pytest.raises(Refused, match="neither a data: URL"):
        Uploads(Limits()).take(str(file), folder)
    with pytest.raises(ValueError, match=r"allow=.*nowhere.*there is no such folder"):
        Uploads(Limits(), [tmp_path / "nowhere"])
