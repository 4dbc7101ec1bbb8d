"""ScoreModel: what calibration made of a scorer's numbers: presences, any right, rules; a folder without an encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sigmax.arrays import Bools, Floats, Ints
from sigmax.calibration.calibrator import DEFAULT_RULE, Calibrator, fit_calibrator
from sigmax.calibration.record import Record
from sigmax.calibration.rules import CONFIDENCE, Choice, Decision
from sigmax.errors import DataError
from sigmax.evaluation import Evaluation, evaluate_observed
from sigmax.files import recover_folder, replace_folder
from sigmax.metrics.intervals import DRAWS
from sigmax.metrics.metric import Observed, Ranks
from sigmax.model.matches import Matches, Rated
from sigmax.scores.combine import (
    Combination,
    crossed_logits,
    direction,
    fit_combination,
    segment_least,
    segment_sums,
    share_of,
)
from sigmax.scores.fingerprint import Fingerprint
from sigmax.scores.folder import FILE, check_score_place, is_score_folder
from sigmax.scores.kept import kept_lists, lists_as_tensors, lists_from_tensors
from sigmax.scores.table import Scores, blocks_of, coded, judged, padded

__all__ = ["ScoreModel", "calibrate_scores"]

FORMAT = 1
#: Candidates of a query that are told apart in a fit; of longer lists, the worst wrong ones are pooled.
WIDEST = 2048
#: Columns that the pooled ones become.
POOLS = 8
#: Columns that lists side by side have at least: P(any) looks at the lead of the first over the second.
LEAST = 2
#: Candidates that a mean over candidates (macro-F1) is measured of, at most: more are documents, not labels.
LABELS = 1000
#: The rank of a right answer that is on no list.
NEVER = 2**40


@dataclass(frozen=True, eq=False)
class ScoreModel:
    """A calibrated scorer: the weights of its columns, and the same calibrator that models have."""

    combination: Combination
    calibrator: Calibrator
    fingerprint: Fingerprint
    floor: float  #: the lowest logit on dev: where lists are put side by side, it stands for nothing after the last
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: Judged lists that it was made on, a sample of very many, see `sigmax.scores.kept`; None: of an older folder.
    lists: Scores | None = None

    def read(self, scores: Scores) -> tuple[Floats, Floats, Floats]:
        """(k,) logits, (k,) presences and (n,) P(any) of scores; a query without rows has P(any) 0."""
        z = self.combination.logits(scores)
        presence, anything = np.empty(len(z)), np.zeros(len(scores.starts) - 1)
        lengths = scores.lengths
        for places in blocks_of(lengths):
            width = max(int(lengths[places[-1]]), LEAST)
            places = places[lengths[places] > 0]
            if not len(places):
                continue
            there = np.arange(width) < lengths[places][:, None]
            index = scores.starts[places][:, None] + np.arange(width)
            if there.all():
                logits = z[index]
            else:
                index = np.where(there, index, 0)
                logits = np.where(there, z[index], self.floor)
            found, anything[places] = self.calibrator.read(logits, (), weights=there.astype(np.float64))
            presence[index[there]] = found[there]
        return z, presence, anything

    def signs(self, scores: Scores) -> Floats:
        """(n, 3) what is told of each query without its truth, as named in `sigmax.calibration.record.SIGNS`.

        A query without rows has the best logit −∞.
        """
        z, presence, anything = self.read(scores)
        best = -segment_least(-z, scores.starts)
        accepted = segment_sums((presence >= self.calibrator.default_threshold).astype(np.float64), scores.starts)
        return np.stack([best, anything, accepted], axis=1)

    def rate(self, scores: Scores) -> Iterator[Rated]:
        """Rate every candidate of each query, in their order: what `match`, the server and explanations start from."""
        z, presence, anything = self.read(scores)
        shares = share_of(z, scores.starts)
        for number, (start, stop) in enumerate(
            zip(scores.starts[:-1].tolist(), scores.starts[1:].tolist(), strict=True)
        ):
            names = scores.candidates.slice(start, stop - start).to_pylist()
            rows = slice(start, stop)
            yield Rated(names, names, z[rows].astype(np.float32), shares[rows], presence[rows], float(anything[number]))

    def match(
        self, scores: Scores, *, top_k: int = 5, rule: str | Choice = DEFAULT_RULE, confidence: float = CONFIDENCE
    ) -> list[Matches]:
        """Find the best candidates of each query, and those that a rule accepts.

        Args:
            scores: their truth need not be known.
            top_k: how many candidates.
            rule: what is accepted, such as "precision=0.95".
            confidence: of the rule's promise.

        Raises:
            ValueError: a rule that cannot be read.
            DataError: score columns that the calibration was not made for.
        """
        decision = self.decide(rule, confidence=confidence)
        queries = scores.queries.to_pylist()
        return [one.matches(query, top_k, decision) for query, one in zip(queries, self.rate(scores), strict=True)]

    def decide(self, rule: str | Choice = DEFAULT_RULE, *, confidence: float = CONFIDENCE) -> Decision:
        """Choose what a rule accepts, see `Calibrator.decide`."""
        return self.calibrator.decide(rule, confidence=confidence)

    def record(self, scores: Scores) -> Record:
        """Rate judged scores and keep what rules and their verification need: right answers on no list included."""
        known = judged(scores)
        _, presence, _ = self.read(known)
        truth = known.truth
        kept = (truth == 1) | ((truth == 0) & (presence >= _FLOOR))
        return Record(known.wanted > 0, known.rows[kept], presence[kept], truth[kept] == 1, missing=known.missing)

    def evaluate(self, scores: Scores, *, draws: int = DRAWS) -> Evaluation:
        """Measure ranking, presence and none-of-these on judged scores, with 95% intervals over queries.

        Presences are those of use: among all candidates on the list, judged or not. Unjudged pairs are measured by
        nothing, but take up ranks. Right answers on no list count in ranking as never found. A query has an answer,
        for *none of these*, where one is on its list.

        Raises:
            DataError: the truth is not known, or columns are missing.
        """
        known = judged(scores)
        z, presence, anything = self.read(known)
        index, there = _rectangle(known.starts)
        truth = known.truth[index]
        told = there & (truth >= 0)
        right = told & (truth == 1)
        low = float(z.min(initial=0.0)) - 1.0
        empty = known.lengths == 0
        weights = told.astype(np.float64)
        names = coded(known.candidates)
        labels = len(names.dictionary) <= LABELS
        weights[empty, 0] = 1.0  # an empty list is as one with a single candidate, surely wrong
        observed = Observed(
            np.where(told, z[index], low).astype(np.float32),
            right,
            presence=np.where(told, presence[index], 0.0),
            any_right=anything,
            threshold=self.calibrator.default_threshold,
            weights=weights,
            columns=np.where(told & labels, np.asarray(names.indices, np.int64)[index], -1),
            ranks=ranks_of(known, z),
        )
        found = evaluate_observed(
            observed, data=known.name, split="scores", competition=self.calibrator.competition, draws=draws
        )
        if not labels:
            found.draws.pop("macro_f1", None)
        return found

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write scores.json, the record of dev and some of its lists; what was there stays whole until then.

        Raises:
            DataError: something else is there.
            OSError: it cannot be written.
        """
        folder = Path(folder)
        check_score_place(folder)
        about = {
            "format": FORMAT,
            "combination": self.combination.as_dict(),
            "calibrator": self.calibrator.as_dict(),
            "fingerprint": self.fingerprint.as_dict(),
            "floor": self.floor,
            "facts": dict(self.facts),
        }
        with replace_folder(folder) as fresh:
            if self.calibrator.record is not None:
                save_file(self.calibrator.record.as_tensors(), str(fresh / "dev.safetensors"))
            if self.lists is not None:
                save_file(lists_as_tensors(self.lists), str(fresh / "lists.safetensors"))
            (fresh / FILE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> ScoreModel:
        """Read what `save` wrote.

        Raises:
            DataError: no such folder, a damaged or a newer one.
        """
        folder = Path(folder)
        recover_folder(folder)
        if not is_score_folder(folder):
            raise DataError(
                f"{folder}: expected a folder with {FILE}, as `sigmax calibrate SCORES -o {folder}` makes it."
            )
        try:
            about = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if about["format"] > FORMAT:
                raise DataError(f"{folder}: written in format {about['format']}, newer than {FORMAT}. Upgrade Sigmax.")
            tensors = folder / "dev.safetensors"
            record = Record.from_tensors(load_file(str(tensors))) if tensors.exists() else None
            combination, lists = Combination.from_dict(about["combination"]), folder / "lists.safetensors"
            names = tuple(column.name for column in combination.columns)
            return cls(
                combination,
                Calibrator.from_dict(about["calibrator"], record),
                Fingerprint.from_dict(about["fingerprint"]),
                about["floor"],
                about["facts"],
                lists_from_tensors(load_file(str(lists)), names) if lists.exists() else None,
            )
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{folder}: the folder is damaged ({type(error).__name__}: {error}). Calibrate again."
            ) from error


#: Wrong pairs below this presence are not recorded, see `Record`.
_FLOOR = 1e-3


def calibrate_scores(
    scores: Scores,
    *,
    method: str = "auto",
    lower_is_better: Sequence[str] | None = None,
    held_out: float = 0.0,
    seed: int = 0,
) -> ScoreModel:
    """Fit presences, P(any) and rules to judged scores.

    Where there are several columns, the logits that presences and promises are decided by come from weights fitted
    without the query (`crossed_logits`), as presences on record do.

    Args:
        scores: with their truth; all candidates that will be on lists in use, right or wrong.
        method: a name in `sigmax.calibration.CALIBRATIONS`, or "auto".
        lower_is_better: columns that are distances; None: found out, and told in `facts["notes"]`.
        held_out: part of the queries that nothing is fitted on and rules are decided by, see `fit_calibrator`.
        seed: of folds and samples.

    Raises:
        DataError: no right or no wrong pair, scores that are all equal, a truth that is not known.
        UnknownNameError: no such method or column.
    """
    known = judged(scores)
    notes = list(known.notes)
    combination = fit_combination(known, lower_is_better=lower_is_better, seed=seed)
    names = [column.name for column in combination.columns]
    for name in known.columns:
        if name not in names:
            notes.append(f"all scores of {name!r} are equal: left out")
    for column in combination.columns:
        if column.lower and lower_is_better is None:
            notes.append(
                f"{column.name!r} falls where candidates are right, beyond chance: read as a distance, lower is better "
                f"(--lower-is-better {column.name} says so)"
            )
        elif lower_is_better is not None and not column.lower and direction(known, column.name)[0]:
            notes.append(f"{column.name!r} falls where candidates are right: is lower better? Then say so")
    filled = known.lengths > 0
    listed = known if filled.all() else known.take(filled)
    z = crossed_logits(listed, combination, seed=seed)
    floor = float(z.min())
    logits, right, weights = _matrix(listed, z, floor)
    about = {"data": scores.name, "split": "scores"}
    calibrator = fit_calibrator(
        logits,
        right,
        (),
        weights=weights,
        missing=listed.missing,
        method=method,
        held_out=held_out,
        about=about,
        seed=seed,
    )
    if not filled.all() and calibrator.record is not None:  # nothing was returned for these: nothing is accepted
        gone = known.take(~filled).wanted
        record = calibrator.record
        before = np.zeros(record.queries, np.int64) if record.missing is None else record.missing
        record = replace(
            record,
            answered=np.concatenate([record.answered, gone > 0]),
            missing=np.concatenate([before, gone]),
        )
        calibrator = replace(calibrator, record=record)
        calibrator = replace(calibrator, threshold=calibrator.decide().threshold)
    missing = 0 if known.missing is None else int(known.missing.sum())
    facts = {
        "data": scores.name,
        "columns": names,
        "queries": len(known.queries),
        "rows": len(known),
        "right": int((known.truth == 1).sum()),
        "right_on_no_list": missing,
        "notes": notes,
    }
    model = ScoreModel(
        combination, calibrator, Fingerprint.of(known), floor, facts, kept_lists(known.only(*names), seed=seed)
    )
    assert calibrator.record is not None
    record = replace(calibrator.record, signs=model.signs(listed))  # as those of later queries will be
    return replace(model, calibrator=replace(calibrator, record=record))


def ranks_of(scores: Scores, z: Floats) -> Ranks:
    """Rank the right answers by logit among all candidates on the list; those on none come `NEVER`."""
    rows, right = scores.rows, scores.truth == 1
    order = np.lexsort([-z, rows])
    rank = np.empty(len(z), np.int64)
    rank[order] = np.arange(len(z)) - scores.starts[rows[order]] + 1
    queries, ranks = rows[right], rank[right]
    if scores.missing is not None:
        queries = np.concatenate([queries, np.repeat(np.arange(len(scores.missing)), scores.missing)])
        ranks = np.concatenate([ranks, np.full(int(scores.missing.sum()), NEVER)])
    by_query = np.argsort(queries, kind="stable")
    return Ranks(queries[by_query], ranks[by_query], len(scores.queries))


def _rectangle(starts: Ints) -> tuple[Ints, Bools]:
    """Rows side by side, see `padded`.

    Raises:
        DataError: so few lists are so long that they cannot stand side by side.
    """
    lengths = np.diff(starts)
    cells = len(lengths) * int(lengths.max(initial=1))
    if cells > max(8 * int(lengths.sum()), 2**26):
        raise DataError(
            f"The longest list holds {int(lengths.max()):,} candidates, the mean one {lengths.mean():.0f}: cut long "
            "lists to the best of each query."
        )
    return padded(starts, LEAST)


def _matrix(scores: Scores, z: Floats, floor: float) -> tuple[Floats, Bools, Floats]:
    """(n, w) logits, truth and weights of the lists, for `fit_calibrator`; unjudged pairs take part in nothing."""
    truth = scores.truth
    if int(scores.lengths.max()) <= WIDEST:
        index, there = padded(scores.starts, LEAST)
        told = there if (truth >= 0).all() else there & (truth[index] >= 0)
        logits = z[index]
        if not told.all():
            logits = np.where(told, logits, floor)
        right: Bools = told & (truth[index] == 1)
        return logits, right, told.astype(np.float64)
    n = len(scores.queries)
    width = min(int(scores.lengths.max()), WIDEST) + int(np.bincount(scores.rows[truth == 1]).max(initial=0)) + POOLS
    logits, right, weights = np.full((n, width), floor), np.zeros((n, width), bool), np.zeros((n, width))
    for query, (start, stop) in enumerate(zip(scores.starts[:-1], scores.starts[1:], strict=True)):
        rows = np.arange(start, stop)[truth[start:stop] >= 0]
        rows = rows[np.argsort(-z[rows], kind="stable")]
        alone = (np.arange(len(rows)) < WIDEST) | (truth[rows] == 1)
        kept, rest = rows[alone], rows[~alone]
        logits[query, : len(kept)], right[query, : len(kept)] = z[kept], truth[kept] == 1
        weights[query, : len(kept)] = 1.0
        for place, part in enumerate(np.array_split(rest, POOLS) if len(rest) else ()):
            if len(part):
                logits[query, len(kept) + place] = z[part].mean()
                weights[query, len(kept) + place] = len(part)
    return logits, right, weights
