"""Atomic writes of files and folders: whole or not at all, through links, into pipes, with the modes that they have."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = [
    "check_file",
    "check_folder",
    "recover_folder",
    "replace_file",
    "replace_folder",
    "write_bytes",
    "write_text",
]


# -- folders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well it takes `target`'s place.

    Until then `target` stays as it was. On a failure (a full disk, say) nothing is left behind; on a kill at most a
    hidden folder beside it. Two renames make the exchange; an interruption between them is repaired by
    `recover_folder`. A link stays a link. What was there keeps its modes; what is new has those that the umask leaves.
    """
    target = Path(target).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    fresh = target.with_name(f".{target.name[:40]}.new-{secrets.token_hex(4)}")
    fresh.mkdir()
    usual = stat.S_IMODE(fresh.stat().st_mode) & 0o666  # what the umask leaves to a file
    try:
        fresh.chmod(stat.S_IMODE(fresh.stat().st_mode) | stat.S_IRWXU)
        yield fresh
        for path in fresh.rglob("*"):
            if path.is_file():  # safetensors gives its files to their owner only
                path.chmod(_mode(target / path.relative_to(fresh), usual))
        _sync(fresh)
        if target.exists():
            fresh.chmod(_mode(target, 0o777))
            previous = _previous(target)
            shutil.rmtree(previous, ignore_errors=True)
            target.rename(previous)
        fresh.rename(target)
        shutil.rmtree(_previous(target), ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        recover_folder(target)
        raise


def recover_folder(target: Path) -> None:
    """Put the previous folder back if a kill came after it was moved aside and before the new one took its place."""
    target = Path(target).resolve()
    previous = _previous(target)
    if previous.exists() and not target.exists():
        previous.rename(target)


def check_folder(path: Path) -> None:
    """Check before long work that a folder can be written after it: `replace_folder` makes a new one beside it.

    Raises:
        OSError: it cannot, and why.
    """
    _probe(Path(path).resolve().parent)


# -- files ---------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a file as `replace_file` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as `replace_file` does."""
    with replace_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write into; when the block ends well its content is that of `path`, else nothing has changed.

    A link stays a link, and what it leads to is written. A file that was there keeps its mode; a new one has what the
    umask leaves. A pipe or a device gets the content when it is whole.

    Raises:
        OSError: it cannot be written.
    """
    target = _end_of_links(path)
    _check_writable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with target.open("wb") as place:
                shutil.copyfileobj(file, place)
        return
    fresh = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            fresh.chmod(_mode(target, 0o666))
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def check_file(path: Path) -> None:
    """Check before long work that a file can be written after it.

    Raises:
        OSError: it cannot, and why.
    """
    target = _end_of_links(path)
    _check_writable(target)
    if not target.exists():
        _probe(target.parent)


def _end_of_links(path: Path) -> Path:
    """Where a file is, or will be. What /dev/stdout leads to has no path of its own when it is a pipe."""
    return Path(path) if Path(path).exists() and not Path(path).is_file() else Path(os.path.realpath(path))


def _check_writable(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def _probe(folder: Path) -> None:
    """Make a file where a folder is or will be, and remove it: permissions, full disks and read-only ones tell."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    probe = folder / f".sigmax.{secrets.token_hex(4)}"
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(folder)) from error
    probe.unlink()


def _mode(path: Path, otherwise: int) -> int:
    """The mode of what is there."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else otherwise


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _sync(folder: Path) -> None:
    """Flush files to disk before renaming."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
