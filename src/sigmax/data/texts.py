"""Texts gathered one after the other, on disk once they are too many for memory."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sigmax.errors import DataError

__all__ = ["IndexPairs", "Numbered", "TextStore", "TextsOnDisk", "digest"]

#: Bytes (UTF-8) of texts that one sequence keeps in memory; beyond them it goes to a temporary file.
IN_MEMORY = 2**28


def digest(text: str, size: int = 16) -> bytes:
    """Return what stands for a text where only equality matters: BLAKE2b of `size` bytes."""
    return hashlib.blake2b(_encoded(text), digest_size=size).digest()


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


class TextsOnDisk(Sequence[str]):
    """Texts of a file that only this object knows; the file is gone when the object is.

    Pages that are read are the system's to keep or to drop: they do not count as memory of the process's own.

    Args:
        file: the texts in UTF-8, one after the other; it is closed.
        ends: (n,) int64 where each ends.
    """

    def __init__(self, file: BinaryIO, ends: NDArray[np.int64]) -> None:
        with file:
            file.flush()
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # keeps the file that is closed here
        self._ends = ends

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self._ends)

    def __getitem__(self, place: Any) -> Any:
        """Return the text at a place, or a list of those of a slice."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        i = range(len(self))[place]
        start = int(self._ends[i - 1]) if i else 0
        return self._bytes[start : int(self._ends[i])].decode(errors="surrogatepass")

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a list of it where it is copied or sent to another process."""
        return list, (list(self),)


class Numbered(Sequence[str]):
    """Names that are a prefix and a number from 0 on, made when they are asked for."""

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self._count = count

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def __getitem__(self, place: Any) -> Any:
        """Return the name at a place, or a list of those of a slice."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._count))]
        return f"{self._prefix}{range(self._count)[place]}"


class IndexPairs:
    """IndexPairs of whole numbers, gathered at 16 bytes each."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def append(self, first: int, second: int) -> None:
        """Add a pair."""
        self._numbers.append(first)
        self._numbers.append(second)

    def array(self) -> NDArray[np.int64]:
        """(k, 2) all pairs, in the order they came."""
        return np.array(self._numbers, dtype=np.int64).reshape(-1, 2)


class TextStore:
    """Texts as they come; see `IN_MEMORY`."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._kept: list[str] = []
        self._size = 0
        self._file: BinaryIO | None = None
        self._ends = array("q")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends)

    def append(self, text: str) -> int:
        """Add a text; return its place.

        Raises:
            DataError: the disk is full.
        """
        encoded = _encoded(text)
        self._size += len(encoded)
        self._ends.append(self._size)
        if self._file is not None:
            with _advice():
                self._file.write(encoded)
        else:
            self._kept.append(text)
            if self._size > IN_MEMORY:
                with _advice():
                    self._file = tempfile.TemporaryFile(prefix="sigmax-")  # noqa: SIM115 - closed in texts or __del__
                    self._file.writelines(map(_encoded, self._kept))
                self._kept = []
        return len(self._ends) - 1

    def place(self, text: str, key: str | None = None) -> int:
        """Return the place of a text, which is added if its key is met for the first time.

        Args:
            text: the text.
            key: what tells it from others; the text itself if None.
        """
        known = digest(text if key is None else key)
        if known not in self._places:
            self._places[known] = self.append(text)
        return self._places[known]

    def texts(self) -> Sequence[str]:
        """Return all of them: a list, or what is on disk. Nothing can be added afterwards.

        Raises:
            DataError: the disk is full.
        """
        self._places = {}
        if self._file is None:
            return self._kept
        with _advice():
            return TextsOnDisk(self._file, np.array(self._ends, dtype=np.int64))

    def __del__(self) -> None:
        """Close the file of texts that nobody took."""
        if self._file is not None:
            self._file.close()


@contextlib.contextmanager
def _advice() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{tempfile.gettempdir()}: texts that are too many for memory could not be written there "
            f"({error.strerror or error}). Set TMPDIR to a folder on a disk with room for them."
        ) from error
