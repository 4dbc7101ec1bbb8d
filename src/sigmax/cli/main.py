"""Run the command line: all commands, and what their failures mean as exit codes."""

from __future__ import annotations

import gc
import os
import sys

import typer

from sigmax.cli import candidates, data, export, match, measure, serve, train, watch
from sigmax.cli.app import app
from sigmax.cli.console import fail, prepare_streams
from sigmax.errors import DataError, UnknownNameError

__all__ = ["COMMANDS", "app", "main"]

#: The files whose commands there are; importing them registers the commands.
COMMANDS = (train, measure, watch, match, serve, export, candidates, data)


def main() -> None:
    """Run the command line; exit 0 fine, 1 the work failed, 2 wrong usage."""
    gc.set_threshold(100_000, 20, 100)  # importing PyTorch makes a million objects that stay: an eighth of its time
    prepare_streams()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UnknownNameError as error:
        fail(str(error), 2)
    except (DataError, ValueError, ImportError) as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), 1)
    except typer.Abort:
        fail("Stopped.", 1)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is not None:  # wrong usage, as the parser of the command line reports it
            show()
            sys.exit(2)
        raise
    if code == 130:  # how the parser of the command line reports Ctrl-C
        fail("Stopped.", 130)
    sys.exit(code if isinstance(code, int) else 0)
