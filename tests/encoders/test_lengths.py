"""Texts of similar length are encoded together: the same vectors and gradients from fewer tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel

from sigmax.encoders import lengths
from sigmax.encoders.lengths import by_length, runs_of

falling = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda drawn: sorted(drawn, reverse=True))


class Bert(nn.Module):
    """A small transformer with mean pooling, which counts the tokens that it was given."""

    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
        self.bert, self.shapes = BertModel(config).eval(), []

    def forward(self, features):
        self.shapes.append(tuple(features["input_ids"].shape))
        assert features["modality"] == "text"
        mask = features["attention_mask"]
        tokens = self.bert(features["input_ids"], attention_mask=mask).last_hidden_state * mask[..., None]
        return {"sentence_embedding": tokens.sum(1) / mask.sum(1, keepdim=True) + features["shift"]}

    @property
    def tokens(self):
        return sum(rows * columns for rows, columns in self.shapes)


def padded(counts, left=False):
    width = max(counts)
    ids = torch.randint(1, 50, (len(counts), width))
    mask = (torch.arange(width) < torch.tensor(counts)[:, None]).long()
    mask = mask.flip(1) if left else mask
    shift = torch.arange(float(len(counts)))[:, None]  # a row's own, of no length
    return {"input_ids": ids * mask, "attention_mask": mask, "shift": shift, "modality": "text"}


@pytest.fixture
def cheap(monkeypatch):
    """A pass that costs next to nothing, so that small batches are cut."""
    monkeypatch.setitem(lengths.PASS, "cpu", 2)


# -- cuts ----------------------------------------------------------------------------------------


def tokens_of(counts, runs):
    return sum((run.stop - run.start) * counts[run.start] for run in runs)


@given(falling, st.integers(0, 100), st.sampled_from([1, 30, 500, 2**62]))
def test_runs(counts, cost, most):
    """They follow each other and leave none out; no cut costs more than it saves, but where a run has to be short."""
    runs = runs_of(counts, cost, most)
    assert [place for run in runs for place in range(run.start, run.stop)] == list(range(len(counts)))
    if most >= 2**62:
        assert tokens_of(counts, runs) + cost * (len(runs) - 1) <= tokens_of(counts, [slice(0, len(counts))])
    for run in runs:
        size = run.stop - run.start
        assert size == 1 or size * counts[run.start] <= most
        # No further cut would save more than it costs.
        for cut in range(run.start + 1, run.stop):
            assert (run.stop - cut) * (counts[run.start] - counts[cut]) <= cost


def test_equal_lengths_are_one_run():
    assert runs_of([7] * 100, 0, 2**62) == [slice(0, 100)]


# -- vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[3, 9, 1, 9, 2, 2, 30], [5], [4, 4, 4], [1, 40] * 6])
def test_the_same_vectors_and_gradients(counts, cheap):
    """Within what sums in another order may differ: float64 leaves a dozen digits."""
    encoder, features = Bert().double(), padded(counts)
    with torch.no_grad():
        whole = encoder(features)["sentence_embedding"]
    encoder.shapes.clear()
    found = by_length(encoder, features)
    torch.testing.assert_close(found.detach(), whole, rtol=1e-11, atol=1e-11)
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    gradients = []
    for vectors in (found, encoder(features)["sentence_embedding"]):
        encoder.zero_grad()
        (vectors * weights).sum().backward()
        gradients.append([one.grad.clone() for one in encoder.parameters() if one.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_fewer_tokens(cheap):
    """A guard that counts: of lengths 1 to 40, less than a third are padding where half were."""
    counts = np.random.default_rng(0).permutation(np.arange(1, 41)).tolist()
    encoder = Bert()
    with torch.no_grad():
        by_length(encoder, padded(counts))
    assert sum(counts) <= encoder.tokens <= 1.1 * sum(counts) < 0.6 * 40 * 40


def test_a_small_batch_is_one_pass():
    """Where a pass costs what it does, sixteen short texts are not worth a second."""
    encoder = Bert()
    with torch.no_grad():
        by_length(encoder, padded([8, 12, 17, 9] * 4))
    assert encoder.shapes == [(16, 17)]


def test_padded_in_front_as_it_is(cheap):
    """Positions count from the front: such rows cannot be cut at their ends."""
    encoder, features = Bert(), padded([1, 9, 3, 9], left=True)
    with torch.no_grad():
        by_length(encoder, features)
    assert encoder.shapes == [(4, 9)]


def test_without_gradient_few_at_a_time(monkeypatch):
    """What bounds the memory; with gradient all activations are kept anyway."""
    monkeypatch.setattr(lengths, "MOST", 40)
    encoder, features = Bert(), padded([10] * 9 + [50])
    with torch.no_grad():
        by_length(encoder, features)
    assert encoder.shapes == [(1, 50), (4, 10), (4, 10), (1, 10)]


def test_other_features_as_they_are():
    bag = {"input_ids": torch.arange(4), "offsets": torch.tensor([0, 2])}
    seen = []

    class Encoder(nn.Module):
        def forward(self, features):
            seen.append(features)
            return {"sentence_embedding": torch.zeros(2, 1)}

    by_length(Encoder(), bag)
    assert seen == [bag]
    assert seen[0] is not bag  # an encoder adds to what it is given
