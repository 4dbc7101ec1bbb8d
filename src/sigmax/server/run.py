"""Start the server, and end it."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from sigmax.server.api import OPEN_PATHS, make_api
from sigmax.server.connection import Connection
from sigmax.server.guard import Guard
from sigmax.server.metrics import Metrics
from sigmax.server.served import Served

__all__ = ["is_loopback", "serve"]

#: Bytes of a request's body, of texts and of pictures.
MAX_BODY, MAX_PICTURES_BODY = 1 << 20, 32 << 20
#: Seconds in which requests that have begun may end after SIGTERM, beyond the time that each one has.
GRACE = 5


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    folders: Mapping[str, Path],
    *,
    host: str,
    port: int,
    key: str | None,
    max_queue: int,
    max_batch: int,
    seconds: float,
    started: Callable[[str], None],
) -> None:
    """Serve models until SIGTERM or SIGINT; requests that have begun are answered first.

    Args:
        folders: of the models, by their names.
        host: address to listen at.
        port: 0 for any that is free.
        key: that requests have to bring, or None.
        max_queue: queries of a model that may wait.
        max_batch: queries that a model answers together.
        seconds: that a request may take.
        started: called with the URL when all models are loaded, before the first request is answered.

    Raises:
        DataError: a folder that cannot be served.
        OSError: an address that cannot be listened at.
    """
    metrics = Metrics()
    served = {
        name: Served(name, folder, max_queue=max_queue, max_batch=max_batch, metrics=metrics)
        for name, folder in folders.items()
    }
    app = Guard(
        make_api(served, metrics),
        metrics=metrics,
        hosts={"localhost", "127.0.0.1", "::1", host} if is_loopback(host) else None,
        key=key,
        open_paths=OPEN_PATHS,
        max_body=MAX_PICTURES_BODY if any(one.loaded.model.pictures for one in served.values()) else MAX_BODY,
        seconds=seconds,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(seconds) + GRACE,
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        # Uvicorn sends itself the signal again at its end, when its own handlers are gone.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
