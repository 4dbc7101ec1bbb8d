"""The index of a model folder: built beside the vectors, measured against the scan of all, opened for matching."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.familiar import Familiar
from sigmax.calibration.record import Record
from sigmax.calibration.through import fit_through
from sigmax.candidates.exact import Exact
from sigmax.candidates.faiss_index import EFFORTS, KINDS, FaissIndex, build_index, kind_for
from sigmax.candidates.postgres import PostgresStore, hidden, push
from sigmax.candidates.store import Store, check_fingerprint
from sigmax.data.alike import groups_of
from sigmax.errors import DataError, lookup
from sigmax.files import replace_folder, write_text
from sigmax.model.changes import IDS, TEXTS, rows_of_candidates
from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.model.fingerprints import fingerprints
from sigmax.model.folder import FEW, INDEX, find_folder
from sigmax.model.remembered import novelty_of
from sigmax.model.searched import DEPTH, SAMPLED, Searched

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance, Query

__all__ = [
    "AT",
    "Measured",
    "asked_queries",
    "build",
    "load_for_matching",
    "measure",
    "open_database",
    "open_index",
    "presence_error_of",
    "push_candidates",
    "recall_of",
    "stored_candidates",
]

#: An index that is being built, inside the model folder; a later run goes on with it.
UNFINISHED = ".index.unfinished"
#: Recall that the effort is raised for, on queries that are not those it is then measured on.
ENOUGH = 0.99
#: Of how many best candidates the recall is told.
AT = 10
#: Queries that the effort is chosen by and, as many again, that recall is measured on.
TRIED = 500


@dataclass(frozen=True)
class Measured:
    """How a store does beside the scan of all candidates, on the same queries."""

    queries: int
    what: str  #: what the queries are
    recall: float  #: part of the exact best `AT` that are found
    recall_all: float  #: part of the exact best `DEPTH` that are found
    presence_error: float | None  #: largest difference from the exact presence; None without calibration
    share_error: float  #: median standard error of shares, as a part of them
    rules: dict[str, dict[str, float | None]]  #: best-f1 on dev by the scan and through the store; empty without dev

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return dict(vars(self))


def stored_candidates(model: DualEncoder, fingerprint: str) -> Exact:
    """Return a model's candidates as a store that compares all of them."""
    vectors = model.candidate_vectors(model.candidates)
    return Exact(vectors.dense.cpu(), model.candidate_ids, model.candidates, fingerprint=fingerprint)


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
    about["calibrator"] = None if calibrator is None else calibrator.as_dict()
    with replace_folder(folder / INDEX) as fresh:
        (work / "index.faiss").rename(fresh / "index.faiss")
        if calibrator is not None and calibrator.record is not None:
            kept = {} if calibrator.familiar is None else calibrator.familiar.as_tensors()
            save_file({**calibrator.record.as_tensors(), **kept}, str(fresh / "dev.safetensors"))
        (fresh / "index.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
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
    except BaseException:
        store.close()
        raise
    model.searched = Searched(store)


def push_candidates(
    folder: Path,
    address: str,
    *,
    table: str = "candidates",
    metadata: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    advance: Advance | None = None,
) -> tuple[int, int]:
    """Write a model's candidates to PostgreSQL, see `sigmax.candidates.push`.

    Args:
        folder: of the model.
        address: postgresql://user:password@host/database.
        table: its name.
        metadata: a table with a column id (or _id, text, candidate); the others are what `where` may ask.
        columns: our column name -> the metadata's.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        Candidates, and how many of them were written now.

    Raises:
        DataError: metadata of candidates that the model does not have; a database that refuses.
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
    return len(model.candidates), written


def _facts(model: DualEncoder, source: str | Path, columns: Mapping[str, str] | None) -> dict[int, dict[str, Any]]:
    """What a table says of candidates, by their places."""
    known = {key: at for at, key in enumerate(model.candidate_ids)}
    facts = {}
    for row, key in rows_of_candidates(source, columns):
        if key not in known:
            raise DataError(f"{row.where}: the model has no candidate with the id {key!r}.")
        facts[known[key]] = {name: value for name, value in row.values.items() if name not in (*IDS, *TEXTS)}
    return facts


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
        record = place / "dev.safetensors"
        saved, tensors = about["calibrator"], load_file(str(record)) if record.exists() else None
        own = {name: about[name] for name in ("vectors", "candidates")}
    except (OSError, ValueError, LookupError) as error:
        raise DataError(f"{place}: the index is damaged ({type(error).__name__}: {error}). {again}") from error
    if own != fingerprints(folder, model):
        raise DataError(f"{place}: the index is older than the candidates or the model beside it. {again}")
    index = FaissIndex(place, about, stored_candidates(model, own["vectors"]))
    model.searched = _searched(model, index, best_alone=saved is not None)
    if saved is not None and model.calibrator is not None:
        restored = None if tensors is None else Record.from_tensors(tensors)
        familiar = None if tensors is None else Familiar.from_tensors(tensors)
        model.calibrator = Calibrator.from_dict(saved, restored, familiar or model.calibrator.familiar)
    return True


def _searched(model: DualEncoder, store: Store, *, best_alone: bool) -> Searched:
    tokens = None if model.lexical is None else model.candidate_vectors(model.candidates).tokens
    return Searched(store, best_alone=best_alone, tokens=tokens)


def _choose_effort(index: FaissIndex, exact: Exact, model: DualEncoder, queries: Sequence[Query] | None) -> None:
    """The least effort that finds enough, of the first half of the queries: the other half then measures."""
    asked = asked_queries(model, exact, queries)[0]
    vectors = model.vectors(asked[: (len(asked) + 1) // 2]).dense.float().numpy()
    truth = exact.search(vectors, AT)
    for effort in EFFORTS[index.about["kind"]]:
        index.effort = effort
        if recall_of(index.search(vectors, DEPTH), truth, AT) >= ENOUGH:
            return


def asked_queries(model: DualEncoder, exact: Exact, queries: Sequence[Query] | None) -> tuple[list[Query], str]:
    """Choose what a store is asked to be measured, and say what it is: queries, or some candidates' own texts.

    Raises:
        DataError: no queries for a model of pictures.
    """
    if queries is not None:
        return list(queries[: 2 * TRIED]), "queries of the data"
    if model.pictures:
        raise DataError("A model of pictures cannot ask by the texts of its candidates. Give data with queries.")
    return list(exact.sample(2 * TRIED).texts), "texts of candidates"


def recall_of(found: Sequence[Any], truth: Sequence[Any], at: int) -> float:
    """Return the part of the true best that were found, of the best so many of each query."""
    parts = [
        np.isin(true.places[:at], one.places[:at]).mean() if len(true) else 1.0
        for one, true in zip(found, truth, strict=True)
    ]
    return float(np.mean(parts)) if parts else 1.0


def measure(
    model: DualEncoder,
    searched: Searched,
    exact: Store,
    *,
    data: MatchDataset | None,
    split: str = "dev",
    advance: Advance | None = None,
) -> tuple[Measured, Calibrator | None]:
    """Measure a store beside the scan of all, and calibrate P(any) and rules on what it returns.

    Args:
        model: what encodes, with the calibrator of the scan.
        searched: the store.
        exact: the same candidates, all compared.
        data: see `build`.
        split: see `build`.
        advance: see `build`.

    Returns:
        How it does, and the calibrator; None without data or without a calibrated model.
    """
    queries = None if data is None else [data.queries[i] for i in data.split(split)]
    asked, what = asked_queries(model, exact, queries)  # type: ignore[arg-type]
    half = asked[len(asked) // 2 :]
    vectors = model.vectors(half)
    dense = vectors.dense.float().cpu().numpy()
    truth, found = exact.search(dense, DEPTH), searched.store.search(dense, DEPTH)
    rows = searched.rows(model, vectors)
    error = None
    if model.calibrator is not None:
        error = presence_error_of(model, searched, exact, half[:50])
    calibrator, rules = None, {}
    if data is not None and model.calibrator is not None:
        calibrator = _through(model, searched, data, split, advance)
        by = (("scan", model.calibrator), ("index", calibrator))
        rules = {name: one.decide().achieved for name, one in by if one.record is not None}
    recall, recall_all = (recall_of(found, truth, at) for at in (AT, DEPTH))
    return Measured(len(half), what, recall, recall_all, error, float(np.median(rows.error)), rules), calibrator


def presence_error_of(model: DualEncoder, searched: Searched, exact: Store, queries: Sequence[Query]) -> float:
    """The largest difference between presences through the store and by the scan, over what the store found."""
    largest = 0.0
    whole = Searched(exact, depth=searched.depth, sampled=exact.size, tokens=searched.tokens)
    for ours, theirs in zip(searched.rate(model, queries), whole.rate(model, queries), strict=True):
        assert ours.presence is not None and theirs.presence is not None
        known = dict(zip(theirs.candidate_ids, theirs.presence.tolist(), strict=True))
        pairs = [
            (p, known[key]) for key, p in zip(ours.candidate_ids, ours.presence.tolist(), strict=True) if key in known
        ]
        largest = max([largest, *(abs(a - b) for a, b in pairs)])
    return largest


def _through(
    model: DualEncoder, searched: Searched, data: MatchDataset, split: str, advance: Advance | None
) -> Calibrator:
    """Calibrate on what the store returns of the dev queries."""
    assert model.calibrator is not None
    places = data.split(split)
    parts, nones, near, missing = [], [], [], np.zeros(len(places), np.int64)
    for start in range(0, len(places), 64):
        block = places[start : start + 64]
        vectors = model.vectors([data.queries[i] for i in block])
        rows = searched.rows(model, vectors)
        nones.append(model.none_logits(vectors))
        near.append(novelty_of(model.novelty, vectors))
        right = np.zeros(rows.logits.shape, bool)
        for row, i in enumerate(block):
            true = {data.candidate_ids[j] for j in data.graph[[i]].indices}
            ids = rows.found[row].ids
            right[row, : len(ids)] = [key in true for key in ids]
            missing[start + row] = len(true) - right[row].sum()
        parts.append((rows.logits, right, rows.weights))
        if advance is not None:
            advance(min(1.0, (start + 64) / len(places)), "measuring")
    logits, right, weights = (np.concatenate([part[k] for part in parts]) for k in range(3))
    return fit_through(
        model.calibrator,
        logits,
        right,
        weights,
        best=min(searched.depth, searched.size),
        missing=missing,
        none=None if nones[0] is None else np.concatenate([one for one in nones if one is not None]),
        novelty=None if near[0] is None else np.concatenate([one for one in near if one is not None]),
        groups=groups_of(data, split),
        about={"data": data.name, "split": split},
    )
