"""Errors of FFmpeg: formats that are read, formats that are not, and states of the machine."""

import errno
import shutil
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from omnihuman.data import media
from omnihuman.data.bad_sample import BadSample
from omnihuman.data.decode.error import explain_read_error
from omnihuman.data.exclusion import FILE_REASONS
from tests.data.conftest import draw_frame, write_clip


@pytest.mark.parametrize(("suffix", "codec"), [("au", "pcm_s16be"), ("wv", "wavpack"), ("tta", "tta")])
def test_audio_formats_are_read(suffix: str, codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", 0, 1.0, audio_codec=codec, sample_rate=16000, layout="mono")
    waveform = media.read(path, num_samples=media.probe(path).num_samples())[2]
    assert waveform is not None and len(waveform) == 16000 and waveform.abs().mean() > 0.1


def test_an_mxf_file_and_a_tiff_image_are_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mxf", 10, 0, video_codec="mpeg2video", size=(64, 48))
    frames = media.read(path, num_frames=2)[0]
    assert frames is not None and frames.shape == (2, 3, 48, 64)
    Image.fromarray(draw_frame(1, 40, 30)).save(tmp_path / "a.tiff")
    image = media.read(tmp_path / "a.tiff", num_frames=1)[0]
    assert image is not None and (image[0].permute(1, 2, 0).numpy() == draw_frame(1, 40, 30)).all()


def test_a_format_that_is_not_read_is_named_with_the_cure(tmp_path: Path) -> None:
    playlist = tmp_path / "a.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    with pytest.raises(BadSample, match=r"a\.m3u8: its format \(hls\) is not read: convert it") as caught:
        media.probe(playlist)
    assert caught.value.reason == "unread_format"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOTCONN])
def test_a_state_of_the_machine_is_no_property_of_the_file(
    code: int, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise av.error.OSError(code, "away")

    shutil.copy(media_root / "talk.mp4", tmp_path)  # whose header is not known yet
    monkeypatch.setattr("av.open", fail)
    with pytest.raises(BadSample, match=r"talk\.mp4: .*\(away\)") as caught:
        media.probe(tmp_path / "talk.mp4")
    assert caught.value.reason not in FILE_REASONS
    assert explain_read_error(tmp_path / "talk.mp4", OSError(code, "away")).reason == "unavailable"
