"""Calibrated scores that serve: lists of scored candidates come, presences go."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from sigmax.calibration.rules import CONFIDENCE, Decision
from sigmax.errors import nearest
from sigmax.model.matches import answer
from sigmax.scores.folder import FILE
from sigmax.scores.model import ScoreModel
from sigmax.scores.table import Scores
from sigmax.server.metrics import Metrics
from sigmax.server.served import KEPT_DECISIONS, MAX_ACCEPTED
from sigmax.server.window import Window
from sigmax.watch.drift import sign_of

__all__ = ["ServedScores"]

log = logging.getLogger("sigmax.server")


class ServedScores:
    """A folder of calibrated scores under a name; when it changes, the new one takes over.

    Raises:
        DataError: no such folder, or a damaged one.
    """

    def __init__(self, name: str, folder: Path, *, metrics: Metrics) -> None:
        self.name, self.folder, self.metrics = name, folder, metrics
        self.window = Window(name, metrics)
        self.error: str | None = None
        self._seen = _signature(folder)
        self._load()

    def _load(self) -> None:
        self.model = ScoreModel.load(self.folder)
        self.since = datetime.datetime.now(tz=datetime.timezone.utc)
        self.decide = lru_cache(KEPT_DECISIONS)(self._decide)
        self.window.compare_with(self.model.calibrator)

    def _decide(self, rule: str, confidence: float = CONFIDENCE) -> Decision:
        return self.model.decide(rule, confidence=confidence)

    @property
    def columns(self) -> list[str]:
        """Names of the scores that each candidate needs."""
        return [column.name for column in self.model.combination.columns]

    async def watch(self, every: float = 1.0) -> None:
        """Load the folder again when it has changed."""
        while True:
            await asyncio.sleep(every)
            now = _signature(self.folder)
            if not now or now == self._seen:
                continue
            self._seen = now
            try:
                await asyncio.to_thread(self._load)
                self.error = None
                self.metrics.reloads.labels(self.name, "loaded").inc()
            except Exception as error:
                self.error = f"The newer scores could not be loaded: {str(error).replace(str(self.folder), self.name)}"
                self.metrics.reloads.labels(self.name, "failed").inc()
                log.error("%s: %s The old ones go on.", self.name, self.error)

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
        columns = self.columns
        decision = self.decide(rule, confidence)
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
        threshold = self.model.calibrator.default_threshold
        found = []
        for (query, _), one in zip(lists, self.model.rate(scores), strict=True):
            self.window.add(*sign_of(one, threshold))
            found.append(one.matches(query, top_k, decision, most_accepted=MAX_ACCEPTED))
        return answer(found)


def _signature(folder: Path) -> tuple[int, int, int] | None:
    try:
        found = (folder / FILE).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
