"""MatchEvaluator: ranking, presence and none-of-these while sentence-transformers trains."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.evaluation import BaseEvaluator

from sentence_transformers import SentenceTransformer
from sigmax.calibration.any_right import folds_of
from sigmax.calibration.calibrator import Calibrator, fit_calibrator
from sigmax.errors import DataError, lookup, nearest
from sigmax.evaluation import evaluate_logits
from sigmax.metrics.registry import METRICS
from sigmax.scan import SplitLogits
from sigmax.sentence_transformers.losses import SentenceMatchLoss

__all__ = ["MatchEvaluator"]

Relevant = Mapping[str, Iterable[str] | Mapping[str, float]]


def _right_ids(query: str, names: Iterable[str] | Mapping[str, float]) -> list[str]:
    """The right candidates of a query: all that are named, or of scores (as in BEIR's qrels) those above 0."""
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise DataError(
            f"Expected `relevant` to give a list of candidate ids, or id -> score, for query {query!r}, got {names!r}."
        )
    if not isinstance(names, Mapping):
        return list(names)
    for name, score in names.items():
        if not isinstance(score, int | float | np.number) or not np.isfinite(score):
            raise DataError(f"Expected a number for candidate {name!r} of query {query!r}, got {score!r}.")
    return [name for name, score in names.items() if score > 0]


class MatchEvaluator(BaseEvaluator):
    """Measure ranking, presence and none-of-these over all candidates, calibrated on held-out queries.

    Queries without a right answer are kept, unlike in InformationRetrievalEvaluator: *none of these* is measured on
    them. Metrics are those of `sigmax.evaluate`, named in `sigmax.metrics.METRICS`; those that the data
    cannot give are left out. Logits are the cosines of the model, or with `loss` its scale and bias applied to them.

    Args:
        queries: id -> text.
        candidates: id -> text.
        relevant: query id -> ids of the right candidates, or as in BEIR id -> score, of which those above 0 are right;
            none, or no entry, for a query without a right answer.
        dev: (queries, relevant) to calibrate on. If None, half of the queries calibrate and the others measure, the
            same ones in every run.
        loss: the loss in training, for its scale and bias; ranking does not depend on it.
        name: prefix of the metric names.
        primary: the metric that chooses the best checkpoint.
        batch_size: texts per encoding batch.
        write_csv: append each evaluation to match_evaluation_NAME_results.csv.

    Raises:
        DataError: a right candidate that is not among `candidates`, or a part of the queries without a right answer.
        ValueError: an unknown `primary`.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        candidates: Mapping[str, str],
        relevant: Relevant,
        *,
        dev: tuple[Mapping[str, str], Relevant] | None = None,
        loss: SentenceMatchLoss | None = None,
        name: str = "",
        primary: str = "map",
        batch_size: int = 32,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        lookup(METRICS, primary, "primary")
        self.candidate_ids = list(candidates)
        self.candidates = list(candidates.values())
        self.queries, self.right = self._read(queries, relevant)
        if dev is None:
            first = folds_of(len(self.queries), 2, 0) == 0
            self.dev_queries, self.dev_right = list(compress(self.queries, first)), self.right[first]
            self.queries, self.right = list(compress(self.queries, ~first)), self.right[~first]
        else:
            self.dev_queries, self.dev_right = self._read(*dev)
        for what, right in (("calibrate on", self.dev_right), ("measure", self.right)):
            if not right.any():
                raise DataError(
                    f"Expected a right answer among the {len(right)} queries to {what}, got none. Give more queries, "
                    "or `dev` with queries of its own."
                )
        self.loss = loss
        self.name = name
        self.primary_metric = primary
        self.greater_is_better = METRICS[primary].better != "lower"
        self.batch_size = batch_size
        self.write_csv = write_csv
        self.csv_file = f"match_evaluation{'_' * bool(name)}{name}_results.csv"
        self.calibrator: Calibrator | None = None  #: of the last evaluation

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics, calibrated anew.

        Raises:
            ValueError: vectors that are not finite.
        """
        offered = self._vectors(model, self.candidates, "document")
        dev_logits, logits = (
            self._logits(self._vectors(model, texts, "query"), offered) for texts in (self.dev_queries, self.queries)
        )
        self.calibrator = fit_calibrator(dev_logits, self.dev_right, self.candidate_ids)
        split = SplitLogits(logits, self.right, self.candidate_ids)
        measured = evaluate_logits(split, calibrator=self.calibrator, draws=0)
        metrics = {name: measured[name].value for name in measured.draws}
        if output_path is not None and self.write_csv:
            self._write(Path(output_path, self.csv_file), {"epoch": epoch, "steps": steps, **metrics})
        named: dict[str, float] = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, named, epoch, steps)
        return named

    def get_config_dict(self) -> dict[str, Any]:
        """Return the sizes, for the model card."""
        sizes = {"queries": self.queries, "candidates": self.candidates, "calibrated_on": self.dev_queries}
        return {name: len(texts) for name, texts in sizes.items()}

    def _read(self, queries: Mapping[str, str], relevant: Relevant) -> tuple[list[str], NDArray[np.bool_]]:
        """Texts, and (n, m) which candidates are right."""
        place = {name: j for j, name in enumerate(self.candidate_ids)}
        row = {name: i for i, name in enumerate(queries)}
        right = np.zeros((len(queries), len(place)), bool)
        for key, names in relevant.items():
            if key not in row:
                raise DataError(f"Expected `relevant` to name queries, got {key!r}.{nearest(key, row)}")
            for name in _right_ids(key, names):
                if name not in place:
                    raise DataError(
                        f"Expected `relevant` to name candidates, got {name!r} for query {key!r}.{nearest(name, place)}"
                    )
                right[row[key], place[name]] = True
        return list(queries.values()), right

    def _vectors(self, model: SentenceTransformer, texts: list[str], side: str) -> torch.Tensor:
        encode = model.encode_query if side == "query" else model.encode_document
        vectors: torch.Tensor = encode(
            texts, batch_size=self.batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return vectors.float()

    @torch.no_grad()
    def _logits(self, queries: torch.Tensor, candidates: torch.Tensor) -> NDArray[np.float32]:
        if self.loss is not None:
            device = self.loss.match_loss.log_scale.device
            logits = self.loss.match_loss.logits(queries.to(device), candidates.to(device))
        else:
            logits = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(candidates).T
        found: NDArray[np.float32] = logits.cpu().numpy()
        return found

    @staticmethod
    def _write(path: Path, row: dict[str, float]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
