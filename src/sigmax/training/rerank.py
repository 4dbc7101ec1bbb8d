"""Training a second look: a cross-encoder over the candidates that the first stage takes for the best."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from sigmax.arrays import Ints
from sigmax.data.dataset import MatchDataset, row_of
from sigmax.data.normal import normal
from sigmax.errors import DataError
from sigmax.evaluation import quick_metric
from sigmax.families import OBJECTIVES
from sigmax.metrics.ranking import best_first
from sigmax.metrics.registry import watched
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.reranker import Reranker
from sigmax.processes import launched
from sigmax.training.settings import Filled

__all__ = ["check_rerank", "rerank_rows", "train_reranker"]

log = logging.getLogger(__name__)

#: Passes over the training queries; each draws its wrong candidates anew.
EPOCHS = 2
#: Wrong candidates drawn for a query and pass.
WRONG = 7
#: Queries per batch.
BATCH = 8
LEARNING_RATE = 5e-5
#: Pairs whose first logits are held at a time.
PAIRS = 2**24
#: Dev queries that the weights are chosen on, at most.
CHOSEN_ON = 500
#: Weights (first, second) tried on dev, of equal ones the first. With the last but one the first stage orders only what
#: the second look leaves equal, with the last it is the other way round.
WEIGHTS = (
    *((1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.25, 1.0), (1.0, 0.25), (0.125, 1.0), (1.0, 0.125)),
    *((2.0**-10, 1.0), (1.0, 2.0**-10)),
)


def check_rerank(data: MatchDataset, settings: Filled) -> None:
    """Check that a second look can be trained.

    Raises:
        DataError: labels or pictures.
        ValueError: `none_candidate` beside it, or several processes.
    """
    if data.labels or data.pictures:
        raise DataError(
            f"{data.name}: a second look reads two texts together; this data has "
            f"{'pictures' if data.pictures else 'labels'}. Leave out `rerank`."
        )
    if settings.none_candidate:
        raise ValueError(
            "Expected no `none_candidate` beside `rerank`: *none of these* has no text to read. A sigmoid learns from "
            "queries without a right answer."
        )
    if launched() > 1:
        raise ValueError("Expected one process for `rerank`.")


def train_reranker(
    model: DualEncoder,
    data: MatchDataset,
    reranker: Reranker,
    settings: Filled,
    *,
    epochs: int = EPOCHS,
    wrong: int = WRONG,
    report_to: str = "none",
    callback: TrainerCallback | None = None,
) -> None:
    """Train a cross-encoder on the same graph and with the same loss as a model, and give it to the model.

    Each training query is read with up to `settings.answers` right answers and `wrong` candidates that are not right:
    known wrong ones, and of the first stage's best `reranker.depth`. How much both stages count is chosen on dev: the
    first alone, but for ties, is among the choices, so that the second look is never behind it there.

    Args:
        model: the first stage, trained; it is calibrated afterwards.
        data: texts on both sides.
        reranker: what is trained.
        settings: loss, answers, precision, metric and seed.
        epochs: passes over the training queries; 0 leaves the cross-encoder as it is.
        wrong: candidates that are not right, drawn for each query and pass.
        report_to: Trainer's loggers.
        callback: follows the training.

    Raises:
        ValueError: a loss that is not finite.
    """
    rows = list(rerank_rows(model, data, reranker.depth, settings, epochs=epochs, wrong=wrong))
    log.info(
        "Second look: %d pairs of %d queries are trained on, then the %d best candidates of each dev query are read.",
        sum(len(row["docs"]) for row in rows),
        len(rows),
        min(reranker.depth, len(data.candidates)),
    )
    if rows:
        _run_trainer(reranker, rows, settings, report_to, callback)
    reranker.to(model.device).eval()
    _weigh(model, data, reranker, settings.metric)
    model.train()  # forgets vectors that were kept without their texts
    model.reranker = reranker
    model.eval()


def rerank_rows(
    model: DualEncoder, data: MatchDataset, depth: int, settings: Filled, *, epochs: int = EPOCHS, wrong: int = WRONG
) -> Iterator[dict[str, Any]]:
    """Make the rows that `RerankLoss` reads: a query, documents, and 1 for each that is right.

    A query without a right answer is left out where the loss cannot learn from it.
    """
    random = np.random.default_rng(settings.seed)
    near = _nearest(model, data, depth)
    learns = not OBJECTIVES[settings.loss].needs_positive
    train = data.split("train")
    for _ in range(epochs):
        for place in random.permutation(len(train)).tolist():
            i = train[place]
            right = _drawn(row_of(data.graph, i), settings.answers, random)
            pool = np.union1d(near[place][near[place] >= 0], row_of(data.wrong_graph, i))
            against = _drawn(pool, wrong, random)
            if not len(against) or not (len(right) or learns):
                continue
            yield {
                "query": normal(str(data.queries[i])),
                "docs": [normal(data.candidates[j]) for j in (*right, *against)],
                "labels": [1] * len(right) + [0] * len(against),
            }


def _nearest(model: DualEncoder, data: MatchDataset, depth: int) -> Ints:
    """(training queries, k) the first stage's best candidates that are not right, −1 where there are no more."""
    train, m = data.split("train"), len(data.candidates)
    depth = min(depth, m)
    near = np.full((len(train), depth), -1, np.int64)
    queries = [data.queries[i] for i in train]
    for block, found in model.logit_blocks(queries, data.candidates, height=max(1, PAIRS // m)):
        values = found.values
        right = data.graph[train[block]]
        values[right.nonzero()] = -np.inf
        best = best_first(values, depth)
        near[block] = np.where(np.isneginf(np.take_along_axis(values, best, 1)), -1, best)
    return near


def _drawn(values: Ints, most: int, random: np.random.Generator) -> Ints:
    return values if len(values) <= most else random.choice(values, most, replace=False)


def _run_trainer(
    reranker: Reranker, rows: list[dict[str, Any]], settings: Filled, report_to: str, callback: TrainerCallback | None
) -> None:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments

    from sigmax.sentence_transformers.reranking import RerankLoss

    encoder = cast(Any, reranker.encoder)
    disable_progress_bar()
    reranker.train()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = CrossEncoderTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,  # the rows are those of all passes
            learning_rate=LEARNING_RATE,
            warmup_steps=0.1,
            bf16=settings.precision == "bfloat16",
            fp16=settings.precision == "float16",
            seed=settings.seed,
            save_strategy="no",
            logging_steps=max(1, len(rows) // BATCH // 20),
            logging_nan_inf_filter=False,
            report_to=report_to,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        trainer = CrossEncoderTrainer(
            model=encoder,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            loss=RerankLoss(encoder, settings.loss, mini_batch_size=settings.mini_batch_size or 32),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        if callback is not None:
            trainer.add_callback(callback)
        trainer.train()


def _weigh(model: DualEncoder, data: MatchDataset, reranker: Reranker, metric: str) -> None:
    """Choose on dev how much each stage counts."""
    m = len(data.candidates)
    rows = data.split("dev")[: max(1, min(CHOSEN_ON, PAIRS // m))]
    queries = [str(data.queries[i]) for i in rows]
    logits = model.logits(queries, data.candidates).values
    right = data.graph[rows].toarray().astype(bool)
    best, scores = reranker.best(logits, queries, data.candidates)

    def measured(weights: tuple[float, float]) -> float:
        reranker.first, reranker.second = weights
        both: NDArray[np.float32] = logits.copy()
        reranker.combine(both, best, scores)
        return watched()[metric].goodness(quick_metric(metric, both, right))

    values = [measured(weights) for weights in WEIGHTS]
    chosen = max(range(len(WEIGHTS)), key=lambda place: values[place])  # of equal ones the first
    reranker.first, reranker.second = WEIGHTS[chosen]
    log.info(
        "Second look: the first stage counts %g, the cross-encoder %g; dev %s %.3f, of the first stage alone %.3f.",
        *(reranker.first, reranker.second, metric, abs(values[chosen]), abs(values[-1])),
    )
