"""Candidates that come, change and go after training: a folder with others, and nothing trained anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sigmax.candidates.packed import Packed, kind_of, pack
from sigmax.data.formats.cells import text_cell
from sigmax.data.formats.reader import Reading
from sigmax.data.formats.rows import Row
from sigmax.data.formats.tables import rows_by_split
from sigmax.data.pictures import Advance
from sigmax.errors import DataError, nearest
from sigmax.files import check_folder
from sigmax.model.bulk import opened_table
from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.model.folder import INDEX, find_folder
from sigmax.model.vectors import Vectors

__all__ = [
    "IDS",
    "TEXTS",
    "Change",
    "add_candidates",
    "encoded",
    "opened",
    "remove_candidates",
    "rows_of_candidates",
    "unchanged",
]

#: Candidates encoded between two reports of progress.
PART = 4096
#: Columns that hold texts, and ids, the first that is there.
TEXTS, IDS = ("text", "candidate"), ("id", "_id")


@dataclass(frozen=True)
class Change:
    """What became of a model's candidates."""

    added: int
    replaced: int  #: of known ids, with another text
    removed: int
    same: int  #: given, and there already
    candidates: int  #: that the model offers now
    index: bool  #: whether there was an index: it is gone, until it is built again

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return dict(vars(self))


def add_candidates(
    folder: str | Path, source: str | Path, *, columns: Mapping[str, str] | None = None, advance: Advance | None = None
) -> Change:
    """Add the candidates of a table to a model, and replace those whose id is known; only these are encoded.

    New ones come last, in the order of the table. They have the presences that all candidates share: scale and bias of
    a candidate of its own (`platt-candidate`) are those of its id, and of no new one. The folder is the old one until
    the new one is whole. What rules promise, they promise for the candidates that the model was calibrated with.

    Args:
        folder: of the model.
        source: any table that Sigmax reads, with a column text (or candidate) and, if its ids are not its texts, id (or
            _id); "-" for standard input, or an https address.
        columns: our column name -> the table's.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Raises:
        DataError: a table that cannot be read, an id given twice, labels that the model does not know.
        OSError: the folder cannot be written, or was changed meanwhile.
    """
    place, model, before = opened(folder)
    given: dict[str, str] = {}
    for row in _rows(source, columns):
        text = text_cell(row, _column(row, TEXTS))
        key = _key(row) or text
        if key in given:
            raise DataError(f"{row.where}: expected each id once, got {key!r} twice.")
        given[key] = text
    known = {key: at for at, key in enumerate(model.candidate_ids)}
    texts = list(model.candidates)
    changed = {known[key]: text for key, text in given.items() if key in known and texts[known[key]] != text}
    new = {key: text for key, text in given.items() if key not in known}
    stored = model._kept[1] if model._kept is not None else None
    for at, text in changed.items():
        texts[at] = text
    ids, texts = [*model.candidate_ids, *new], [*texts, *new.values()]
    if stored is not None:
        order = np.arange(len(texts))
        order[list(changed)] = len(known) + np.arange(len(changed))
        order[len(known) :] += len(changed)
        fresh = encoded(model, [*changed.values(), *new.values()], advance)
        _keep(model, ids, texts, _taken(stored, fresh, order))
    else:
        encoded(model, [*changed.values(), *new.values()], advance)  # a text that cannot be encoded is told now
        _keep(model, ids, texts, None)
    counts = {"added": len(new), "replaced": len(changed), "removed": 0, "same": len(given) - len(new) - len(changed)}
    return _saved(place, model, before, counts)


def remove_candidates(folder: str | Path, source: str | Path, *, columns: Mapping[str, str] | None = None) -> Change:
    """Remove the candidates that a table names by their ids, or by the texts that are their ids, from a model.

    Args:
        folder: of the model.
        source: any table that Sigmax reads, with a column id (or _id, text, candidate); "-" for standard input, or an
            https address.
        columns: our column name -> the table's.

    Raises:
        DataError: a table that cannot be read, an id that the model does not have, or all of them.
        OSError: the folder cannot be written, or was changed meanwhile.
    """
    place, model, before = opened(folder)
    known = {key: at for at, key in enumerate(model.candidate_ids)}
    gone: set[int] = set()
    for row, key in rows_of_candidates(source, columns):
        if key not in known:
            close = nearest(key, known) if len(known) <= 10_000 else ""
            raise DataError(f"{row.where}: the model has no candidate with the id {key!r}.{close}")
        gone.add(known[key])
    if len(gone) == len(known):
        raise DataError(f"{place}: expected at least one candidate to stay, got all {len(known):,} to remove.")
    order = np.setdiff1d(np.arange(len(known)), np.fromiter(gone, np.int64, len(gone)))
    names, texts = list(model.candidate_ids), list(model.candidates)
    stored = model._kept[1] if model._kept is not None else None
    kept = None if stored is None else _taken(stored, None, order)
    _keep(model, [names[at] for at in order.tolist()], [texts[at] for at in order.tolist()], kept)
    return _saved(place, model, before, {"added": 0, "replaced": 0, "removed": len(gone), "same": 0})


def rows_of_candidates(source: str | Path, columns: Mapping[str, str] | None) -> Iterator[tuple[Row, str]]:
    """Rows of a table of candidates, each with its candidate's id: the column id, or the text that is one.

    Raises:
        DataError: a table that cannot be read, a row without either.
    """
    for row in _rows(source, columns):
        yield row, _key(row) or text_cell(row, _column(row, TEXTS))


def opened(folder: str | Path) -> tuple[Path, DualEncoder, int]:
    """Load a model that is to be changed: its folder, the model, and what tells later whether it is the same.

    Raises:
        DataError: no model folder there.
        OSError: it cannot be written.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: expected a model folder here, got {'a file' if Path(folder).exists() else 'none'}.")
    place = find_folder(Path(folder))
    check_folder(place)
    before = place.stat().st_ino
    return place, load(place), before


def _rows(source: str | Path, columns: Mapping[str, str] | None) -> Iterator[Row]:
    reading, found = Reading(columns=dict(columns or {})), False
    with opened_table(source) as path:
        for row, _ in rows_by_split(path, reading):
            found = True
            yield row
    if not found:
        raise DataError(f"{source}: expected a table of candidates, got none.")


def _column(row: Row, names: tuple[str, ...]) -> str:
    found = next((name for name in names if name in row.values), None)
    if found is None:
        raise DataError(
            f"{row.where}: expected a column {' or '.join(names)}, got {', '.join(row.values)}. Say which it is by "
            f"`columns` {names[0]}={next(iter(row.values))}."
        )
    return found


def _key(row: Row) -> str | None:
    found = next((row.values[name] for name in IDS if row.values.get(name) not in (None, "")), None)
    return None if found is None else str(found)


def encoded(model: DualEncoder, texts: list[str], advance: Advance | None) -> Vectors | None:
    """Encode candidates in parts; None for none."""
    dense, tokens = [], None
    for start in range(0, len(texts), PART):
        dense.append(model.vectors(texts[start : start + PART], "candidate").dense.float())
        if advance is not None:
            advance(min(1.0, (start + PART) / len(texts)), f"encoding {len(texts):,} candidates")
    if texts and model.lexical is not None:
        tokens = model.lexical.tokens(texts, "candidate")
    return Vectors(torch.cat(dense), tokens) if texts else None


def _taken(stored: Vectors, fresh: Vectors | None, order: np.ndarray[Any, np.dtype[np.int64]]) -> Vectors:
    """Vectors in another order, of those that are stored and then of the fresh ones, packed as the stored ones are."""
    dense, places = stored.dense, torch.from_numpy(order)
    if isinstance(dense, Packed):
        more = None if fresh is None else pack(fresh.dense.float(), kind_of(dense))
        dense = (dense.followed_by(more) if isinstance(more, Packed) else dense).take(places)
    else:
        dense = (dense if fresh is None else torch.cat([dense, fresh.dense.float()]))[places]
    tokens = stored.tokens
    if tokens is not None:
        if fresh is not None and fresh.tokens is not None:
            tokens = tokens.followed_by(fresh.tokens)
        tokens = tokens.take(order)
    return Vectors(dense, tokens)


def _keep(model: DualEncoder, ids: list[str], texts: list[str], vectors: Vectors | None) -> None:
    model.candidates, model.candidate_ids = texts, ids
    model._kept = None if vectors is None else (tuple(texts), model._seen(vectors, texts, "candidate"))


def unchanged(folder: Path, before: int) -> None:
    """Check that a folder is still the one that was opened.

    Raises:
        OSError: it is another.
    """
    if folder.stat().st_ino != before:
        raise OSError(f"{folder}: was changed meanwhile, by another command. Nothing was written; try again.")


def _saved(folder: Path, model: DualEncoder, before: int, counts: Mapping[str, int]) -> Change:
    index = (folder / INDEX).exists()
    if counts["added"] or counts["replaced"] or counts["removed"]:
        unchanged(folder, before)
        model.save(folder)
    else:
        index = False
    return Change(**counts, candidates=len(model.candidates), index=index)
