"""Matching through a store: the best candidates that it finds, rated as the scan of all would rate them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sigmax.arrays import Floats, Ints
from sigmax.calibration.any_right import AnyInputs
from sigmax.calibration.pairs import row_totals
from sigmax.candidates.store import Found, Sample, Store
from sigmax.encoders.lexical import Tokens
from sigmax.model.matches import Rated
from sigmax.model.remembered import novelty_of
from sigmax.model.vectors import Vectors

if TYPE_CHECKING:
    from sigmax.calibration.calibrator import Calibrator
    from sigmax.data.pictures import Query
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.model.reranker import Reranker

__all__ = ["DEPTH", "SAMPLED", "Rows", "Searched"]

#: Candidates that are asked of a store for each query: no more can be shown or accepted.
DEPTH = 100
#: Candidates that stand for all that was not found, in the sum that shares are parts of.
SAMPLED = 4096
#: Candidates that a store is asked for, for each one kept, where shared words change their order afterwards.
WIDER = 4


@dataclass(frozen=True, eq=False)
class Rows:
    """Logits of n queries: of what was found, and of a sample that stands for the rest."""

    found: list[Found]  #: of each query, the highest logit first
    logits: NDArray[np.float32]  #: (n, k + s); columns that hold nothing repeat the lowest logit
    weights: Floats  #: (n, k + s) candidates that each stands for; 0: none
    depth: int  #: k
    error: Floats  #: (n,) standard error of Σ exp, as a part of it


@dataclass(frozen=True, eq=False)
class Searched:
    """A store in the place of all candidates: what `DualEncoder.rate` takes as an offer.

    With total = Σ exp(s) over the best k + (m − k) · mean of exp(s) over a random sample of the others, which is
    unbiased, share = exp(s) / total. Presences are those of the scan: exact where the calibration reads the logit
    alone, and as near as the total is where it reads the share too (`Calibrator.competition`).
    """

    store: Store
    depth: int = DEPTH
    sampled: int = SAMPLED
    best_alone: bool = False  #: whether P(any) was fitted on what is found, see `sigmax.calibration.through`
    tokens: Tokens | None = field(default=None, repr=False)  #: of the candidates, by their places in the store

    @property
    def size(self) -> int:
        """How many candidates may be found."""
        return self.store.size

    def close(self) -> None:
        """Give back what the store holds: connections."""
        close = getattr(self.store, "close", None)
        if close is not None:
            close()

    def where(self, values: Mapping[str, Any]) -> Searched:
        """Return the same over the candidates whose metadata has these values, of a store that knows any.

        Raises:
            ValueError: it knows none.
        """
        filtered = getattr(self.store, "filtered", None)
        if filtered is None:
            raise ValueError("`where` asks for metadata, which only candidates in a database have: --candidates.")
        return replace(self, store=filtered(values))

    def check(self, top_k: int) -> None:
        """Check that as many candidates are found as are asked for.

        Raises:
            ValueError: more.
        """
        if top_k > self.depth:
            raise ValueError(
                f"Expected `top_k` of at most {self.depth} candidates from an index or a database, got {top_k}. The "
                "scan of all gives more: --exact."
            )

    def rate(self, model: DualEncoder, queries: Sequence[Query], block: int = 64) -> Iterator[Rated]:
        """Rate what is found for each query.

        Raises:
            UnavailableError: the store cannot be reached just now.
        """
        for start in range(0, len(queries), block):
            vectors = model.vectors(queries[start : start + block])
            rows = self.rows(model, vectors)
            none = model.none_logits(vectors)
            yield from self._rated(rows, none, model.calibrator, novelty_of(model.novelty, vectors))

    @torch.no_grad()
    def rows(self, model: DualEncoder, queries: Vectors) -> Rows:
        """Search, and draw the sample that stands for the rest."""
        size = self.store.size
        wanted = min(self.depth, size)
        asked = queries.dense.float().cpu().numpy()
        found = self.store.search(asked, min(size, wanted * (1 if model.lexical is None else WIDER)))
        scale, bias = model.loss.logit_scale.item(), 0.0
        if model.loss.logit_bias is not None:
            bias = model.loss.logit_bias.item()
        logits = [one.products * np.float32(scale) + np.float32(bias) for one in found]
        sample = self.store.sample(self.sampled)
        others = self._sample_logits(model, queries, sample, scale, bias)
        if model.lexical is not None and queries.tokens is not None:
            for i, one in enumerate(found):
                tokens = self._tokens(model, one.places, one.texts)
                logits[i] = logits[i] + model.lexical.scores(queries.tokens[i : i + 1], tokens)[0]
                order = np.argsort(-logits[i], kind="stable")[:wanted]
                logits[i], found[i] = logits[i][order], _picked(one, order)
        rows = _rows(found, logits, others, sample, size, wanted)
        if model.reranker is not None and queries.texts is not None:
            for i, query in enumerate(queries.texts):
                self._look(model.reranker, rows, i, str(query))
        return replace(rows, error=np.array([_relative_error(rows, i) for i in range(len(found))]))

    def _look(self, reranker: Reranker, rows: Rows, i: int, query: str) -> None:
        """Read the best again, see `Reranker`: the others, the sample among them, keep their order behind these."""
        here = len(rows.found[i])
        if here:
            row = rows.logits[i : i + 1]
            reranker.combine(row, *reranker.best(row[:, :here], [query], rows.found[i].texts))
            order = np.argsort(-row[0, :here], kind="stable")
            row[0, :here] = row[0, order]
            rows.found[i] = _picked(rows.found[i], order)

    def _sample_logits(
        self, model: DualEncoder, queries: Vectors, sample: Sample, scale: float, bias: float
    ) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = queries.dense.float().cpu().numpy() @ sample.vectors.T
        logits = logits * np.float32(scale) + np.float32(bias)
        if model.lexical is not None and queries.tokens is not None and len(sample.places):
            logits = logits + model.lexical.scores(queries.tokens, self._sample_tokens(model, sample))
        return logits

    def _sample_tokens(self, model: DualEncoder, sample: Sample) -> Tokens:
        kept = self.__dict__.get("_kept_sample")
        if kept is None or kept[0] is not sample:
            kept = sample, self._tokens(model, sample.places, sample.texts)
            self.__dict__["_kept_sample"] = kept
        tokens: Tokens = kept[1]
        return tokens

    def _tokens(self, model: DualEncoder, places: Ints, texts: Sequence[str]) -> Tokens:
        if self.tokens is not None:
            return self.tokens.take(places)
        assert model.lexical is not None
        return model.lexical.tokens(list(texts), "candidate")

    def _rated(
        self, rows: Rows, none: NDArray[Any] | None, calibrator: Calibrator | None, novelty: Floats | None
    ) -> Iterator[Rated]:
        for part in _alike(rows, calibrator):
            cut = _cut(rows, part)
            absent = None if none is None else none[part]
            totals = row_totals(cut.logits, None, cut.weights)
            near = None if novelty is None else novelty[part]
            presence = anything = familiar = None
            if calibrator is not None and not cut.depth:  # a filter leaves nothing to be right
                presence, anything = np.zeros((len(cut.found), 0)), np.zeros(len(cut.found))
            elif calibrator is not None:
                presence, anything, familiar = self._read(cut, absent, calibrator, near)
            for row, found in enumerate(cut.found):
                logits = cut.logits[row, : cut.depth]
                yield Rated(
                    found.texts,
                    found.ids,
                    logits,
                    np.exp(np.minimum(logits.astype(np.float64) - totals[row], 0.0)),
                    None if presence is None else presence[row],
                    None if anything is None else float(anything[row]),
                    float(cut.error[row]),
                    None if familiar is None else float(familiar[1][row]),
                    None if familiar is None else float(familiar[0][row]),
                )

    def _read(
        self, rows: Rows, none: NDArray[Any] | None, calibrator: Calibrator, novelty: Floats | None
    ) -> tuple[Floats, Floats, tuple[Floats, Floats] | None]:
        """(n, k) presences of what was found, (n,) P(any), and how familiar the queries are."""
        places = np.full(rows.logits.shape[1], -1)
        if calibrator.candidate_ids and len(rows.found) == 1:
            places[: rows.depth] = self._places(rows.found[0].ids, calibrator)
        totals = row_totals(rows.logits, none, rows.weights)
        read = slice(rows.depth if self.best_alone else None)
        odds = calibrator.calibration.log_odds(rows.logits[:, read], places[read], totals)
        inputs = AnyInputs(rows.logits[:, read], odds, none, rows.weights[:, read], novelty)
        familiar = calibrator.familiarity(inputs.presence, novelty, rows.weights[:, read])
        return inputs.presence[:, : rows.depth], calibrator.any_of(inputs), familiar

    def _places(self, ids: Sequence[str], calibrator: Calibrator) -> Ints:
        known = self.__dict__.get("_ids")
        if known is None or known[0] is not calibrator.candidate_ids:
            known = calibrator.candidate_ids, {key: place for place, key in enumerate(calibrator.candidate_ids)}
            self.__dict__["_ids"] = known
        return np.array([known[1].get(key, -1) for key in ids], np.int64)


def _picked(found: Found, order: Ints) -> Found:
    ids, texts = ([names[place] for place in order.tolist()] for names in (found.ids, found.texts))
    return Found(found.places[order], found.products[order], ids, texts)


def _rows(
    found: list[Found],
    logits: list[NDArray[np.float32]],
    others: NDArray[np.float32],
    sample: Sample,
    size: int,
    depth: int,
) -> Rows:
    """Put what was found and the sample side by side; what was found is not in the sample."""
    n, drawn = others.shape
    low = np.array([min([*one[-1:], *other[:1]], default=0.0) for one, other in zip(logits, others, strict=True)])
    whole = np.repeat(low.astype(np.float32)[:, None], depth + drawn, axis=1)
    weights = np.zeros((n, depth + drawn))
    order = np.argsort(sample.places)
    known = sample.places[order]
    for i, (one, values) in enumerate(zip(found, logits, strict=True)):
        here = len(values)
        whole[i, :here], weights[i, :here] = values, 1.0
        at = np.searchsorted(known, one.places)
        at = at[at < drawn]
        rest = np.ones(drawn, bool)
        rest[order[at[np.isin(known[at], one.places)]]] = False
        left, seen = size - here, int(rest.sum())
        whole[i, depth:] = np.where(rest, others[i], low[i])
        weights[i, depth:] = rest * (left / seen if seen else 0.0)
    return Rows(found, whole, weights, depth, np.zeros(n))


def _relative_error(rows: Rows, i: int) -> float:
    """Standard error of Σ exp as a part of it: the sample is drawn without replacement from those not found."""
    drawn = rows.weights[i, rows.depth :] > 0
    rest = rows.logits[i, rows.depth :][drawn].astype(np.float64)
    best = rows.logits[i, : len(rows.found[i])].astype(np.float64)
    left = rows.weights[i, rows.depth :].sum()
    if len(rest) >= round(left) or len(rest) < 2:
        return 0.0
    top = max(best.max(initial=-np.inf), rest.max())
    weights = np.exp(rest - top)
    total = np.exp(best - top).sum() + left * weights.mean()
    deviation = weights.std(ddof=1) / np.sqrt(len(rest)) * np.sqrt(1 - len(rest) / left)
    return float(left * deviation / total)


def _alike(rows: Rows, calibrator: Calibrator | None) -> Iterator[slice]:
    """Rows that can be read together: as many found for each, and no candidate told apart from the others."""
    n = len(rows.found)
    counts = {len(found) for found in rows.found}
    if len(counts) <= 1 and not (calibrator is not None and calibrator.candidate_ids):
        yield slice(0, n)
        return
    yield from (slice(i, i + 1) for i in range(n))


def _cut(rows: Rows, part: slice) -> Rows:
    """Some of the rows, without the columns in which none of them has found anything."""
    found = rows.found[part]
    depth = max((len(one) for one in found), default=0)
    kept = np.r_[0:depth, rows.depth : rows.logits.shape[1]]
    return Rows(found, rows.logits[part][:, kept], rows.weights[part][:, kept], depth, rows.error[part])
