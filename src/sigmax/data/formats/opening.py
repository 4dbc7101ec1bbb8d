"""Text files as people have them: in UTF-8 or UTF-16, and compressed or not, told from their first bytes."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from sigmax.errors import DataError

__all__ = ["COMPRESSIONS", "ending_of", "lines", "opened", "opened_bytes", "stem_of"]

#: Endings of compressed files, after that of what is in them.
COMPRESSIONS = (".gz", ".zst")

_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"


def ending_of(path: Path) -> str:
    """Return the ending of a file's name in lower case, without that of its compression."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return inner.suffix.lower()


def stem_of(path: Path) -> str:
    """Return a file's name without its ending and without that of its compression."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).stem


@contextlib.contextmanager
def opened_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed if it is compressed, whatever its name says.

    Raises:
        DataError: it cannot be opened or decompressed, here or while it is read.
    """
    try:
        with contextlib.ExitStack() as stack:
            file: Any = stack.enter_context(path.open("rb"))
            head = file.peek(4)[:4]
            if head.startswith(_GZIP):
                file = stack.enter_context(gzip.GzipFile(fileobj=file))
            elif head == _ZSTD:
                import pyarrow

                file = stack.enter_context(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))
            yield stack.enter_context(io.BufferedReader(file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed file is broken: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None


@contextlib.contextmanager
def opened(path: Path, newline: str | None) -> Iterator[TextIO]:
    """Open a text file, of which only as much is in memory as is being read.

    Raises:
        DataError: see `opened_bytes`; a file that is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    with opened_bytes(path) as file:
        head = cast(io.BufferedReader, file).peek(4)[:4]
        if head == _ZIP:
            raise DataError(f"{path}: a zip archive or an Excel workbook. Unpack it, or name the workbook .xlsx.")
        wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        if not wide and b"\0" in head:
            raise DataError(
                f"{path}: not UTF-8 (a zero byte at the start). If it is UTF-16: iconv -f utf-16le -t utf-8 {path.name}"
            )
        try:
            with io.TextIOWrapper(file, "utf-16" if wide else "utf-8-sig", newline=newline) as text:
                yield text
        except UnicodeDecodeError as error:
            raise _undecodable(path, wide, error) from None


def _undecodable(path: Path, wide: bool, error: UnicodeDecodeError) -> DataError:
    if wide:
        return DataError(f"{path}: starts as UTF-16 and is not: {error.reason}.")
    with opened_bytes(path) as raw:
        for number, line in enumerate(raw, start=1):  # no character of UTF-8 but the line's end has its byte
            try:
                line.decode()
            except UnicodeDecodeError as found:
                return DataError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{line[found.start]:02x}). "
                    f"Convert it from its encoding, for example: iconv -f windows-1252 -t utf-8 {path.name}"
                )
    return DataError(f"{path}: not UTF-8: {error.reason}.")


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file, without their ends.

    Raises:
        DataError: see `opened`.
    """
    with opened(path, newline=None) as file:
        for line in file:
            yield line.removesuffix("\n")
