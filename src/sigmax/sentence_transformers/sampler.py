"""MultiPositiveBatchSampler: several right answers of an anchor in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from sigmax.errors import DataError
from sigmax.sentence_transformers.graph import LABELS

__all__ = ["MultiPositiveBatchSampler"]


class MultiPositiveBatchSampler(DefaultBatchSampler):
    """Batches that hold up to four rows of an anchor together, so that a batch teaches what belongs together.

    Pass the class as `batch_sampler` of SentenceTransformerTrainingArguments. Every row comes once an epoch, in an
    order of its own that depends on the seed and the epoch alone; with `drop_last` all batches are full. Rows belong
    together if their first column of texts is equal. It wants a loss that knows several right answers.

    Args:
        dataset: what is trained on.
        batch_size: rows a batch.
        drop_last: leave out a last batch that is not full.
        valid_label_columns: columns that hold no texts.
        generator: of the order; one of its own, from the seed, if None.
        seed: two runs with one seed see the same batches.

    Raises:
        DataError: a data set without a column of texts.
    """

    #: Rows of one anchor that stay together. More would leave fewer anchors, whose answers are each other's negatives.
    together = 4

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        texts = [name for name in dataset.column_names if name not in (valid_label_columns or LABELS)]
        if not texts:
            raise DataError(f"Expected a data set with a column of anchors, got {', '.join(dataset.column_names)}.")
        table = dataset.select_columns([texts[0]]).with_format("arrow")[:]
        anchors = table.column(0).combine_chunks().dictionary_encode().indices
        self.anchors = anchors.to_numpy(zero_copy_only=False)

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        full, rest = divmod(len(self.anchors), self.batch_size)
        return int(full) + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        """Give the rows of each batch."""
        generator = self.generator or torch.Generator()
        generator.manual_seed((self.seed or 0) + self.epoch)
        n = len(self.anchors)
        shuffled = torch.randperm(n, generator=generator).numpy()
        rows = shuffled[np.argsort(self.anchors[shuffled], kind="stable")]  # an anchor's rows side by side, shuffled
        first = np.flatnonzero(np.diff(self.anchors[rows], prepend=-1))
        place = np.arange(n) - np.repeat(first, np.diff(first, append=n))  # of each row among its anchor's
        group = np.cumsum(place % self.together == 0) - 1
        when = torch.randperm(int(group[-1]) + 1 if n else 0, generator=generator).numpy()
        rows = rows[np.argsort(when[group], kind="stable")]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield rows[start : start + self.batch_size].tolist()
