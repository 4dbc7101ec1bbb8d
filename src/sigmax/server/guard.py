"""What stands before the API: the host and the key of a request, its size and its time; headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import zlib
from collections.abc import Set

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sigmax.server.metrics import Metrics

__all__ = ["Guard"]

#: Said with every answer.
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
#: Seconds in which the rest of a body that is too large is read and thrown away, so that the answer arrives.
LINGER = 2.0


class _Refused(Exception):
    def __init__(self, status: int, error: str, *headers: tuple[bytes, bytes]) -> None:
        self.status, self.error, self.headers = status, error, headers


class Guard:
    """Lets through what may be answered, with its whole body, and counts it.

    Args:
        app: what answers.
        metrics: where requests are counted.
        hosts: names by which the server may be called, or None for any. They keep a page of another site from reaching
            a server of this machine under a name of its own (DNS rebinding).
        key: that requests have to bring, or None.
        root_path: what a proxy leaves in front of every path, such as /sigmax; empty for nothing. Paths without it are
            answered too, for proxies that take it away.
        open_paths: paths that need no key.
        max_body: bytes.
        seconds: from a request's head to its answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        hosts: Set[str] | None,
        key: str | None,
        open_paths: Set[str],
        root_path: str = "",
        max_body: int,
        seconds: float,
    ) -> None:
        self.app, self.metrics, self.hosts, self.open_paths = app, metrics, hosts, open_paths
        self.key = None if key is None else key.encode()
        self.max_body, self.seconds, self.root_path = max_body, seconds, root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        scope = self._inner(scope)

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            self._check(scope)
            unpack = _unpacker(scope)
            deadline = anyio.current_time() + self.seconds
            with anyio.CancelScope(deadline=deadline) as clock:
                body = await self._body(receive, unpack)
            if clock.cancelled_caught:
                raise _Refused(408, f"Expected the whole request within {self.seconds:g} seconds. Send it faster.")
            if body is not None:
                _take_for_json(scope, body)
                gone = asyncio.ensure_future(receive())
                try:
                    with anyio.CancelScope(deadline=deadline) as clock:
                        gone.add_done_callback(lambda _: None if status else clock.cancel())
                        await self.app(scope, _once(body, gone), sent)
                    late = clock.cancelled_caught and not status and not gone.done()
                finally:
                    gone.cancel()
                if late:
                    raise _Refused(
                        504, f"No answer within {self.seconds:g} seconds. Try fewer or shorter queries, or later."
                    )
        except _Refused as refused:
            await _answer(refused, receive, sent)
        finally:
            route = scope.get("route")  # of those that there are, so that no request makes a label
            path = getattr(route, "path", "other")
            self.metrics.requests.labels(path, status or 499).inc()  # 499: the client went away
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)

    def _inner(self, scope: Scope) -> Scope:
        """The request as the app sees it: without the prefix, and a HEAD as the GET whose body nobody reads."""
        path = scope["path"]
        if self.root_path and (path == self.root_path or path.startswith(f"{self.root_path}/")):
            path = path[len(self.root_path) :] or "/"
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        return {**scope, "path": path, "raw_path": None, "method": method}

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name.lower().strip("[]") not in self.hosts:
            raise _Refused(
                421, f"Expected the host to be {' or '.join(sorted(self.hosts))}, got {host!r}. Call it by that name."
            )
        if self.key is not None and scope["path"] not in self.open_paths:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode("latin-1"), self.key):
                raise _Refused(
                    401,
                    f"Expected the server's key, got {'another' if given else 'none'}. Send it as Authorization: "
                    "Bearer KEY, or as X-API-Key: KEY.",
                    (b"www-authenticate", b"Bearer"),
                )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_body:
            raise self._too_large()

    async def _body(self, receive: Receive, unpack: _Unpack | None) -> bytes | None:
        """The whole body, unpacked; None if the client went away."""
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            more = message.get("more_body", False)
            parts.append(part if unpack is None else unpack(part, self.max_body + 1 - size, more))
            size += len(parts[-1])
            if size > self.max_body:
                raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> _Refused:
        return _Refused(
            413, f"Expected a body of at most {self.max_body:,} bytes, got more. Send fewer or smaller items."
        )


class _Unpack:
    """Decompresses a body that comes in parts, never more than asked for."""

    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(window)

    def __call__(self, part: bytes, most: int, more: bool) -> bytes:
        try:
            unpacked = self._stream.decompress(self._stream.unconsumed_tail + part, most)
        except zlib.error:
            raise _Refused(400, "The body is not in the content-encoding that the request names.") from None
        if not more and len(unpacked) < most and not self._stream.eof:
            raise _Refused(400, "The compressed body ends too early.")
        return unpacked


#: Encodings of a body that are unpacked, and the window that zlib knows them by.
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def _unpacker(scope: Scope) -> _Unpack | None:
    encoding = Headers(scope=scope).get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _ENCODINGS:
        raise _Refused(415, f"Expected a body that is plain or compressed by gzip or deflate, got {encoding[:40]!r}.")
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"content-encoding"]
    return _Unpack(_ENCODINGS[encoding])


def _take_for_json(scope: Scope, body: bytes) -> None:
    """Read a body as JSON where no browser sent it and its type is missing, or the one that curl -d names."""
    if scope["method"] != "POST":
        return
    headers = Headers(scope=scope)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("", "application/x-www-form-urlencoded") and "origin" not in headers and body.lstrip()[:1] in b"{[":
        kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope["headers"] = [*kept, (b"content-type", b"application/json")]
    elif kind != "application/json" and not kind.endswith("+json"):
        got = kind[:60] or "a body of no type"
        raise _Refused(415, f"Expected JSON, got {got}. Send it with the header content-type: application/json.")


def _once(body: bytes, gone: asyncio.Future[Message]) -> Receive:
    """Receive the body, then that the client has gone."""
    parts = [body]

    async def received() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await asyncio.shield(gone)

    return received


async def _answer(refused: _Refused, receive: Receive, send: Send) -> None:
    """Say why, and end the connection; what the client still sends is thrown away, so that it gets to read this."""
    body = json.dumps({"error": refused.error}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close"), *refused.headers]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with anyio.move_on_after(LINGER):
        message = await receive()
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
    await send({"type": "http.response.body", "body": b""})
