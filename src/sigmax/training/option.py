"""An option: what people read about it, its bounds and its choices, for checks and for the command line's help."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sigmax.errors import lookup

__all__ = ["Option", "either", "names"]


@dataclass(frozen=True)
class Option:
    """What a value means and what it may be.

    Args:
        says: one sentence that stands alone; {choices} stands for the names there are.
        group: the heading under which help lists it.
        shown: the placeholder of its value in help, such as N or FILE.
        flags: its names on the command line, where they are not made from the field's.
        least: smallest value; it has to be finite, too.
        most: largest value.
        above: a bound that the value has to exceed; it has to be finite, too.
        choices: where its names are registered, as module:REGISTRY; imported when they are needed.
        open: whether it may be something else than one of its names.
    """

    says: str
    group: str = "training"
    shown: str = ""
    flags: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: str = ""
    open: bool = False

    def check(self, name: str, value: Any) -> None:
        """Check a value; None passes.

        Raises:
            UnknownNameError: a name that is not registered.
            ValueError: a number out of bounds.
        """
        if value is None:
            return
        if self.choices and not self.open:
            lookup(dict.fromkeys(names(self.choices)), value, name)
        bound = self.broken_bound(value)
        if bound:
            raise ValueError(f"Expected `{name}` {bound}, got {value}.")

    def broken_bound(self, value: Any) -> str:
        """Return the bound that a number breaks, in words, or nothing."""
        if self.least is not None and not (math.isfinite(value) and value >= self.least):
            return f"of at least {self.least:g}"
        if self.most is not None and value > self.most:
            return f"of at most {self.most:g}"
        if self.above is not None and not (math.isfinite(value) and value > self.above):
            return f"above {self.above:g}"
        return ""


def names(registry: str) -> list[str]:
    """Return the names in a registry, given as module:REGISTRY, or those that a function there returns."""
    found: Iterable[str] | Any = pkgutil.resolve_name(registry)
    return list(found() if callable(found) else found)


def either(listed: Iterable[str]) -> str:
    """Join names as a sentence does: a, b or c."""
    *rest, last = listed
    return f"{', '.join(rest)} or {last}" if rest else last
