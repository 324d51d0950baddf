"""The application of a server: routes, their API key and description, and the origins of web pages."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

import omnihuman
from omnihuman.serving.completions import build_error_body
from omnihuman.serving.metrics import Metrics, RequestCounter
from omnihuman.serving.openai import ChatCompletions
from omnihuman.serving.process import LOOPBACK
from omnihuman.serving.schema import ChatCompletion, ChatRequest, ErrorBody
from omnihuman.serving.uploads import RequestError

COMPONENTS = "#/components/schemas/"
EVENTS = 'data: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "A face"}, ...}], ...}\n\n'


def build_app(endpoint: ChatCompletions, host: str, api_key: str | None = None) -> FastAPI:
    """Build the application of a server.

    Args:
        endpoint: the handlers.
        host: address of the server; on loopback, requests must use a loopback name, so that no domain that points at
            this machine reaches it.
        api_key: that every request must send, those of ``/health`` and ``/live`` excepted.
    """
    app = FastAPI(title="omnihuman", version=omnihuman.__version__, openapi_url=None)
    # the last one comes first: the answer to any request is counted and has the headers of CORS
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK] if host in LOOPBACK else ["*"])
    app.add_middleware(RequestCounter, metrics=endpoint.metrics)
    if endpoint.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=endpoint.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            allow_private_network=True,
        )

    async def read_metrics() -> Response:
        """Return the numbers of the server for Prometheus."""
        return Response(endpoint.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def describe() -> dict[str, Any]:
        return _describe(app)

    async def show_docs() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="openapi.json", title=app.title)

    guarded = APIRouter(dependencies=[] if api_key is None else [Depends(_build_key_check(api_key))])
    guarded.add_api_route("/v1/chat/completions", endpoint.complete, methods=["POST"], **_describe_completion())
    guarded.add_api_route("/v1/models", endpoint.list_models)
    guarded.add_api_route("/v1/models/{name}", endpoint.describe_model)
    guarded.add_api_route("/metrics", read_metrics, response_class=PlainTextResponse)
    guarded.add_api_route("/openapi.json", describe, include_in_schema=False)
    guarded.add_api_route("/docs", show_docs, include_in_schema=False)
    app.include_router(guarded)
    app.add_api_route("/health", endpoint.check_ready, responses={503: {"model": ErrorBody}})
    app.add_api_route("/live", endpoint.check_live)

    async def handle_error(request: Request, error: Exception) -> JSONResponse:
        return _build_error_response(error, endpoint.metrics)

    for kind in (RequestError, HTTPException):
        app.add_exception_handler(kind, handle_error)
    return app


def _build_key_check(key: str) -> Callable[..., Awaitable[None]]:
    """Return a function that raises a ``RequestError`` where the API key of a request is missing or wrong."""

    async def check_key(
        sent: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))],
    ) -> None:
        if sent is None or not secrets.compare_digest(sent.credentials.encode(), key.encode()):
            message = "missing or wrong API key; send the header Authorization: Bearer <key>."
            raise RequestError("invalid_api_key", message, 401)

    return check_key


def _describe_completion() -> dict[str, Any]:
    """Return the description of the route of completions, whose handler reads the body itself."""
    stream = {"text/event-stream": {"schema": {"type": "string"}, "example": f"{EVENTS}data: [DONE]\n\n"}}
    responses: dict[int, dict[str, Any]] = {
        200: {"model": ChatCompletion, "description": "The answer; with stream, in pieces.", "content": stream}
    }
    for status, reason in (
        (400, "A field is invalid, or a medium cannot be read."),
        (401, "The API key is missing or wrong."),
        (403, "The request is of a web page of another site."),
        (413, "The request or a medium is too large."),
        (503, "The model is not loaded, or too many requests are pending."),
        (504, "There was no answer in time."),
    ):
        responses[status] = {"model": ErrorBody, "description": reason}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": f"{COMPONENTS}ChatRequest"}}}}
    return {"response_model": None, "responses": responses, "openapi_extra": {"requestBody": body}}


def _describe(app: FastAPI) -> dict[str, Any]:
    """Return the description of an application, with the body of requests."""
    description = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schema = ChatRequest.model_json_schema(ref_template=f"{COMPONENTS}{{model}}")
    schemas = description["components"]["schemas"]
    schemas |= {**schema.pop("$defs"), "ChatRequest": schema}
    return description


def _build_error_response(error: Exception, metrics: Metrics) -> JSONResponse:
    """Count an error, and return it in the form of OpenAI."""
    if isinstance(error, HTTPException):
        code = "too_large" if error.status_code == 413 else "http_error"
        error = RequestError(code, str(error.detail), error.status_code)
    assert isinstance(error, RequestError)
    metrics.errors.labels(error.code).inc()
    headers: dict[str, str] = {}
    if error.status == 503:
        headers["retry-after"] = "1"
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse(build_error_body(error), error.status, headers)
