"""Where a data set comes from: a built-in set, a path, or the Hugging Face hub. What the command line calls DATA."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sigmax.errors import DataError, nearest

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance

__all__ = ["BUILTIN", "Builtin", "load_data"]

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
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> MatchDataset:
    """Load a built-in data set by name, or read a file, a folder or the hub's and decode every picture in it once.

    Args:
        source: a name in `BUILTIN`; or hf:user/name or hf:user/name:configuration, of a data set on the Hugging Face
            hub with the columns of our tables; or a path (one that exists wins only when it is none of these).
        columns: our column name -> the file's, see `sigmax.data.formats.read`.
        seed: of the split, where the data brings none.
        advance: called now and then with the share done, from 0 to 1, and a description of the work; see
            `check_pictures`.

    Raises:
        DataError: neither a built-in name nor a path, or anything wrong in the files.
    """
    if str(source) in BUILTIN:
        if columns:
            raise DataError(f"The built-in set {source} has no columns to rename, got {dict(columns)}.")
        return BUILTIN[str(source)].load()
    from sigmax.data.formats.hugging_face import PREFIX, hub_tables
    from sigmax.data.formats.registry import read

    if str(source).startswith(PREFIX):
        with hub_tables(str(source)) as tables:
            return _checked(read(tables, columns=columns, seed=seed), advance)
    if not Path(source).exists():
        raise DataError(
            f"{source}: no such file or folder, and no built-in data set of that name "
            f"(built in: {', '.join(BUILTIN)}).{nearest(str(source), BUILTIN)}"
        )
    return _checked(read(source, columns=columns, seed=seed), advance)


def _checked(data: MatchDataset, advance: Advance | None) -> MatchDataset:
    from sigmax.data.pictures import Picture, check_pictures

    check_pictures([query for query in data.queries if isinstance(query, Picture)], advance)
    return data
