"""Matching on a cluster: a model inside Ray Data, one in each worker; batches in, columns out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmax.calibration.calibrator import DEFAULT_RULE
from sigmax.calibration.rules import CONFIDENCE, parse_rule
from sigmax.errors import DataError, extra

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ADDED", "Matcher", "match"]

#: Columns that each row gets.
ADDED = ("matches", "accepted_count", "any_right", "outcome", "unlike_training")
#: Rows of a batch: what a worker that fails loses, and what is done again elsewhere.
BATCH = 1024


class Matcher:
    """A model that a worker loads once, and then asks about one Arrow table of queries after the other.

    Args:
        source: a model folder that every worker can read, or a model on the Hugging Face hub.
        query: the column that holds queries.
        top_k: candidates per query; of the accepted ones as many are listed.
        rule: see `DualEncoder.match`.
        confidence: see `DualEncoder.match`.
        place: where candidates are, see `sigmax.model.index.load_for_matching`.

    Raises:
        DataError: no such model.
        ValueError: a rule that cannot be read.
    """

    def __init__(
        self,
        source: str,
        *,
        query: str = "query",
        top_k: int = 5,
        rule: str = DEFAULT_RULE,
        confidence: float = CONFIDENCE,
        **place: Any,
    ) -> None:
        from sigmax.model.index import load_for_matching

        self.model = load_for_matching(source, **place)
        self.query = query
        self.how: dict[str, Any] = {"top_k": top_k, "rule": rule, "confidence": confidence}

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Add the columns `ADDED` to a table, row by row in its order.

        `matches` holds, best first, candidate, candidate_id, logit, share, presence and accepted.

        Raises:
            DataError: no such column, or a row without a query.
        """
        import pyarrow

        from sigmax.model.bulk import Asked, match_rows

        if self.query not in batch.column_names:
            raise DataError(f"Expected a column {self.query!r}, got {', '.join(batch.column_names)}. Say which: query=")
        texts = batch.column(self.query).to_pylist()
        empty = next((place for place, text in enumerate(texts) if not text), None)
        if empty is not None:
            raise DataError(f"Expected a query in every row, got {texts[empty]!r} in column {self.query!r}.")
        asked = (Asked(place, None, text) for place, text in enumerate(texts))
        found = [matches for _, matches in match_rows(self.model, asked, **self.how)]
        listed = [[{**one.as_dict(), "accepted": matches.accepts(one)} for one in matches] for matches in found]
        numbers = ("logit", "share", "presence")
        match = pyarrow.struct(
            [("candidate", pyarrow.string()), ("candidate_id", pyarrow.string())]
            + [(name, pyarrow.float64()) for name in numbers]
            + [("accepted", pyarrow.bool_())]
        )
        added = (
            pyarrow.array(listed, pyarrow.list_(match)),
            pyarrow.array([one.accepted_count for one in found], pyarrow.int64()),
            pyarrow.array([one.any for one in found], pyarrow.float64()),
            pyarrow.array([one.outcome for one in found], pyarrow.string()),
            pyarrow.array([one.unlike_training for one in found], pyarrow.bool_()),
        )
        for name, column in zip(ADDED, added, strict=True):
            if name in batch.column_names:
                batch = batch.drop_columns([name])
            batch = batch.append_column(name, column)
        return batch


def match(
    dataset: Any,
    model: str | Path,
    *,
    query: str = "query",
    top_k: int = 5,
    rule: str = DEFAULT_RULE,
    confidence: float = CONFIDENCE,
    workers: int | tuple[int, int] = 1,
    batch_size: int = BATCH,
    place: dict[str, Any] | None = None,
    **resources: Any,
) -> Any:
    """Match every row of a Ray data set, on as many workers as are asked for; the answers are columns beside the rows.

    Nothing is computed before the result is read or written, as always in Ray Data. Each row comes back once: batches
    of a worker or a node that fails are matched again elsewhere.

    Args:
        dataset: a `ray.data.Dataset`.
        model: see `Matcher`.
        query: the column that holds queries.
        top_k: candidates per query.
        rule: what is accepted.
        confidence: of its promise.
        workers: models that are loaded, each with a processor of its own; (least, most) lets Ray decide.
        batch_size: rows that are matched together.
        place: where candidates are: `exact`, `candidates`, `table` and `where` of
            `sigmax.model.index.load_for_matching`.
        resources: of each worker, for `map_batches`, such as num_cpus or num_gpus.

    Raises:
        ImportError: Ray is not installed.
        ValueError: a rule that cannot be read.

    Example:
        >>> import ray, sigmax.ray  # doctest: +SKIP
        >>> rows = ray.data.read_parquet("s3://shop/queries")  # doctest: +SKIP
        >>> sigmax.ray.match(rows, "/shared/runs/products", workers=8)  # doctest: +SKIP
    """
    with extra("ray"):
        from ray.data import ActorPoolStrategy

    parse_rule(rule)
    least, most = (workers, workers) if isinstance(workers, int) else workers
    arguments = {"query": query, "top_k": top_k, "rule": rule, "confidence": confidence, **(place or {})}
    return dataset.map_batches(
        Matcher,
        fn_constructor_args=(str(model),),
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        **resources,
    )
