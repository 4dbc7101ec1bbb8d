"""Start the server, and end it."""

from __future__ import annotations

import logging
import re
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from threadpoolctl import threadpool_limits

from sigmax.data.fetching import is_loopback
from sigmax.scores.folder import is_score_folder
from sigmax.server.api import OPEN_PATHS, make_api
from sigmax.server.connection import Connection
from sigmax.server.guard import Guard
from sigmax.server.metrics import Metrics
from sigmax.server.served import Served

if TYPE_CHECKING:
    from sigmax.server.rated import ServedScores

__all__ = ["is_loopback", "serve"]

#: Bytes of a request's body, of texts and of pictures.
MAX_BODY, MAX_PICTURES_BODY = 1 << 20, 32 << 20
#: Seconds in which requests that have begun may end after SIGTERM, beyond the time that each one has.
GRACE = 5


def serve(
    folders: Mapping[str, Path],
    *,
    host: str,
    port: int,
    key: str | None,
    max_queue: int,
    max_batch: int,
    seconds: float,
    allowed_hosts: Sequence[str] = (),
    root_path: str = "",
    place: Mapping[str, Any] | None = None,
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
        allowed_hosts: names beside this machine's own by which it may be called, such as that of a proxy in front.
            With none, a server that others can reach answers to any.
        root_path: the prefix under which a proxy serves it, such as /sigmax.
        place: where candidates are searched, see `sigmax.model.index.load_for_matching`.
        started: called with the URL when all models are loaded, before the first request is answered.

    Raises:
        DataError: a folder that cannot be served.
        ValueError: a `root_path` that is none.
        OSError: an address that cannot be listened at.
    """
    # The model's thread multiplies small matrices beside the thread of the connections: more threads of NumPy's BLAS
    # only wait for a core, and spin while they do. PyTorch's and onnxruntime's threads stay as they are.
    threadpool_limits(1, user_api="blas")
    if root_path and not re.fullmatch(r"(/[\w.~-]+)+/?", root_path):
        raise ValueError(f"Expected `root_path` to be a path such as /sigmax, got {root_path!r}.")
    hosts = {"localhost", "127.0.0.1", "::1", host.lower(), *(name.lower().strip("[]") for name in allowed_hosts)}
    metrics = Metrics()
    served = {
        name: Served(name, folder, max_queue=max_queue, max_batch=max_batch, metrics=metrics, place=place)
        for name, folder in folders.items()
        if not is_score_folder(folder)
    }
    scores = {
        name: _served_scores(name, folder, metrics) for name, folder in folders.items() if is_score_folder(folder)
    }
    app = Guard(
        make_api(served, metrics, scores=scores, root_path=root_path.rstrip("/")),
        metrics=metrics,
        hosts=hosts if is_loopback(host) or allowed_hosts else None,
        key=key,
        open_paths=OPEN_PATHS,
        root_path=root_path,
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
        server = uvicorn.Server(config)

        def stop(*_: object) -> None:
            server.should_exit = True

        # For signals before Uvicorn handles them, and for the one that it sends itself again at its end.
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):  # the last is what Windows sends to stop a service
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listener.getsockname()[1]}")
        server.run(sockets=[listener])


def _served_scores(name: str, folder: Path, metrics: Metrics) -> ServedScores:
    from sigmax.server.rated import ServedScores  # Arrow, for scores alone

    return ServedScores(name, folder, metrics=metrics)
