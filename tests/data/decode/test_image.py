"""Images: of tiles, of every mode, moving ones, and large ones."""

import importlib.util
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from omnihuman.data.decode import frames
from omnihuman.data.face import FaceInput
from omnihuman.data.media import probe, read, read_clip
from omnihuman.data.record import BadSample, FaceDetection, Record
from tests.data.conftest import draw_frame, write_clip
from tests.data.decode.heif import write_heif

HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
GRIDS = {"row": [[60, 180]], "column": [[60], [180]], "square": [[60, 90], [120, 180]]}
ORIENTATIONS = list(itertools.product([1, -1], [1, -1], [False, True]))


@pytest.mark.parametrize("suffix", ["heic", "avif"])
@pytest.mark.parametrize("name", GRIDS)
def test_an_image_of_tiles_is_assembled_or_refused(name: str, suffix: str, tmp_path: Path) -> None:
    path = write_heif(tmp_path / f"a.{suffix}", GRIDS[name])
    if suffix == "heic" and not HAS_HEIF:
        with pytest.raises(BadSample, match=r"a\.heic.*tiles.*omnihuman\[heif\]") as caught:
            probe(path)
        assert caught.value.reason == "tiles"
        return
    header = probe(path)
    frames, times, _ = read(path, num_frames=8, header=header)
    assert header.is_still and times == [0.0]
    for row, levels in enumerate(GRIDS[name]):
        for column, level in enumerate(levels):
            tile = frames[0, :, 128 * row : 128 * (row + 1), 128 * column : 128 * (column + 1)]
            assert tile.float().mean() == pytest.approx(level, abs=3)
    assert frames.shape[-2:] == (128 * len(GRIDS[name]), 128 * len(GRIDS[name][0]))


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_a_heif_image_without_tiles_is_one_frame(suffix: str, tmp_path: Path) -> None:
    path = write_heif(tmp_path / f"a.{suffix}", [[60]])
    assert probe(path).is_still
    frames = read(path, num_frames=8)[0]
    assert frames.shape == (1, 3, 128, 128) and frames.float().mean() == pytest.approx(60, abs=3)


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256 * 64).astype(np.uint16).reshape(64, 256)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        frames = read(tmp_path / name, num_frames=1)[0]
        assert frames.float().mean() == pytest.approx(127.5, abs=1)
        assert torch.equal(frames[0, 0], torch.from_numpy((ramp >> 8).astype(np.uint8)))


def test_modes_are_those_of_the_official_conversion(tmp_path: Path) -> None:
    image = Image.fromarray(draw_frame(3, 40, 30))
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(image.size))
    palette = image.quantize(16)
    palette.info["transparency"] = bytes(range(16))
    variants = {
        "a.png": palette,
        "b.png": image.convert("LA"),
        "c.png": transparent,
        "d.png": image.convert("1"),
        "e.jpg": image.convert("CMYK"),
        "f.png": image.convert("L"),
        "g.webp": transparent,
        "h.bmp": image,
        "i.tiff": image.convert("CMYK"),
    }
    for name, variant in variants.items():
        variant.save(tmp_path / name)
        expected = np.array(Image.open(tmp_path / name).convert("RGB"))
        assert np.array_equal(read(tmp_path / name, num_frames=1)[0][0].permute(1, 2, 0).numpy(), expected), name


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_range_are_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.tiff")
    with pytest.raises(BadSample, match=r"a\.tiff.*32 bits.*8 bits"):
        probe(tmp_path / "a.tiff")


def test_moving_images_are_films_or_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(draw_frame(number, 32, 24)) for number in range(10)]
    for name in ("a.webp", "a.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40)
        with pytest.raises(BadSample, match=rf"{name}: 10 images.*convert it"):
            probe(tmp_path / name)
    for name in ("a.png", "a.gif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40)
        assert not probe(tmp_path / name).is_still
        film, times, _ = read(tmp_path / name, num_frames=10)
        assert times == pytest.approx([number / 25 for number in range(10)])
        if name == "a.png":
            assert np.array_equal(film[7].permute(1, 2, 0).numpy(), draw_frame(7, 32, 24))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (16_000, 11_000)).save(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.png").symlink_to(tmp_path / "a.png")
    for path in (tmp_path / "a.png", tmp_path / "folder"):
        with pytest.raises(BadSample, match=r"16000 x 11000 pixels.*67108864") as caught:
            probe(path)
            read(path, num_frames=1)
        assert caught.value.reason == "too_large"


def test_a_video_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 2, 0)
    with pytest.raises(BadSample, match=r"64 x 48 pixels; at most 3071 ") as caught:
        probe(path, max_pixels=64 * 48 - 1)
    assert caught.value.reason == "too_large" and probe(path, max_pixels=64 * 48).has_video


def test_frames_of_a_clip_are_scaled_while_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", 16, 0)
    full = read(path, num_frames=4)[0]
    monkeypatch.setattr(frames, "MAX_PIXELS", 64 * 48)
    assert torch.equal(read(path, num_frames=1)[0], read(path, num_frames=1)[0])
    images = read(path, num_frames=4)[0]
    assert images.shape == (4, 3, 24, 32), "a quarter of the pixels for each"
    expected = torch.nn.functional.avg_pool2d(full.float(), 2)
    assert (images.float() - expected).abs().mean() < 8


def test_face_boxes_follow_the_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", 16, 0)
    boxes = (FaceDetection(0.0, ((16.0, 8.0, 48.0, 40.0),)),)
    record = Record("1", path, "video", (), ("video",), faces=boxes)
    monkeypatch.setattr(frames, "MAX_PIXELS", 64 * 48)
    clip = read_clip(record, probe(path), 4, 0)
    assert clip.scale == 0.5
    crop = FaceInput(margin=0.0)(clip.frames, clip.times, boxes, "here", clip.scale)[0]
    assert torch.equal(crop, clip.frames[0, :, 4:20, 8:24])
    outside = (FaceDetection(0.0, ((70.0, 8.0, 80.0, 40.0),)),)
    with pytest.raises(BadSample, match="64 x 48"):
        FaceInput()(clip.frames, clip.times, outside, "here", clip.scale)


def orient(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the track header of an mp4."""
    data = bytearray(path.read_bytes())
    offset = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    values = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    data[offset : offset + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path = path.with_name("oriented.mp4")
    path.write_bytes(data)
    return path


def filter_as_ffmpeg(frame: torch.Tensor, matrix: tuple[int, int, int, int]) -> torch.Tensor:
    """Return a frame as ``ffmpeg`` turns it: the filters that it inserts for the angle of a matrix (autorotate)."""
    a, b, c, d = matrix
    theta = round(np.degrees(np.arctan2(b, a))) % 360
    transposed = frame.transpose(1, 2)
    if theta == 90:
        return transposed if c > 0 else transposed.flip(2)
    if theta == 180:
        frame = frame.flip(2) if a < 0 else frame
        return frame.flip(1) if d < 0 else frame
    if theta == 270:
        return transposed.flip(1, 2) if c < 0 else transposed.flip(1)
    return frame.flip(1) if d < 0 else frame


@pytest.mark.parametrize(("across", "down", "is_transposed"), ORIENTATIONS)
def test_the_whole_display_matrix_counts(across: int, down: int, is_transposed: bool, tmp_path: Path) -> None:
    matrix = (0, down, across, 0) if is_transposed else (across, 0, 0, down)
    path = write_clip(tmp_path / "a.mp4", 4, 0)
    original = read(path, num_frames=1)[0][0]
    frame = read(orient(path, matrix), num_frames=1)[0][0]
    assert torch.equal(frame, filter_as_ffmpeg(original, matrix))
    corner = original[:, 0, 0]
    row, column = min(0, down), min(0, across)
    assert torch.equal(frame[:, row, column], corner), "x' = a x + c y, y' = b x + d y"


def test_a_mirrored_clip_is_not_upside_down(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 4, 0)
    original = read(path, num_frames=2)[0]
    assert torch.equal(read(orient(path, (-1, 0, 0, 1)), num_frames=2)[0], original.flip(3))


def test_metadata_in_another_encoding_are_no_error(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        out.metadata["title"] = "Muenchen"
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(draw_frame(0, 64, 48), format="rgb24")))
        out.mux(stream.encode(None))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data.replace(b"Muenchen", b"M\xfcnchen!"))
    assert probe(tmp_path / "a.mp4").has_video
