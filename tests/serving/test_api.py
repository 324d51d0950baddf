"""Routes, their API key and description, and pages of other sites."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from omnihuman.serving.schema import ChatCompletion, ErrorBody

PATH = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
KEY = {"authorization": "Bearer s3cret"}
Server = SimpleNamespace


def read_error(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def is_clean(server: Server) -> bool:
    """True if nothing of a request is left."""
    return not (server.endpoint.num_pending or list(server.root.iterdir()))


@pytest.mark.parametrize("sent", [None, "Bearer s3cre", "Bearer ", "Bearer \xfc", "s3cret", "Basic s3cret"])
def test_api_key_is_checked_before_the_body_is_read(sent: str | None, start_server: Any) -> None:
    server = start_server(key="s3cret")
    headers = {} if sent is None else {"authorization": sent.encode("latin-1")}

    def iterate_body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert read_error(server.client.post(PATH, content=iterate_body(), headers=headers)) == (401, "invalid_api_key")
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
        assert server.client.get(path, headers=headers).status_code == 401


def test_right_api_key_is_accepted(start_server: Any) -> None:
    client = start_server(key="s3cret").client
    assert client.post(PATH, json=BODY, headers={"authorization": "bearer s3cret"}).status_code == 200
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path, headers=KEY).status_code == 200


def test_health_depends_on_the_model_and_liveness_does_not(start_server: Any) -> None:
    server = start_server(key="s3cret")  # probes send no key
    assert server.client.get("/health").json() == {"status": "ready"}
    server.pool.ready.clear()
    response = server.client.get("/health")
    assert read_error(response) == (503, "not_ready") and response.headers["retry-after"] == "1"
    assert server.client.get("/live").status_code == 200
    assert read_error(server.client.post(PATH, json=BODY, headers=KEY)) == (503, "not_ready")
    assert is_clean(server) and not server.questions


ORIGIN = "https://app.example"


def send_preflight(server: Server, origin: str) -> Any:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    return server.client.options(PATH, headers=headers)


@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",)])
def test_pages_of_allowed_origins_get_answers(origins: tuple[str, ...], start_server: Any) -> None:
    server = start_server(key="s3cret", origins=origins)
    preflight = send_preflight(server, ORIGIN)
    allowed = {"*": "*"}.get(origins[0], ORIGIN)
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == allowed
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    headers = {"origin": ORIGIN, "sec-fetch-site": "cross-site", **KEY}
    for response in (
        server.client.post(PATH, json=BODY, headers=headers),
        server.client.post(PATH, json=BODY | {"n": 2}, headers=headers),
        server.client.post(PATH, json=BODY, headers={"origin": ORIGIN}),  # without the key
    ):
        assert response.headers["access-control-allow-origin"] == allowed
        assert "access-control-allow-credentials" not in response.headers
    assert len(server.questions) == 1


@pytest.mark.parametrize("origin", ["https://app.example.evil", "http://app.example", "null"])
def test_pages_of_other_origins_get_no_answer(origin: str, start_server: Any) -> None:
    server = start_server(origins=(ORIGIN,))
    response = server.client.post(PATH, json=BODY, headers={"origin": origin})
    assert read_error(response) == (403, "cross_site") and not server.questions
    for refusal in (response, send_preflight(server, origin)):
        assert "access-control-allow-origin" not in refusal.headers


def test_description_has_the_types_of_the_endpoint(start_server: Any) -> None:
    client = start_server(key="s3cret").client
    description = client.get("/openapi.json", headers=KEY).json()
    operation, schemas = description["paths"][PATH]["post"], description["components"]["schemas"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = schemas[body.rpartition("/")[2]]["properties"]
    assert {"messages", "response_format", "view"} <= set(fields) and "Message" in fields["messages"]["items"]["$ref"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("ChatCompletion")
    assert "text/event-stream" in operation["responses"]["200"]["content"] and operation["security"]
    assert "security" not in description["paths"]["/health"]["get"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description)))
    assert references <= set(schemas)
    assert "openapi.json" in client.get("/docs", headers=KEY).text


def test_responses_are_as_described(start_server: Any) -> None:
    client = start_server().client
    ChatCompletion.model_validate(client.post(PATH, json=BODY).json())
    ErrorBody.model_validate(client.post(PATH, json={}).json())


def test_requests_are_counted_by_route_and_status(start_server: Any) -> None:
    client = start_server().client
    for path in (PATH, PATH, "/nowhere/1", "/nowhere/2"):
        client.post(path, json=BODY)
    client.post(PATH, json=BODY | {"n": 2})
    lines = client.get("/metrics").text.splitlines()
    for line in (
        f'omnihuman_requests_total{{route="{PATH}",status="200"}} 2.0',
        f'omnihuman_requests_total{{route="{PATH}",status="400"}} 1.0',
        'omnihuman_requests_total{route="other",status="404"} 2.0',
        f'omnihuman_request_seconds_count{{route="{PATH}"}} 3.0',
        'omnihuman_tokens_total{kind="prompt"} 10.0',
        'omnihuman_tokens_total{kind="completion"} 4.0',
        'omnihuman_errors_total{code="unsupported_option"} 1.0',
        "omnihuman_questions_waiting 0.0",
        "omnihuman_models_ready 1.0",
    ):
        assert line in lines
