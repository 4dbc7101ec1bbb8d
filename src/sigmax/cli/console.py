"""What a command prints: results on stdout, messages, progress and errors on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sigmax.processes import is_first

if TYPE_CHECKING:
    from sigmax.data import Advance

__all__ = ["bar", "err", "fail", "out", "print_json", "quiet", "say"]

# A table is never narrower than this, so that output piped to a file reads as it does on a wide screen.
out = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
err = Console(stderr=True, highlight=False)


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
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def bar(*, enabled: bool = True) -> Iterator[Advance]:
    """Show a progress bar; yields what moves it."""
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
        disable=not (enabled and is_first() and err.is_terminal),
        transient=True,
    )
    with progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda fraction, what: progress.update(task, completed=fraction, description=what)


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
