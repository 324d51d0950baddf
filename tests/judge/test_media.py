"""Media are parts of a message, and digests in the key of the cache."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from omnihuman.judge.base import Protocol
from omnihuman.judge.endpoint import EndpointJudge
from omnihuman.judge.media import Media


class Reply(BaseModel):
    text: str


PROTOCOL = Protocol("look", "1", "Reply as JSON.", "What is it, {name}?", Reply)
IMAGE = Media("image", b"jpeg", digest="d1", cut={"time": 0.5})


def test_media_precede_the_text() -> None:
    item = {"frames": [IMAGE, IMAGE], "name": "Ann", "sound": Media("audio", b"wav", suffix=".wav")}
    *parts, text = PROTOCOL.build_messages(item)[1]["content"]
    assert text == {"type": "text", "text": "What is it, Ann?"}
    url = f"data:image/jpeg;base64,{base64.b64encode(b'jpeg').decode()}"
    assert parts[0] == parts[1] == {"type": "image_url", "image_url": {"url": url}}
    assert parts[2]["input_audio"] == {"data": base64.b64encode(b"wav").decode(), "format": "wav"}
    assert PROTOCOL.build_messages({"name": "Ann"})[1]["content"] == "What is it, Ann?"


def test_a_server_may_read_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a b.mp4"
    file.write_bytes(b"mp4")
    part = Media("video", path=file).build_part("file")
    assert part == {"type": "video_url", "video_url": {"url": file.as_uri()}}
    assert Media("video", path=file).build_part()["video_url"]["url"].startswith("data:video/mp4;base64,")
    with pytest.raises(ValueError, match=r"a\.avi.*\.mp4"):
        Media("video", path=tmp_path / "a.avi").build_part()


def test_the_key_has_digest_and_cut(tmp_path: Path) -> None:
    judge = EndpointJudge("m", api_key_env=None, cache=None)

    def key(*media: Media) -> str:
        return judge.cache_key(PROTOCOL, {"frames": list(media), "name": "Ann"})

    assert key(IMAGE) == key(Media("image", b"other bytes", digest="d1", cut={"time": 0.5}, suffix=".png"))
    variants = [
        Media("image", b"jpeg", digest="d2", cut={"time": 0.5}),
        Media("image", b"jpeg", digest="d1", cut={"time": 1.0}),
        Media("image", b"jpeg"),
    ]
    assert len({key(IMAGE), *map(key, variants), key(IMAGE, IMAGE)}) == 5
    file = tmp_path / "a.jpg"
    file.write_bytes(b"jpeg")
    assert key(Media("image", path=file)) == key(Media("image", b"jpeg"))


def test_requests_hold_the_media(
    make: Callable[..., EndpointJudge], log: Callable[[str], list[dict[str, Any]]]
) -> None:
    judge = make("good-media", max_retries=0)
    judge.query(PROTOCOL, [{"frames": [IMAGE], "name": "Ann"}])
    (request,) = log("good-media")
    assert request["body"]["messages"][1]["content"][0]["type"] == "image_url"


def test_a_dead_endpoint_leaves(make: Callable[..., EndpointJudge], endpoint: str) -> None:
    judge = make("good-list", base_url=["http://127.0.0.1:9/v1", endpoint], max_concurrency=1)
    verdicts = judge.query(PROTOCOL, [{"name": name} for name in "abc"])
    assert [verdict is not None for verdict in verdicts] == [True] * 3
    client = judge._client
    assert client is not None and [str(api.base_url) for api in client._apis] == [f"{endpoint}/"]
    with pytest.raises(ValueError, match="base_url=localhost"):
        make("good", base_url=[endpoint, "localhost:8000/v1"])
