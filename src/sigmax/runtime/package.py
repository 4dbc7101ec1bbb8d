"""The two files of an exported model: the network with all its settings, and arrays beside it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Ints
from sigmax.errors import DataError
from sigmax.files import replace_file

__all__ = ["FORMAT", "KEY", "Package", "beside", "fingerprint", "joined", "read_arrays", "settings_of", "split"]

#: Raised whenever an exported model can no longer be read by older versions.
FORMAT = 1
#: Under which the settings lie in the network's metadata, as JSON.
KEY = "sigmax"


@dataclass(frozen=True, eq=False)
class Package:
    """What the second file holds, and what tells that it belongs to the first."""

    arrays: Mapping[str, NDArray[Any]]
    fingerprint: str

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Package:
        """Take arrays, and make their fingerprint."""
        return cls(arrays, fingerprint(arrays))

    def write(self, path: Path) -> None:
        """Write them, uncompressed, so that they are read at once; a file that was there stays whole until then."""
        with replace_file(path) as file:
            np.savez(file, fingerprint=np.array(self.fingerprint), **self.arrays)  # type: ignore[arg-type]


def beside(path: Path) -> Path:
    """Return where the arrays of an exported model lie: emoji.onnx has emoji.npz."""
    return path.with_suffix(".npz")


def fingerprint(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return what is the same only for equal arrays, in hexadecimal."""
    made = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        made.update(f"{name} {array.dtype.str} {array.shape}".encode())
        made.update(np.ascontiguousarray(array).data if array.size else b"")
    return made.hexdigest()


def settings_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings in a network's metadata.

    Raises:
        DataError: a network that is none of ours, or of a newer format.
    """
    if KEY not in metadata:
        raise DataError(f"{path}: an ONNX file that `sigmax export` did not write.")
    settings: dict[str, Any] = json.loads(metadata[KEY])
    if settings["format"] > FORMAT:
        raise DataError(
            f"{path}: exported in format {settings['format']}, this version of Sigmax reads up to {FORMAT}. Upgrade."
        )
    return settings


def read_arrays(path: Path, expected: str) -> dict[str, NDArray[Any]]:
    """Read the arrays beside a network.

    Args:
        path: of the network.
        expected: the fingerprint that it names.

    Raises:
        DataError: they are missing, damaged, or those of another network.
    """
    place = beside(path)
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = str(stored["fingerprint"])
            arrays = {name: stored[name] for name in stored.files if name != "fingerprint"}
    except FileNotFoundError:
        raise DataError(f"{place}: not there. An exported model is two files: keep it beside {path.name}.") from None
    except (EOFError, OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise DataError(f"{place}: damaged ({type(error).__name__}: {error}). Export the model again.") from error
    if found != expected:
        raise DataError(f"{place}: does not belong to {path.name}, which was exported with another. Export again.")
    return arrays


def joined(texts: Iterable[str]) -> tuple[NDArray[np.uint8], Ints]:
    """Texts -> their bytes one after the other (UTF-8), and (n,) where each ends."""
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(one) for one in encoded], dtype=np.int64)


def split(data: NDArray[np.uint8], ends: Ints) -> Sequence[str]:
    """Inverse of `joined`."""
    whole, places = data.tobytes(), [0, *ends.tolist()]
    return [whole[start:end].decode(errors="surrogatepass") for start, end in pairwise(places)]
