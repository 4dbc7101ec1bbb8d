"""The index of a model folder: built beside the vectors, measured against the scan of all, opened for matching."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmax.candidates.exact import Exact
from sigmax.candidates.faiss_index import EFFORTS, KINDS, FaissIndex, build_index, kind_for
from sigmax.candidates.store import Store
from sigmax.errors import DataError, lookup
from sigmax.files import replace_folder, write_text
from sigmax.model.database import open_database
from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.model.fingerprints import fingerprints
from sigmax.model.folder import FEW, INDEX, find_folder
from sigmax.model.measured import (
    AT,
    Measured,
    asked_queries,
    fitted,
    keep_fitted,
    measure,
    recall_of,
    stored_candidates,
)
from sigmax.model.searched import DEPTH, SAMPLED, Searched

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance, Query

__all__ = ["build", "load_for_matching", "matching", "open_index"]

#: An index that is being built, inside the model folder; a later run goes on with it.
UNFINISHED = ".index.unfinished"
#: Recall that the effort is raised for, on queries that are not those it is then measured on.
ENOUGH = 0.99


def build(
    folder: Path,
    model: DualEncoder,
    *,
    kind: str | None = None,
    data: MatchDataset | None = None,
    split: str = "dev",
    advance: Advance | None = None,
) -> tuple[dict[str, Any], Measured] | None:
    """Build the index of a model folder, measure it, and write both into the folder; an older one stays until then.

    Args:
        folder: of the model.
        model: that it holds.
        kind: a name in `KINDS`; None: by the number of candidates.
        data: with queries and their right answers, for recall, P(any) and rules; None: recall alone, asked by the texts
            of candidates.
        split: which queries of the data.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        What it is, and how it does; None where an exact scan is fast enough, so that there is none.

    Raises:
        DataError: candidates whose vectors are not stored, or data without such a split.
        OSError: it cannot be written; an older index stays.
    """
    if kind is not None:
        lookup(KINDS, kind, "kind")
    size = len(model.candidates)
    chosen = kind or kind_for(size)
    if chosen is None:
        return None
    if size <= FEW:
        raise DataError(
            f"{folder}: vectors are stored of more than {FEW:,} candidates, this model has {size:,}. Leave out the "
            "kind: it needs no index."
        )
    made_of = {"kind": chosen, **fingerprints(folder, model)}
    work = folder / UNFINISHED
    begun = work / "begun.json"
    for left in folder.glob(f".{INDEX}.new-*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    if not (begun.exists() and json.loads(begun.read_text(encoding="utf-8")) == made_of):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        write_text(begun, json.dumps(made_of))
    exact = stored_candidates(model, made_of["vectors"])
    about = build_index(exact.vectors, work, chosen, advance=advance)
    index = FaissIndex(work, about, exact)
    searched = _searched(model, index, best_alone=False)
    queries = None if data is None else [data.queries[i] for i in data.split(split)]
    _choose_effort(index, exact, model, queries)
    measured, calibrator = measure(model, searched, exact, data=data, split=split, advance=advance)
    about = {**index.describe(), **made_of, "depth": DEPTH, "sampled": SAMPLED, "measured": measured.as_dict()}
    with replace_folder(folder / INDEX) as fresh:
        (work / "index.faiss").rename(fresh / "index.faiss")
        keep_fitted(fresh, about, "index.json", calibrator)
    shutil.rmtree(work, ignore_errors=True)
    return about, measured


def load_for_matching(
    source: str | Path,
    *,
    exact: bool = False,
    candidates: str | None = None,
    table: str = "candidates",
    where: Mapping[str, Any] | None = None,
) -> DualEncoder:
    """Read a model as `sigmax.load` does, and let it match where its candidates are.

    Args:
        source: see `sigmax.load`.
        exact: whether to look at all candidates, also where the folder has an index.
        candidates: the address of a database, see `open_database`; None: those of the folder.
        table: in the database.
        where: see `open_database`.

    Raises:
        DataError: see `sigmax.load`, `open_index` and `open_database`.
        UnavailableError: the database cannot be reached.
        ImportError: faiss or psycopg is not installed.
    """
    folder = find_folder(source)
    model = load(folder)
    if candidates is not None:
        open_database(folder, model, candidates, table=table, where=where)
    elif not exact:
        open_index(folder, model)
    return model


@contextlib.contextmanager
def matching(source: str | Path, **place: Any) -> Iterator[DualEncoder]:
    """Give the model of `load_for_matching`, and close at the end what it opened."""
    model = load_for_matching(source, **place)
    try:
        yield model
    finally:
        if model.searched is not None:
            model.searched.close()


def open_index(folder: Path, model: DualEncoder) -> bool:
    """Let a model match through the index of its folder, if there is one.

    Raises:
        DataError: an index of other candidates or of another model, or a damaged one.
        ImportError: faiss is not installed.
    """
    place = folder / INDEX
    if not place.exists():
        return False
    again = f"Build it again: sigmax index {folder}; or scan all: --exact."
    try:
        about = json.loads((place / "index.json").read_text(encoding="utf-8"))
        calibrator = fitted(place, about, model)
        own = {name: about[name] for name in ("vectors", "candidates")}
    except (OSError, ValueError, LookupError) as error:
        raise DataError(f"{place}: the index is damaged ({type(error).__name__}: {error}). {again}") from error
    if own != fingerprints(folder, model):
        raise DataError(f"{place}: the index is older than the candidates or the model beside it. {again}")
    index = FaissIndex(place, about, stored_candidates(model, own["vectors"]))
    model.searched = _searched(model, index, best_alone=about["calibrator"] is not None)
    model.calibrator = calibrator or model.calibrator
    return True


def _choose_effort(index: FaissIndex, exact: Exact, model: DualEncoder, queries: Sequence[Query] | None) -> None:
    """The least effort that finds enough, of the first half of the queries: the other half then measures."""
    asked = asked_queries(model, exact, queries)[0]
    vectors = model.vectors(asked[: (len(asked) + 1) // 2]).dense.float().numpy()
    truth = exact.search(vectors, AT)
    for effort in EFFORTS[index.about["kind"]]:
        index.effort = effort
        if recall_of(index.search(vectors, DEPTH), truth, AT) >= ENOUGH:
            return


def _searched(model: DualEncoder, store: Store, *, best_alone: bool) -> Searched:
    tokens = None if model.lexical is None else model.candidate_vectors(model.candidates).tokens
    return Searched(store, best_alone=best_alone, tokens=tokens)
