"""Records and headers are the same after they were written."""

from pathlib import Path

from omnihuman.data.decode.header import Header, Track
from omnihuman.data.plan import codec
from omnihuman.data.record import FaceDetection, Record
from omnihuman.types import Tiling

PLAIN = Record("1", Path("/a.mp4"), "video", (("user", "<video>\nWho?"), ("assistant", "Ann \ud800 é")), ("video",))
FULL = Record(
    "2#VF",
    Path("/a.mp4"),
    "video",
    PLAIN.messages,
    ("video", "audio"),
    start=0.1,
    end=1 / 3,
    task="who",
    needs=("audio",),
    more_images=(Path("/b.png"),),
    location="train.jsonl:1",
    meta={"system": "Be brief.", "meta": {"options": ["a", None, 1.5]}},
    num_context=2,
    hidden=("faces",),
    audio_track=Path("/a.wav"),
    audio_track_span=(1.0, None),
    video_stream=1,
    audio_stream=0,
    second_clip=Path("/c.mp4"),
    second_clip_span=(2.0, 3.0),
    fps=12.5,
    tiling=Tiling(1, 2, 30, 40),
)
FACES = (FaceDetection(None, ()), FaceDetection(0.1, ((0.1, 2.0, 3.0, 4.0), (1.0, 1.0, 2.0, 2.5))))
TRACKS = (Track((0.5, float("inf")), 7, 29.97, False), Track())
HEADERS = (
    Header(False),
    Header(
        True, (0.5, 7.25), num_frames=50, fps=30000 / 1001, videos=TRACKS, audios=TRACKS, video_stream=0, notes=("n",)
    ),
    Header(True, is_still=True, num_frames=1, size=(30, 40), audio_stream=1),
)


def test_records_stay_equal() -> None:
    for record in (PLAIN, FULL):
        assert codec.decode_record(codec.encode_record(record), None) == record
        assert codec.decode_faces(codec.encode_faces(FACES)) == FACES


def test_every_field_of_a_record_is_written() -> None:
    """A field of a type that JSON has no type for needs an entry of its own."""
    unset = [name for name, default in codec.RECORD_DEFAULTS.items() if getattr(FULL, name) == default]
    assert unset == ["faces"]


def test_headers_stay_equal() -> None:
    for header in HEADERS:
        assert codec.decode_header(codec.encode_header(header)) == header


def test_values_without_a_type_in_json_become_text() -> None:
    record = Record("1", Path("/a"), "video", (), (), meta={"day": Path("x")})
    assert codec.decode_record(codec.encode_record(record), None).meta == {"day": "x"}
