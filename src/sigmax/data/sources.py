"""Where a data set comes from: a built-in set, a path, or the Hugging Face hub. What the command line calls DATA."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmax.errors import DataError, nearest

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance

__all__ = ["BUILTIN", "Builtin", "load_data"]

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "builtin"
#: The emoji group hidden in `emoji-hidden`.
HIDDEN_GROUP = "food & drink"


@dataclass(frozen=True)
class Builtin:
    """A data set that comes with Sigmax."""

    name: str
    describes: str
    load: Callable[[], MatchDataset]


def _emoji() -> MatchDataset:
    from sigmax.data.formats.registry import read

    return read(_FOLDER / "emoji")


def _emoji_hidden() -> MatchDataset:
    import numpy as np

    lines = (_FOLDER / "emoji" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    hidden = np.array([json.loads(line)["group"] == HIDDEN_GROUP for line in lines])
    return _emoji().without_candidates(hidden, "emoji-hidden")


def _digits() -> MatchDataset:
    from sigmax.data.canvases import digits

    return digits()


#: The built-in data sets. What loads them is imported when one is loaded, so that help can name them at once.
BUILTIN: dict[str, Builtin] = {
    entry.name: entry
    for entry in (
        Builtin("emoji", "3,936 search keywords → 1,923 emoji, several right answers each", _emoji),
        Builtin(
            "emoji-hidden",
            f"the same with the group “{HIDDEN_GROUP}” taken away, so that real queries have no right answer",
            _emoji_hidden,
        ),
        Builtin("digits", "9,000 pictures of 0 to 4 handwritten digits → the set of digits in each", _digits),
    )
}


def load_data(
    source: str | Path | Any,
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    delimiter: str | None = None,
    separator: str = "|",
    conflicts: str = "right",
    advance: Advance | None = None,
) -> MatchDataset:
    """Load a built-in data set by name, or read one from files, from the hub or the web, and decode its pictures once.

    Args:
        source: a name in `BUILTIN`; or hf:user/name or hf:user/name:configuration, of a data set on the Hugging Face
            hub with the columns of our tables; or an https address of a file; or "-" for standard input; or a path
            (one that exists wins only when it is none of these); or a Dataset of Hugging Face's, a frame
            of pandas, polars or pyarrow, or a dict of those by split.
        columns: our column name -> the file's, see `sigmax.data.formats.read`.
        seed: of the split, where the data brings none.
        delimiter: see `sigmax.data.formats.read`.
        separator: see `sigmax.data.formats.read`.
        conflicts: see `sigmax.data.formats.read`.
        advance: called now and then with the share done, from 0 to 1, and a description of the work; see
            `check_pictures`.

    Raises:
        DataError: neither a built-in name nor a path, or anything wrong in the files.
        TypeError: another kind of object.
    """
    if isinstance(source, str | Path) and str(source) in BUILTIN:
        if columns:
            raise DataError(f"The built-in set {source} has no columns to rename, got {dict(columns)}.")
        return BUILTIN[str(source)].load()
    from sigmax.data.fetching import STDIN, downloaded, from_stdin, is_address
    from sigmax.data.formats.hugging_face import PREFIX, hub_tables, is_dataset, tables_in_memory
    from sigmax.data.formats.registry import read
    from sigmax.data.pictures import Picture, check_pictures

    with contextlib.ExitStack() as stack:
        if not isinstance(source, str | Path):
            if not is_dataset(source):
                raise TypeError(
                    "Expected `source` to be a name, a path, an address, or a Dataset of Hugging Face's datasets, a "
                    f"frame of pandas, polars or pyarrow, or a dict of those by split, got {type(source).__name__}."
                )
            path = stack.enter_context(tables_in_memory(source))
        elif str(source).startswith(PREFIX):
            path = stack.enter_context(hub_tables(str(source)))
        elif str(source) == STDIN:
            path = stack.enter_context(from_stdin())
        elif isinstance(source, str) and is_address(source):
            path = stack.enter_context(downloaded(source))
        else:
            path = Path(source)
            if not path.exists():
                raise DataError(
                    f"{source}: no such file or folder, and no built-in data set of that name "
                    f"(built in: {', '.join(BUILTIN)}).{nearest(str(source), BUILTIN)}"
                )
        data = read(path, columns=columns, seed=seed, delimiter=delimiter, separator=separator, conflicts=conflicts)
        check_pictures([query for query in data.queries if isinstance(query, Picture)], advance)
    for note in data.notes:
        log.warning("%s: %s", data.name, note)
    return data
