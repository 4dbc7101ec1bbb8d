"""Folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["recover_folder", "replace_file", "replace_folder", "write_bytes", "write_text"]


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well it takes `target`'s place.

    Until then `target` stays as it was. On a failure (a full disk, say) nothing is left behind; on a kill at most a
    hidden folder beside it. Two renames make the exchange; a kill between them is mended by `recover_folder`.
    """
    target = Path(target).resolve()  # a link stays a link
    target.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(target)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    try:
        yield fresh
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors gives its files to their owner only
        _sync(fresh)
        fresh.chmod(0o755)
        previous = _previous(target)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)
            target.rename(previous)
        fresh.rename(target)
        shutil.rmtree(previous, ignore_errors=True)
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


def write_text(path: Path, text: str) -> None:
    """Write a file aside, then let it take its place."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file aside, then let it take its place."""
    with replace_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file aside to write into; when the block ends well it takes `path`'s place, else nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _sync(folder: Path) -> None:
    """Have the files on the disk before the renames are."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
