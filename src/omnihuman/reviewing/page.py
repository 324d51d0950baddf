"""The page on which people judge rows, as an ASGI application: its files, the rows, their media, and verdicts."""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from omnihuman.reviewing.queue import Item, Queue
from omnihuman.serving.guard import is_cross_site, read_host, read_length
from omnihuman.serving.process import LOOPBACK

COOKIE = "omnihuman_review"
MAX_BODY = 2**20
"""Largest verdict in bytes."""

FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
"""Path -> file of this package and its type."""

HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every response: the browser requests nothing from elsewhere, and keeps no face on its disk."""


class Page:
    """The routes of the page.

    Args:
        queue: of the rows.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def build(self, token: str, local: bool = True) -> ASGIApp:
        """Return the application.

        Args:
            token: that the address of the page ends with; a cookie has it from then on.
            local: accept only requests that name this machine by a loopback name, see ``serving.guard``.
        """
        routes = [Route(path, self._show_file) for path in FILES]
        routes += [
            Route("/next", self._answer_next),
            Route("/row/{key}", self._answer_row),
            Route("/media/{key}", self._answer_media),
            Route("/verdict", self._take_verdict, methods=["POST"]),
        ]
        return Door(Starlette(routes=routes), token, local)

    async def _show_file(self, request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response((files("omnihuman.reviewing") / name).read_bytes(), media_type=f"{kind}; charset=utf-8")

    async def _answer_next(self, request: Request) -> Response:
        reviewer = request.query_params.get("reviewer", "")
        item = self.queue.next(reviewer)
        row = None if item is None else self._describe(item, reviewer)
        return JSONResponse({"row": row, "progress": self.queue.count(reviewer)})

    async def _answer_row(self, request: Request) -> Response:
        item = self.queue.items.get(request.path_params["key"])
        if item is None:
            return PlainTextResponse("There is no such row.", 404)
        reviewer = request.query_params.get("reviewer", "")
        return JSONResponse({"row": self._describe(item, reviewer), "progress": self.queue.count(reviewer)})

    async def _answer_media(self, request: Request) -> Response:
        item = self.queue.items.get(request.path_params["key"])
        if item is None or not item.row["file"].is_file():
            return PlainTextResponse("There is no such file.", 404)
        return FileResponse(item.row["file"])  # answers requests for ranges, which seeking needs

    async def _take_verdict(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            reviewer, key, verdict = body["reviewer"], body["key"], body["verdict"]
            values, seconds = dict(body.get("values") or {}), body.get("seconds")
            seconds = None if seconds is None else round(float(seconds), 1)
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "The page has sent no verdict; reload it."}, 400)
        try:
            await run_in_threadpool(self.queue.judge, reviewer, key, verdict, values, seconds)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        except OSError as error:
            return JSONResponse({"error": f"The verdict is not saved: {error.strerror}."}, 507)
        row = self._describe(self.queue.items[key], reviewer)
        return JSONResponse({"row": row, "progress": self.queue.count(reviewer)})

    def _describe(self, item: Item, reviewer: str) -> dict[str, Any]:
        """Return what the page shows of a row to a person, with the hidden columns after the first verdict."""
        review, row = self.queue.waiting.review, item.row
        described = {
            "key": item.key,
            "name": row["source"],
            "start": row["start"],
            "end": row["end"],
            "shift": row.get("source_start") or 0.0,
            "tracks": row.get("faces") or [],
            "show": {title: row[column] for title, column in review.show.items()},
            "edit": [{"column": column, "kind": kind, "value": row[column]} for column, kind in review.edit.items()],
            "num_hidden": len(review.hide),
            "people": self.queue.needs(item.key),
        }
        if verdict := self.queue.people.get(item.key, {}).get(reviewer):
            described["hidden"] = {title: row[column] for title, column in review.hide.items()}
            described["verdict"] = verdict.verdict
        return described


class Door:
    """An application that opens with a token, and only to the page's own requests.

    Args:
        inner: the application.
        token: in the address ``/?token=`` at first, then in a cookie.
        local: see ``Page.build``.
    """

    def __init__(self, inner: ASGIApp, token: str, local: bool) -> None:
        self.inner, self.token, self.local = inner, token, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        response = self._refuse(scope)
        if response is None:
            await self.inner(scope, receive, _add_headers(send))
        else:
            await response(scope, receive, _add_headers(send))

    def _refuse(self, scope: Scope) -> Response | None:
        """Return the response to a request that may not pass, ``None`` for the others."""
        request = Request(scope)
        if self.local and read_host(scope) not in LOOPBACK:
            return PlainTextResponse("Not available.", 403)
        if scope["method"] == "POST" and (is_cross_site(scope) or not 0 <= read_length(scope) <= MAX_BODY):
            return PlainTextResponse("Not available.", 403)
        if request.url.path == "/" and self._knows(request.query_params):
            response = RedirectResponse("/")  # the token does not stay in the address
            response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return response
        if not self._knows({"token": request.cookies.get(COOKIE, "")}):
            return PlainTextResponse("Open the address that omnihuman review has printed, with its token.", 401)
        return None

    def _knows(self, values: Mapping[str, str]) -> bool:
        return secrets.compare_digest(values.get("token", "").encode(), self.token.encode())


def _add_headers(send: Send) -> Callable[[Any], Awaitable[None]]:
    """Return a sender that sets the headers of every response."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name.decode() not in HEADERS]
            message["headers"] = headers + [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        await send(message)

    return send_with_headers
