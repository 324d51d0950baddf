"""Replies become columns; an item without one is a failed row."""

import io
import json
import wave
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnihuman.build import build, compose_part, config_dir
from omnihuman.corpus.world import build_scenes
from omnihuman.corpus.write import build_records
from omnihuman.judge.endpoint import EndpointJudge
from omnihuman.judge.scripted import ScriptedJudge
from omnihuman.operator.ask import Ask, build_schema
from omnihuman.operator.base import Failed
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row

REPLY = {"label": {"kind": "text", "among": ["yes", "no"]}, "score": {"kind": "number", "least": 0, "most": 10}}
PROTOCOL = {"name": "check", "version": 1, "system": "Reply as JSON.", "user": "Is it {label}?", "reply": REPLY}
SCENE = build_scenes(0)[0]
RECORD = json.dumps({"task": "body", "conversations": [{"from": "gpt", "value": "yes"}]})


def write_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    return buffer.getvalue()


def script(**fields: Any) -> Any:
    replies = {"check": {"label": {"tasks": ["body"]}, "score": {"value": 7}, **fields}}
    return partial(ScriptedJudge, replies)


def test_fields_are_columns(tmp_path: Path) -> None:
    operator = Ask("a", PROTOCOL, script(), columns={"label": "emotion"})
    assert set(operator.reads) == {"emotion", "records"}
    assert list(operator.writes) == ["a_label", "a_score", "a_model"]
    row = build_row(tmp_path / "a.mp4", records=[RECORD], emotion="sad")
    assert apply_one(operator, tmp_path, row) == {"a_label": "yes", "a_score": 7.0, "a_model": "scripted"}
    assert operator._build_items(row) == [{"records": [RECORD], "start": 0.0, "label": "sad"}]


def test_rows_without_a_reply_fail(tmp_path: Path) -> None:
    outcome = apply_one(Ask("a", PROTOCOL, script()), tmp_path, build_row(tmp_path / "a.mp4", label="sad"))
    assert isinstance(outcome, Failed) and outcome.why == "no_reply" and "no record" in outcome.detail


@pytest.mark.parametrize("reply", [{"label": "maybe", "score": 1}, {"label": "yes", "score": 11}, {"label": "yes"}])
def test_replies_have_a_schema(reply: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="check"):
        build_schema("check", REPLY).model_validate(reply)


def test_the_model_decides_and_the_address_does_not() -> None:
    def identify(**options: Any) -> Any:
        return Ask("a", PROTOCOL, partial(EndpointJudge, **options)).identity()

    assert identify(model="m", base_url="http://a/v1") == identify(model="m", base_url="http://b/v1", timeout=1.0)
    assert identify(model="m") != identify(model="n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": None}, "captioner=endpoint"),
        ({"protocol": {**PROTOCOL, "reply": {"a": {"kind": "word"}}}}, r"reply\.a\.kind=word.*texts"),
        ({"protocol": {**PROTOCOL, "frames": "face"}}, r"protocol\.frames=face.*faces"),
    ],
)
def test_mistakes_name_the_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ask(**{"name": "a", "protocol": PROTOCOL, "captioner": script(), **options})


def test_rows_without_a_value_are_asked_nothing(tmp_path: Path) -> None:
    operator = Ask("a", PROTOCOL, script(), when=["label", "other"])
    assert set(operator.reads) == {"label", "other", "records"}
    row = build_row(tmp_path / "a.mp4", records=[RECORD], label=None, other=[])
    assert apply_one(operator, tmp_path, row) == {"a_label": None, "a_score": None, "a_model": None}
    assert apply_one(operator, tmp_path, row | {"other": ["x"]}) == {
        "a_label": "yes",
        "a_score": 7.0,
        "a_model": "scripted",
    }
    assert operator.judge.ledger.num_items == 1


def test_faces_are_asked_about_one_by_one(tmp_path: Path) -> None:
    faces = [
        {"track": number, "times": times, "boxes": [[8.0, 8.0, 16.0, 24.0]] * len(times), "scores": []}
        for number, times in enumerate([[0.0], [0.0, 0.5], [0.5]])
    ]
    frames = [{"time": time, "jpeg": write_jpeg()} for time in (0.0, 0.5, 2.0)]
    operator = Ask("a", {**PROTOCOL, "user": "Who?", "frames": "faces"}, script(), max_tracks=2)
    row = build_row(tmp_path / "a.mp4", records=[RECORD], faces=faces, face_frames=frames)
    outcome = apply_one(operator, tmp_path, row)
    assert [entry["track"] for entry in outcome["a_tracks"]] == [1, 0] and outcome["a_tracks"][0]["score"] == 7.0
    crops = [item["frames"] for item in operator._build_items(row)]
    assert [len(media) for media in crops] == [2, 1]
    assert Image.open(io.BytesIO(crops[0][0].content)).size == (12, 24)  # 8 x 16 pixels and a quarter on each side
    assert apply_one(operator, tmp_path, row | {"faces": []}) == {"a_tracks": [], "a_model": None}


def test_models_hear_the_clip(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "a.mp4", num_frames=25, seconds=1.0)
    operator = Ask("a", {**PROTOCOL, "user": "What?", "sound": True}, script())
    operator.setup(tmp_path)
    (item,) = operator._build_items(build_row(file, records=[RECORD], start=0.5, has_sound=True, seconds=0.5))
    with wave.open(io.BytesIO(item["sound"].content)) as sound:
        assert sound.getframerate() == 16000 and abs(sound.getnframes() - 8000) < 200
    (message,) = operator.question.build_messages(item)[1:]
    assert message["content"][0]["input_audio"]["format"] == "wav"


PROTOCOLS = sorted(path.stem for path in (Path(config_dir()) / "protocol").glob("*.yaml"))

BAD: dict[str, dict[str, Any]] = {
    "alignment": {"score": 11},
    "attributes": {"appearance": ["tall"]},
    "body_instructions": {"pairs": []},
    "face": {"age": "37"},
    "face_instructions": {"pairs": [{"question": "Who?"}]},
    "interaction_instructions": {"pairs": [{"question": "Who?", "answer": "She."}] * 2},
    "qa": {"pairs": [{"question": "Who?", "answer": ""}]},
    "reason": {"labels": []},
    "supported": {"share": 2},
}
"""Protocol -> a field that is against its limits."""


def build_ask(name: str) -> Ask:
    captioner = {"_target_": "omnihuman.judge.scripted.ScriptedJudge", "_partial_": True}
    part = compose_part("operator", "ask", [f"protocol@operator.protocol={name}"])
    built: Any = build({"pipeline": {"operators": {"x": {**part, "captioner": captioner}}}})
    operator: Ask = built["pipeline"]["operators"]["x"]
    return operator


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_ask_for_json_with_their_fields(name: str, tmp_path: Path) -> None:
    operator = build_ask(name)
    assert isinstance(operator, Ask) and operator.name == name
    system = operator.protocol["system"]
    assert "JSON" in system and all(f'"{field}"' in system for field in operator.fields)
    for field in operator.fields.values():
        assert field["kind"] != "texts" or all(choice in system for choice in field.get("among", ()))
    assert ("frames" in operator.reads) == (operator.look is True)
    operator.setup(tmp_path)
    schema = operator.question.json_schema()
    assert schema["required"] == list(operator.fields)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scripted_replies_obey_the_schema_and_bad_ones_do_not(name: str, tmp_path: Path) -> None:
    operator = build_ask(name)
    operator.setup(tmp_path)
    records = [json.dumps(record) for record in build_records(SCENE, 0)]
    texts = dict.fromkeys(operator.sources, "She smiles. It snows outside.") | {"label": SCENE.emotion}
    item = {**texts, "records": records, "start": 0.0}
    (verdict,) = operator.judge.query(operator.question, [item])
    assert verdict is not None
    good = verdict.reply.model_dump()
    assert list(good) == list(operator.fields)
    broken = [{**good, **BAD[name]}] if name in BAD else []
    for field in operator.fields:
        broken += [{key: good[key] for key in good if key != field}, {**good, field: {"a": 1}}]
    for reply in broken:
        with pytest.raises(ValueError, match=name):
            operator.question.parse_reply(json.dumps(reply), item)


def test_attributes_are_those_of_celebv_hq() -> None:
    fields = build_ask("attributes").fields
    assert [len(set(field["among"])) for field in fields.values()] == [40, 35, 8]
