"""How a store of candidates does beside the scan of all, and what is fitted on what it returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from sigmax.candidates.store import Store
from sigmax.data.alike import groups_of
from sigmax.errors import DataError
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.remembered import novelty_of
from sigmax.model.searched import DEPTH, Searched

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.data.pictures import Advance, Query

__all__ = [
    "AT",
    "TRIED",
    "Measured",
    "asked_queries",
    "fitted",
    "keep_fitted",
    "measure",
    "presence_error_of",
    "recall_of",
    "stored_candidates",
]

#: Of how many best candidates the recall is told.
AT = 10
#: Queries that the effort is chosen by and, as many again, that recall is measured on.
TRIED = 500
#: Of the record of dev, beside what is told of a store.
_RECORD = "dev.safetensors"


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


def keep_fitted(place: Path, about: dict[str, Any], name: str, calibrator: Calibrator | None) -> None:
    """Write what is told of a store, and the calibrator fitted on what it returns, into a folder of its own.

    Args:
        place: the folder.
        about: for JSON.
        name: of the file that tells it.
        calibrator: None where none was fitted.
    """
    told = {**about, "calibrator": None if calibrator is None else calibrator.as_dict()}
    if calibrator is not None and (tensors := calibrator.as_tensors()):
        save_file(tensors, str(place / _RECORD))
    (place / name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def fitted(place: Path, about: dict[str, Any], model: DualEncoder) -> Calibrator | None:
    """Read the calibrator that `keep_fitted` wrote, for a model that is calibrated; None where there is none.

    Raises:
        OSError: the record cannot be read.
        ValueError: it is damaged, and so for LookupError.
    """
    record = place / _RECORD
    tensors = load_file(str(record)) if record.exists() else None
    saved = about["calibrator"]
    if saved is None or model.calibrator is None:
        return None
    restored = None if tensors is None else Record.from_tensors(tensors)
    familiar = None if tensors is None else Familiar.from_tensors(tensors)
    return Calibrator.from_dict(saved, restored, familiar or model.calibrator.familiar)
