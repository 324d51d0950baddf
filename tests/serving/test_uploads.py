"""Media of requests: checked, saved for a while, and no other file is read."""

import base64
import io
import stat
from pathlib import Path
from urllib.parse import quote

import av
import pytest
from PIL import Image

from omnihuman.serving.uploads import Limits, RequestError, Uploads, clean_message


@pytest.fixture
def clip(corpus: Path) -> Path:
    return next(iter(sorted((corpus / "media").glob("train_talk*.mp4"))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private folder."""
    (tmp_path / "private").mkdir()
    return tmp_path / "private"


def data_url(content: bytes, head: str = "data:;base64,") -> str:
    return head + base64.b64encode(content).decode()


def draw_png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


def test_suffix_follows_the_content(clip: Path, folder: Path) -> None:
    uploads = Uploads(Limits())
    video = uploads.fetch(data_url(clip.read_bytes(), "data:image/png;name=../../x.png;base64,"), folder)
    assert video.parent == folder and video.suffix == ".mp4" and video.read_bytes() == clip.read_bytes()
    assert stat.S_IMODE(video.stat().st_mode) == 0o600
    image = uploads.fetch(data_url(draw_png(8, 8), "DATA:video/mp4;base64,"), folder)
    assert image.suffix == ".png" and image.stem != video.stem


def test_base64_may_have_line_breaks(clip: Path, folder: Path) -> None:
    lines = base64.encodebytes(clip.read_bytes()).decode()
    assert Uploads(Limits()).fetch(f"data:;BASE64,{lines}", folder).read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(
    "head",
    [
        *("data:video/x-matroska;codecs=avc1,opus;base64,", 'data:video/webm;codecs="vp8, opus";base64,'),
        *(
            "DATA:Video/MP4;Codecs=avc1.42E01E%2Cmp4a.40.2;BASE64,",
            "data:video/mp4;charset=utf-8 ; base64 ,",
            " data:;base64,",
        ),
    ],
)
def test_types_as_browsers_write_them(head: str, clip: Path, folder: Path) -> None:
    assert Uploads(Limits()).fetch(data_url(clip.read_bytes(), head), folder).read_bytes() == clip.read_bytes()


def test_titles_may_have_any_encoding(clip: Path, folder: Path, tmp_path: Path) -> None:
    with av.open(str(clip)) as container, av.open(str(tmp_path / "titled.mp4"), "w") as out:
        out.metadata["title"] = "TTTTT"
        copy = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(container.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    content = (tmp_path / "titled.mp4").read_bytes().replace(b"TTTTT", "Füße!".encode("latin-1"))
    assert Uploads(Limits()).fetch(data_url(content), folder).suffix == ".mp4"


def test_content_may_be_escaped_and_without_padding(clip: Path, folder: Path) -> None:
    content = clip.read_bytes() + bytes(-len(clip.read_bytes()) % 3 + 1)  # needs padding
    text = base64.b64encode(content).decode()
    assert text.endswith("==")
    for written in (text.rstrip("="), quote(text, safe="")):
        assert Uploads(Limits()).fetch(f"data:;base64,{written}", folder).read_bytes() == content


@pytest.mark.parametrize("content", [b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b""], ids=["playlist", "empty"])
def test_content_that_is_no_medium_is_not_saved(content: bytes, folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        Uploads(Limits()).fetch(data_url(content), folder)
    assert (caught.value.code, caught.value.status) == ("unreadable_media", 400)
    assert str(folder) not in str(caught.value) and not list(folder.iterdir())


def test_truncated_clip_is_not_saved(clip: Path, folder: Path) -> None:
    content = clip.read_bytes()
    with pytest.raises(RequestError) as caught:
        Uploads(Limits()).fetch(data_url(content[: len(content) // 2]), folder)
    assert caught.value.code == "unreadable_media" and not list(folder.iterdir())


@pytest.mark.parametrize(
    ("limits", "content"),
    [
        (Limits(bytes=1000), b"x" * 1001),
        (Limits(pixels=100), draw_png(11, 10)),
        (Limits(), draw_png(20_000, 20_000)),  # 50 kB that decode to 400 MB
    ],
    ids=["bytes", "pixels", "bomb"],
)
def test_too_large_content_is_not_saved(limits: Limits, content: bytes, folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        Uploads(limits).fetch(data_url(content), folder)
    assert (caught.value.code, caught.value.status) == ("media_too_large", 413)
    assert str(folder) not in str(caught.value) and not list(folder.iterdir())


@pytest.mark.parametrize(
    ("limits", "code"), [(Limits(seconds=0.5), "media_too_long"), (Limits(pixels=100), "media_too_large")]
)
def test_too_long_or_too_large_clip_is_not_saved(limits: Limits, code: str, clip: Path, folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        Uploads(limits).fetch(data_url(clip.read_bytes()), folder)
    assert (caught.value.code, caught.value.status) == (code, 413) and not list(folder.iterdir())


def test_messages_name_a_file_as_the_client_does() -> None:
    message = "this clip (question): /srv/tmp/ab12/a b.mp4 is cut (data.on_bad_sample=skip leaves such samples out.)"
    assert clean_message(message, {Path("/srv/tmp/ab12/a b.mp4"): "a&b.mp4"}) == "a&b.mp4 is cut."
    assert clean_message("messages: choose another view (data.views).", {}) == "choose another view."


@pytest.mark.parametrize(
    "url",
    [
        "data:video/mp4,abc",
        "data:video/mp4;base64",
        "data:;base64,a*c=",
        "data:;base64,a",
        "data:;base64,äöüß",
        "data:;codecs=base64,AA==",
    ],
)
def test_data_url_without_valid_base64_raises(url: str, folder: Path) -> None:
    with pytest.raises(RequestError, match="base64"):
        Uploads(Limits()).fetch(url, folder)


@pytest.fixture
def allowed(clip: Path, tmp_path: Path) -> Path:
    """A folder with files that requests may name, beside a folder with files that they may not."""
    allowed, other = tmp_path / "mine", tmp_path / "mine too"
    allowed.mkdir()
    other.mkdir()
    (allowed / "a clip.mp4").write_bytes(clip.read_bytes())
    (allowed / "in").symlink_to(allowed / "a clip.mp4")
    (allowed / "out").symlink_to(clip)
    (allowed / "notes.txt").write_text("secret")
    (other / "b.mp4").write_bytes(clip.read_bytes())
    return allowed


def test_files_below_an_allowed_folder_are_read(allowed: Path, folder: Path) -> None:
    uploads, file = Uploads(Limits(), [allowed]), allowed / "a clip.mp4"
    for url in (str(file), f"file://{file}", file.as_uri(), f"file://localhost{file}", str(allowed / "in")):
        assert uploads.fetch(url, folder) == file


def test_other_files_have_the_same_error_whether_they_exist_or_not(allowed: Path, folder: Path) -> None:
    uploads, file = Uploads(Limits(), [allowed]), allowed / "a clip.mp4"
    other = allowed.parent / "mine too"
    urls = [
        str(other / "b.mp4"),
        str(other / "missing.mp4"),
        str(allowed / "out"),
        str(allowed / "missing.mp4"),
        f"{allowed}/../mine too/b.mp4",
        str(allowed),
        "a clip.mp4",
        f"file://elsewhere{file}",
        f"http://127.0.0.1{file}",
        f"https://127.0.0.1{file}",
        "ftp://x/y",
        "file:///etc/passwd",
        f"{allowed}/%2e%2e/mine too/b.mp4",
        "/proc/self/environ",
        "\0",
        "x" * 10_000,
        "",
        "file://[",
        f"concat:{file}",
    ]
    messages: set[str] = set()
    for url in urls:
        with pytest.raises(RequestError) as caught:
            uploads.fetch(url, folder)
        assert (caught.value.code, caught.value.status) == ("url_not_allowed", 400)
        quoted = repr(url if len(url) <= 80 else f"{url[:80]}...")
        messages.add(str(caught.value).replace(quoted, "it"))
    assert len(messages) == 1


def test_content_of_a_file_that_is_no_medium_is_not_revealed(allowed: Path, folder: Path) -> None:
    with pytest.raises(RequestError, match=r"not .*media file") as caught:
        Uploads(Limits(), [allowed]).fetch(str(allowed / "notes.txt"), folder)
    assert "secret" not in str(caught.value) and not list(folder.iterdir())


def test_no_file_is_read_without_an_allowed_folder(allowed: Path, folder: Path) -> None:
    with pytest.raises(RequestError, match=r"neither .*data: URL"):
        Uploads(Limits()).fetch(str(allowed / "a clip.mp4"), folder)


def test_missing_allowed_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"allow=.*missing.*no such folder"):
        Uploads(Limits(), [tmp_path / "missing"])
