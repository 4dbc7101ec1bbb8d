"""Calibrated scores that serve: lists of scored candidates come, presences go."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from sigmax.calibration.rules import Decision
from sigmax.errors import nearest
from sigmax.model.matches import answer
from sigmax.scores.folder import FILE
from sigmax.scores.model import ScoreModel
from sigmax.scores.table import Scores
from sigmax.server.metrics import Metrics
from sigmax.server.served import KEPT_DECISIONS, MAX_ACCEPTED
from sigmax.server.watched import Watched
from sigmax.server.window import Window
from sigmax.watch.drift import sign_of

__all__ = ["ServedScores"]


@dataclass(frozen=True)
class _Loaded:
    """Calibrated scores in memory; decisions are made once for each rule that is asked for."""

    model: ScoreModel
    since: datetime.datetime
    decide: Callable[[str, float], Decision]


class ServedScores(Watched):
    """A folder of calibrated scores under a name; when it changes, the new one takes over.

    Raises:
        DataError: no such folder, or a damaged one.
    """

    kind = "calibration of scores"
    loaded: _Loaded

    def __init__(self, name: str, folder: Path, *, metrics: Metrics) -> None:
        self.window = Window(name, metrics)
        super().__init__(name, folder, metrics=metrics)

    def _signature(self) -> tuple[int, ...]:
        try:
            found = (self.folder / FILE).stat()
        except OSError:
            return ()
        return found.st_size, found.st_mtime_ns, found.st_ino

    def _load(self) -> _Loaded:
        model = ScoreModel.load(self.folder)
        decide = lru_cache(KEPT_DECISIONS)(lambda rule, confidence: model.decide(rule, confidence=confidence))
        return _Loaded(model, datetime.datetime.now(tz=datetime.timezone.utc), decide)

    def _take_over(self, loaded: _Loaded) -> None:
        self.loaded = loaded
        self.window.compare_with(loaded.model.calibrator)

    @property
    def since(self) -> datetime.datetime:
        """When the scores that answer were loaded."""
        return self.loaded.since

    @property
    def columns(self) -> list[str]:
        """Names of the scores that each candidate needs."""
        return _columns(self.loaded.model)

    def rate(
        self,
        lists: Sequence[tuple[str, Sequence[tuple[str, Mapping[str, float | None]]]]],
        top_k: int,
        rule: str,
        confidence: float,
    ) -> dict[str, Any]:
        """Rate lists of (query, [(candidate, column -> score)]).

        Raises:
            ValueError: scores of other columns, not finite, or none; a rule that cannot be followed.
        """
        loaded = self.loaded  # one and the same for the whole request
        columns = _columns(loaded.model)
        decision = loaded.decide(rule, confidence)
        rows = []
        for query, candidates in lists:
            if not candidates:
                raise ValueError(f"lists: expected at least one candidate of {query!r}, got none.")
            for candidate, given in candidates:
                for name in given:
                    if name not in columns:
                        raise ValueError(
                            f"scores: expected some of {', '.join(columns)}, got {name!r}.{nearest(name, columns)}"
                        )
                row = [np.nan if (value := given.get(name)) is None else value for name in columns]
                if np.isnan(row).all():
                    raise ValueError(f"scores: expected a score of {candidate!r} for {query!r}, got none.")
                rows.append(row)
        lengths = [len(candidates) for _, candidates in lists]
        texts = [candidate for _, candidates in lists for candidate, _ in candidates]
        scores = Scores(
            tuple(columns),
            np.array(rows, np.float64).reshape(-1, len(columns)),
            np.concatenate([[0], np.cumsum(lengths)]),
            pyarrow.array([query for query, _ in lists], pyarrow.string()),
            pyarrow.array(texts, pyarrow.string()),
            name=self.name,
        )
        threshold = loaded.model.calibrator.default_threshold
        found = []
        for (query, _), one in zip(lists, loaded.model.rate(scores), strict=True):
            self.window.add(*sign_of(one, threshold))
            found.append(one.matches(query, top_k, decision, most_accepted=MAX_ACCEPTED))
        return answer(found)


def _columns(model: ScoreModel) -> list[str]:
    return [column.name for column in model.combination.columns]
