"""Data sets that are no file yet: from standard input, and from addresses on the web."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from sigmax.data.formats.opening import COMPRESSIONS, opened_bytes
from sigmax.data.formats.rows import TABLES
from sigmax.errors import DataError, first_line

__all__ = ["MAX_BYTES", "STDIN", "downloaded", "from_stdin", "is_address", "is_loopback"]

#: What standard input is called.
STDIN = "-"
#: Bytes of a download, or of standard input, at most.
MAX_BYTES = 2**30
#: Seconds in which a server has to answer, and each part has to come.
SECONDS = 30.0


def is_address(source: str) -> bool:
    """Return whether a source is an address on the web."""
    return source.lower().startswith(("https://", "http://"))


@contextlib.contextmanager
def from_stdin() -> Iterator[Path]:
    """Give what comes on standard input as a file, whose ending is told from its content, as long as the block lasts.

    Raises:
        DataError: nothing comes, or more than `MAX_BYTES`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "stdin")
        _keep(sys.stdin.buffer, file, "standard input")
        yield _with_ending(file, "standard input")


@contextlib.contextmanager
def downloaded(address: str) -> Iterator[Path]:
    """Give the file at an address, as long as the block lasts.

    Only https, and http to this machine itself. Its ending is that of the address, or else told from its content.

    Raises:
        DataError: another kind of address, one that does not answer with a file, or one of more than `MAX_BYTES`.
    """
    _check_address(address)
    name = unquote(PurePosixPath(urlsplit(address).path).name)
    name = "".join(letter for letter in name if letter.isalnum() or letter in "._- ").strip(". ") or "download"
    opener = urllib.request.build_opener(_SafeRedirects)
    opener.addheaders = [("User-Agent", "sigmax"), ("Accept-Encoding", "identity")]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, name)
        try:
            with opener.open(address, timeout=SECONDS) as answer:
                if int(answer.headers.get("content-length") or 0) > MAX_BYTES:
                    raise _too_large(address)
                _keep(answer, file, address)
        except urllib.error.HTTPError as error:
            raise DataError(f"{address}: the server answers {error.code} {error.reason}.") from None
        except urllib.error.URLError as error:
            raise DataError(f"{address}: cannot be downloaded: {error.reason}.") from None
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{address}: cannot be downloaded: {first_line(error)}.") from None
        yield _with_ending(file, address)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirections to allowed addresses alone: none from https to http, none to a file."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_address(newurl)
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise DataError(f"{req.full_url}: redirects to {newurl}, which is not https.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError as error:
        raise DataError(f"{address}: not an address: {error}.") from None
    if not host or parts.scheme not in ("https", "http"):
        raise DataError(f"{address}: expected an address such as https://example.com/faq.csv.")
    if parts.scheme == "http" and not is_loopback(host):
        raise DataError(f"{address}: expected https; over http anyone on the way could change the data.")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _too_large(source: str) -> DataError:
    return DataError(f"{source}: more than {MAX_BYTES:,} bytes. Save it as a file, and read that.")


def _keep(stream: BinaryIO, file: Path, source: str) -> None:
    """Write a stream to a file, unless it is too long."""
    size = 0
    with file.open("wb") as kept:
        while part := stream.read(2**20):
            size += len(part)
            if size > MAX_BYTES:
                raise _too_large(source)
            kept.write(part)
    if not size:
        raise DataError(f"{source}: nothing came. Expected a table in {', '.join(TABLES)}.")


def _with_ending(file: Path, source: str) -> Path:
    """A file under a name that ends in what it is."""
    inner = file.with_suffix("") if file.suffix.lower() in COMPRESSIONS else file
    if inner.suffix.lower() in (*TABLES, ".npz"):
        return file
    with opened_bytes(file) as content:
        head = cast(BufferedReader, content).peek(4096)[:4096]
    if head.startswith(b"PAR1"):
        ending = ".parquet"
    elif head.startswith(b"PK\x03\x04"):
        ending = ".npz" if b".npy" in head[:200] else ".xlsx"
    else:
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if text.lower().startswith((b"<!doctype", b"<html")):
            raise DataError(f"{source}: a web page and not a table. Look for the address of the file itself.")
        ending = ".json" if text.startswith((b"[", b"{")) else ".csv"
    named = inner.with_suffix(ending)
    shutil.move(file, named)
    return named
