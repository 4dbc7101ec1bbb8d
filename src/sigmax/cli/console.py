"""What a command prints: results on stdout, messages, progress and errors on stderr."""

from __future__ import annotations

import codecs
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sigmax.processes import is_first

if TYPE_CHECKING:
    from pathlib import Path

    from sigmax.data import Advance
    from sigmax.evaluation import Evaluation

__all__ = [
    "bar",
    "deliver",
    "deliver_evaluation",
    "err",
    "fail",
    "out",
    "prepare_streams",
    "print_json",
    "quiet",
    "say",
]

# Output piped to a file reads as it does on a wide screen: no table is cut there.
out = Console(width=None if sys.stdout and sys.stdout.isatty() else 200, highlight=False)
err = Console(stderr=True, highlight=False)
#: Seconds after which work shows its progress.
PATIENCE = 1.0
#: What our own signs become where they cannot be encoded; anything else that cannot becomes a question mark.
PLAIN: dict[str, str | int | None] = {
    "✓": "*",
    "•": "-",
    "–": "-",
    "−": "-",
    "…": "...",
    "×": "x",
    "↓": "v",
    "→": ">",
    "“": '"',
    "”": '"',
}


def prepare_streams() -> None:
    """Make streams that take any text, and that are there.

    Output in an encoding that lacks a sign (cp1252 where Windows redirects, cp437, ASCII) gets one that looks like it.
    Where a stream was closed (`>&-`), what is written to it is lost, and no file that is opened later takes its place.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                while os.open(os.devnull, os.O_RDWR) < number:
                    pass
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="sigmax")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(str.maketrans(PLAIN))
    return text.encode(error.encoding, "replace").decode(error.encoding), error.end


codecs.register_error("sigmax", _plain)


def say(message: str) -> None:
    """Print a message."""
    err.print(message, markup=False, soft_wrap=True)


def fail(message: str, code: int) -> None:
    """Print an error and end the process."""
    err.print("[bold red]Error:[/] ", end="")
    err.print(message, markup=False, soft_wrap=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    complete = codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not complete) + "\n")


def deliver(*steps: Callable[[], object]) -> None:
    """Take every step, so that none is lost by the failure of another; then raise the first failure."""
    failures: list[BaseException] = []
    for step in steps:
        try:
            step()
        except (Exception, SystemExit) as error:  # Rich ends the process where a pipe is closed
            failures.append(error)
    if failures:
        raise failures[0]


def deliver_evaluation(evaluation: Evaluation, name: str, figure: Path | None, as_json: bool) -> None:
    """Show an evaluation, and draw its reliability under a name where a figure is asked for."""

    def show() -> None:
        from sigmax.report.tables import evaluation_table

        if as_json:
            print_json(evaluation.as_dict())
        else:
            out.print(evaluation_table(evaluation))

    def draw() -> None:
        if figure is not None:
            from sigmax.report.figure import reliability_figure
            from sigmax.report.style import save_figure

            save_figure(reliability_figure({name: evaluation}), figure)
            say(f"Written: {figure}")

    deliver(show, draw)


@contextlib.contextmanager
def bar(what: str = "starting") -> Iterator[Advance]:
    """Show a progress bar once the work takes longer than `PATIENCE`; yields what moves it. Until moved, it pulses."""
    if not (is_first() and err.is_terminal):
        yield lambda fraction, what: None
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=err,
        transient=True,
    )
    task = progress.add_task(what, total=None)
    start = threading.Timer(PATIENCE, progress.start)
    start.daemon = True
    start.start()
    try:
        yield lambda fraction, what: progress.update(task, total=1.0, completed=fraction, description=what)
    finally:
        start.cancel()
        start.join()
        progress.stop()


def quiet() -> None:
    """Let our own messages through and keep other libraries' to warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # one bar is enough: ours
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by transformers too
    from rich.logging import RichHandler

    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False)
    logger = logging.getLogger("sigmax")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if is_first() else logging.WARNING)
