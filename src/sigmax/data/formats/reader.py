"""What a format is: how a path is recognised, and how it becomes a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sigmax.data.dataset import MatchDataset

__all__ = ["Reader", "Reading"]


@dataclass(frozen=True)
class Reading:
    """What the user says about the files.

    Raises:
        ValueError: a delimiter that is not one character.
    """

    columns: Mapping[str, str] = field(default_factory=dict)  #: our column name -> the name in the file
    seed: int = 0  #: of a split that the data does not bring
    delimiter: str | None = None  #: between the fields of a CSV file; None: told from the ending and the first line
    separator: str = "|"  #: between the texts in a cell of a list column (CSV, Excel); empty: such a cell is one text
    conflicts: str = "right"  #: what becomes of a pair that is right and wrong at once, see `CONFLICTS`

    def __post_init__(self) -> None:
        """Check."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"\0'):
            raise ValueError(
                f"Expected `delimiter` to be one character, and no quote or line end, got {self.delimiter!r}."
            )


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One format. It either reads a data set or unpacks into tables, which another format reads.

    Raises:
        ValueError: neither `read` nor `unpack`, or both.
    """

    name: str
    describes: str  #: one line for --help, the documentation and error messages
    claims: Callable[[Path, Sequence[str]], bool]  #: called with a path and its columns (none without tables)
    read: Callable[[Path, Reading], MatchDataset] | None = None
    unpack: Callable[[Path], contextlib.AbstractContextManager[Path]] | None = None
    columns: tuple[str, ...] = ()  #: columns that are looked for in tables
    endings: tuple[str, ...] = ()  #: of files that this format reads and that are not tables
    before: str | None = None  #: the format that is tried after this one; None: all others are tried first

    def __post_init__(self) -> None:
        """Check."""
        if (self.read is None) == (self.unpack is None):
            raise ValueError(f"Expected either `read` or `unpack` of the format {self.name!r}.")
