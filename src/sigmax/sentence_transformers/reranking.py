"""RerankLoss for `CrossEncoderTrainer`: a query's documents, right and wrong, to the loss of `sigmax.losses`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from sentence_transformers import CrossEncoder
from sigmax.errors import check_least
from sigmax.losses import MatchLoss, make_loss
from sigmax.positives import Positives

__all__ = ["RerankLoss"]


class RerankLoss(nn.Module):
    r"""Any objective of Sigmax over the documents that stand beside each query.

    With rᵢⱼ the cross-encoder's output for query i and its j-th document, and Pᵢ the right ones among its documents,
    the mean over queries of

    - "sigmoid": Σⱼ softplus(rᵢⱼ) − Σ_{p∈Pᵢ} rᵢₚ, every pair on its own;
    - "softmax-average": logsumexpⱼ(rᵢⱼ) − (1/|Pᵢ|) Σ_{p∈Pᵢ} rᵢₚ; and the others of `sigmax.families.OBJECTIVES`.

    Queries may have documents of different number. One without a right document teaches a sigmoid and no softmax. The
    data set's columns are those of sentence-transformers' ListNetLoss: a query, a list of documents, and a list of
    labels, above 0 where the document is right.

    Args:
        model: the CrossEncoder that is trained, with one output.
        objective: a name in `sigmax.families.OBJECTIVES`.
        mini_batch_size: pairs read at a time, of about the same length.

    Raises:
        UnknownNameError: no such objective.
        ValueError: a model with several outputs, or `mini_batch_size` below 1.
    """

    def __init__(self, model: CrossEncoder, objective: str = "softmax-decoupled", *, mini_batch_size: int = 32) -> None:
        super().__init__()
        check_least(1, mini_batch_size=mini_batch_size)
        if model.num_labels != 1:
            raise ValueError(f"Expected a cross-encoder with one output, got {model.num_labels}.")
        self.model = model
        self.match_loss: MatchLoss = make_loss(objective, logit_scale=1.0, logit_bias=0.0).requires_grad_(False)
        self.mini_batch_size = mini_batch_size

    def forward(self, inputs: Sequence[Sequence[Any]], labels: Sequence[Tensor], **given: Any) -> Tensor:
        """Queries, the documents of each, and their labels -> () the loss.

        Raises:
            ValueError: other columns, or a query with more documents than labels, or fewer.
        """
        if len(inputs) != 2 or isinstance(labels, Tensor):
            raise ValueError("Expected columns of queries, of lists of documents, and of lists of labels.")
        queries, documents = inputs
        counts = [len(listed) for listed in documents]
        if counts != [len(listed) for listed in labels]:
            raise ValueError(f"Expected a label for each document, got {list(map(len, labels))} for {counts}.")
        pairs = [(query, document) for query, listed in zip(queries, documents, strict=True) for document in listed]
        rows = torch.arange(len(queries)).repeat_interleave(torch.tensor(counts))
        columns = torch.cat([torch.arange(count) for count in counts])
        read = self.read(pairs, **given)
        logits = read.new_full((len(queries), max(counts)), -torch.inf)  # a place without a document takes part nowhere
        logits = logits.index_put((rows.to(read.device), columns.to(read.device)), read)
        right = torch.cat([listed.cpu() > 0 for listed in labels])
        return self.match_loss.from_logits(logits, Positives(rows[right], columns[right], (len(queries), max(counts))))

    def read(self, pairs: Sequence[tuple[str, str]], **given: Any) -> Tensor:
        """(query, document) pairs -> (p,) the cross-encoder's outputs, with gradient."""
        order = sorted(range(len(pairs)), key=lambda place: -sum(map(len, pairs[place])))
        parts = []
        for start in range(0, len(order), self.mini_batch_size):
            part = [pairs[place] for place in order[start : start + self.mini_batch_size]]
            features = batch_to_device(self.model.preprocess(part, **given), self.model.device)
            parts.append(self.model(features)["scores"].reshape(-1).float())
        back = torch.empty(len(order), dtype=torch.int64)
        back[torch.tensor(order)] = torch.arange(len(order))
        read = torch.cat(parts)
        return read[back.to(read.device)]

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        return {"objective": self.match_loss.objective.name, "mini_batch_size": self.mini_batch_size}
