"""Connections that are not kept for nothing: the head of a request has to come soon, and to be short."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

HEAD_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """Uvicorn's, which by itself waits for a head for ever, of whatever length.

    A head has as many seconds as `Guard`, which is the application, then gives the rest of the request.
    """

    _clock: asyncio.TimerHandle | None = None
    _head = 0  # bytes of the head that is awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Give a head its time and its size."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._head += len(data)
            if self._head > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"Expected the head of a request in {HEAD_BYTES:,} bytes.")
            elif self._clock is None:
                self._start()

    def on_headers_complete(self) -> None:
        """Stop the clock: from here on it is the request's own time."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._clock = self.loop.call_later(self.config.app.seconds, self.transport.close)  # type: ignore[union-attr]

    def _stop(self) -> None:
        self._head = 0
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
