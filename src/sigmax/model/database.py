"""A model's candidates in PostgreSQL: written there, measured against the scan of all, opened for matching."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmax.candidates.postgres import PostgresStore, hidden, push
from sigmax.candidates.store import check_fingerprint
from sigmax.errors import DataError
from sigmax.files import replace_folder
from sigmax.model.changes import IDS, TEXTS, rows_of_candidates
from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.model.fingerprints import fingerprints
from sigmax.model.folder import DATABASE, find_folder
from sigmax.model.measured import Measured, fitted, keep_fitted, measure, stored_candidates
from sigmax.model.searched import Searched

if TYPE_CHECKING:
    from sigmax.calibration.calibrator import Calibrator
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance

__all__ = ["Pushed", "open_database", "push_candidates"]


@dataclass(frozen=True)
class Pushed:
    """What `push_candidates` wrote."""

    candidates: int
    written: int  #: of them now: fewer than all where an earlier run had written some
    measured: Measured | None  #: beside the scan of all; None without data


def open_database(
    folder: Path,
    model: DualEncoder,
    address: str,
    *,
    table: str = "candidates",
    where: Mapping[str, Any] | None = None,
) -> None:
    """Let a model match candidates in PostgreSQL, where `push_candidates` wrote them.

    Args:
        folder: of the model.
        model: that it holds.
        address: postgresql://user:password@host/database.
        table: its name.
        where: only candidates whose metadata has these values, all of them.

    Raises:
        DataError: a database that lets nobody in, without such a table, or with vectors of another model.
        UnavailableError: it cannot be reached.
        ImportError: psycopg is not installed.
    """
    store = PostgresStore(address, table=table, where=where)
    try:
        own = fingerprints(folder, model)["vectors"]
        check_fingerprint(store, own, hidden(address), f"Write its own: sigmax push {folder} {hidden(address)}")
        calibrator = None if where else _fitted_on(folder, model, store)
    except BaseException:
        store.close()
        raise
    model.searched = Searched(store, best_alone=calibrator is not None)
    model.calibrator = calibrator or model.calibrator


def _fitted_on(folder: Path, model: DualEncoder, store: PostgresStore) -> Calibrator | None:
    """What `push_candidates` fitted on what a table returns; None where it was not, or the table is of another push."""
    place = folder / DATABASE
    try:
        about = json.loads((place / "database.json").read_text(encoding="utf-8"))
        if about["generation"] != store.about["generation"]:
            return None
        return fitted(place, about, model)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError) as error:
        raise DataError(
            f"{place}: damaged ({type(error).__name__}: {error}). Measure again: sigmax push {folder} ADDRESS --data "
            "DATA"
        ) from error


def push_candidates(
    folder: Path,
    address: str,
    *,
    table: str = "candidates",
    metadata: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    data: MatchDataset | None = None,
    split: str = "dev",
    advance: Advance | None = None,
) -> Pushed:
    """Write a model's candidates to PostgreSQL, see `sigmax.candidates.push`, and measure what is found there.

    Args:
        folder: of the model.
        address: postgresql://user:password@host/database.
        table: its name.
        metadata: a table with a column id (or _id, text, candidate); the others are what `where` may ask.
        columns: our column name -> the metadata's.
        data: with queries and their right answers: P(any) is fitted on what the database returns of them, and rules are
            chosen through it; both are written into the folder, for this table as it is now. None: neither.
        split: which queries of the data.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        How many candidates were written, and how what is found there does beside the scan of all.

    Raises:
        DataError: metadata of candidates that the model does not have; a database that refuses; data without such a
            split.
        UnavailableError: it cannot be reached.
        ImportError: psycopg is not installed.
    """
    place = find_folder(folder)
    model = load(place)
    told = fingerprints(place, model)
    facts = {} if metadata is None else _facts(model, metadata, columns)
    generation = hashlib.blake2b(json.dumps([told, facts], sort_keys=True, default=str).encode(), digest_size=16)
    written = push(
        address,
        model.candidate_ids,
        model.candidates,
        model.candidate_vectors(model.candidates).dense.float().cpu().numpy(),
        fingerprint=told["vectors"],
        generation=generation.hexdigest(),
        table=table,
        metadata=lambda at: facts.get(at, {}),
        advance=advance,
    )
    measured = None
    if data is not None:
        data.split(split)
        with contextlib.closing(PostgresStore(address, table=table)) as store:
            exact = stored_candidates(model, told["vectors"])
            searched = Searched(store)
            measured, calibrator = measure(model, searched, exact, data=data, split=split, advance=advance)
            about = {"table": table, "generation": store.about["generation"], "measured": measured.as_dict()}
        with replace_folder(place / DATABASE) as fresh:
            keep_fitted(fresh, about, "database.json", calibrator)
    return Pushed(len(model.candidates), written, measured)


def _facts(model: DualEncoder, source: str | Path, columns: Mapping[str, str] | None) -> dict[int, dict[str, Any]]:
    """What a table says of candidates, by their places."""
    known = {key: at for at, key in enumerate(model.candidate_ids)}
    facts = {}
    for row, key in rows_of_candidates(source, columns):
        if key not in known:
            raise DataError(f"{row.where}: the model has no candidate with the id {key!r}.")
        facts[known[key]] = {name: value for name, value in row.values.items() if name not in (*IDS, *TEXTS)}
    return facts
