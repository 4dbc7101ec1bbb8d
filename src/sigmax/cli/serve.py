"""Serve models."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sigmax.cli.app import command
from sigmax.cli.console import quiet, say
from sigmax.cli.options import Database, Exact, TableName, place_of_candidates
from sigmax.errors import extra
from sigmax.training.option import Option

__all__ = ["serve", "without_caches"]


@command("Use")
def serve(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR", help="Model folders, as `sigmax train` writes them, or .onnx files of `sigmax export`."
        ),
    ],
    host: Annotated[str, Option("Address to listen at; 0.0.0.0 for all.", group="address", shown="HOST")] = "127.0.0.1",
    port: Annotated[
        int, Option("Port to listen at; 0 for any that is free.", group="address", shown="N", least=0, most=65535)
    ] = 8000,
    allowed_host: Annotated[
        list[str],
        Option(
            "Name by which the server may be called beside this machine's own, such as a proxy's; may be repeated.",
            group="address",
            shown="NAME",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    root_path: Annotated[
        str, Option("Prefix under which a proxy in front serves it, such as /sigmax.", group="address", shown="PATH")
    ] = "",
    timeout: Annotated[float, Option("Seconds that a request may take.", group="load", shown="X", least=0.01)] = 10.0,
    max_queue: Annotated[
        int, Option("Queries that may wait per model; more are refused.", group="load", shown="N", least=64)
    ] = 1024,
    max_batch: Annotated[
        int, Option("Queries that a model answers together, at most.", group="load", shown="N", least=1)
    ] = 64,
    exact: Exact = False,
    database: Database = "",
    table: TableName = "candidates",
) -> None:
    """Serve models: an HTTP API, and a page at / to try them.

    A model's name is that of its folder or file. When that changes, its new model, candidates or index take over and no
    request is lost.
    Whoever can reach the server can use it: for any HOST that other machines can reach, a key in the environment
    variable SIGMAX_API_KEY is required, and requests must bring it (Authorization: Bearer KEY). SIGTERM and Ctrl-C
    let requests in flight finish, then stop the server.

    Example: sigmax serve runs/emoji, then

    curl http://127.0.0.1:8000/match -d '{"query": "party", "top_k": 3}'

    A folder of calibrated scores (`sigmax calibrate SCORES -o DIR`) answers POST /rate: lists of candidates with their
    scores come, presences and what is accepted go.

    Also POST /explain, GET /models, /health, /metrics (Prometheus) and /openapi.json.
    """
    names = [_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise typer.BadParameter(
            f"a model's name is that of its folder; expected different ones, got {', '.join(names)}", param_hint="DIR"
        )
    place = {"exact": exact, **place_of_candidates(database, table)}
    quiet()
    with extra("serve"):
        from sigmax.server.run import is_loopback
        from sigmax.server.run import serve as run

    key = os.environ.get("SIGMAX_API_KEY") or None
    if key is None and not is_loopback(host):
        raise typer.BadParameter(
            f"others can reach {host}, so a key is needed; set one: SIGMAX_API_KEY=… sigmax serve …",
            param_hint="--host",
        )

    def started(url: str) -> None:
        gc.collect()
        gc.freeze()  # what is there stays; looking through it time and again would stop all answers for a while
        say(f"Serving {', '.join(names)} at {url}")

    with without_caches():
        run(
            dict(zip(names, folders, strict=True)),
            host=host,
            port=port,
            key=key,
            seconds=timeout,
            allowed_hosts=allowed_host,
            root_path=root_path,
            place=place,
            max_queue=max_queue,
            max_batch=max_batch,
            started=started,
        )
    gc.unfreeze()


def _name(place: Path) -> str:
    """What a model is called: its folder's name, or its file's without the ending."""
    return place.resolve().stem if place.suffix == ".onnx" else place.resolve().name


@contextlib.contextmanager
def without_caches() -> Iterator[None]:
    """Keep nothing of a query for the next time: requests seldom repeat, and a cache would only grow."""
    from sigmax.data import pictures
    from sigmax.encoders import hashing, shared_words

    before = hashing.CACHED_BYTES, shared_words.CACHED_BYTES, pictures.KEPT_BYTES
    hashing.CACHED_BYTES = shared_words.CACHED_BYTES = pictures.KEPT_BYTES = 0
    try:
        yield
    finally:
        hashing.CACHED_BYTES, shared_words.CACHED_BYTES, pictures.KEPT_BYTES = before
