"""What users see when something is wrong: one exception for data and files, one way to suggest a name."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

__all__ = ["DataError", "UnknownNameError", "check_least", "extra", "first_line", "lookup", "nearest"]

T = TypeVar("T")


class DataError(ValueError):
    """A file, a data set or a model folder is not what it should be. The message says what to try."""


class UnknownNameError(ValueError):
    """A name that is not among those known. The message lists them."""


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Say which extra to install when an import inside the block fails.

    Raises:
        ImportError: naming the command that installs what is missing.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{error.name or error} is not installed. Try: pip install 'sigmax[{name}]'") from error


def nearest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ' Did you mean …?' for the known name closest to `name`, or nothing if none is as like as `cutoff`."""
    folded = {str(known).lower(): str(known) for known in names}
    close = difflib.get_close_matches(str(name).lower(), folded, n=1, cutoff=cutoff)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def lookup(registry: Mapping[str, T], name: str, what: str) -> T:
    """Return registry[name].

    Raises:
        UnknownNameError: the message lists the known ones and the nearest.
    """
    if isinstance(name, str) and name in registry:
        return registry[name]
    raise UnknownNameError(
        f"Expected `{what}` to be one of {', '.join(sorted(registry))}, got {name!r}.{nearest(name, registry)}"
    )


def check_least(least: float, **given: float | None) -> None:
    """Check that arguments are not below a number; None passes.

    Raises:
        ValueError: one is; the message names it.
    """
    for name, value in given.items():
        if value is not None and value < least:
            raise ValueError(f"Expected `{name}` of at least {least}, got {value}.")


def first_line(error: Exception) -> str:
    """Return what another library's error says first, or its type's name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
