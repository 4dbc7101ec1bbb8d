"""RerankLoss: the losses of Sigmax over documents of different number."""

import pytest
import torch

from helpers import oracles
from helpers.readers import save_reader
from sentence_transformers import CrossEncoder
from sigmax.families import OBJECTIVES
from sigmax.sentence_transformers import RerankLoss

QUERIES = ["a b", "c", "b c d"]
DOCUMENTS = [["a", "b c", "d d d a"], ["c"], ["a b", "d"]]
LABELS = [[1, 0, 1], [1], [0, 1]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return CrossEncoder(save_reader(tmp_path_factory.mktemp("reader"), list("abcd")), device="cpu")


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("mini_batch_size", [1, 2, 32])
def test_the_loss_is_the_mean_over_queries(encoder, objective, mini_batch_size):
    encoder.eval()
    loss = RerankLoss(encoder, objective, mini_batch_size=mini_batch_size)
    value = loss((QUERIES, DOCUMENTS), [torch.tensor(row) for row in LABELS])
    rows = []
    for query, documents, labels in zip(QUERIES, DOCUMENTS, LABELS, strict=True):
        logits = encoder.predict([(query, one) for one in documents], activation_fn=torch.nn.Identity())
        right = {j for j, one in enumerate(labels) if one}
        rows.append(oracles.ROW_LOSSES[objective](logits.tolist(), right, set(range(len(labels)))))
    assert value.item() == pytest.approx(sum(rows) / len(rows), rel=1e-4, abs=1e-5)  # batches are padded otherwise
    value.backward()
    assert all(p.grad is not None for name, p in encoder.named_parameters() if "classifier" in name)


def test_what_does_not_fit(encoder, tmp_path):
    loss = RerankLoss(encoder)
    with pytest.raises(ValueError, match="Expected a label for each document"):
        loss((QUERIES, DOCUMENTS), [torch.tensor([1])] * 3)
    with pytest.raises(ValueError, match="Expected columns of queries"):
        loss((QUERIES,), [torch.tensor([1])])
    two = CrossEncoder(save_reader(tmp_path / "two", list("abcd"), outputs=2), device="cpu")
    with pytest.raises(ValueError, match="one output, got 2"):
        RerankLoss(two)
    with pytest.raises(ValueError, match="`mini_batch_size` of at least 1"):
        RerankLoss(encoder, mini_batch_size=0)
