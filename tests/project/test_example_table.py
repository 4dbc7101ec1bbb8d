import importlib.util
import math
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "examples" / "moon_sun_fire.py"


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("moon_sun_fire", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_softmax_learns_the_shares(table):
    trained = table.scaled_softmax()
    expected = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    torch.testing.assert_close(table.shares(trained.logits), expected, rtol=0, atol=0.02)
    assert trained.floor == pytest.approx(2 / 3 * math.log(2))
    assert trained.value == pytest.approx(trained.floor, abs=0.02)


def test_sigmoid_learns_the_presences(table):
    trained = table.scaled_sigmoid()
    expected = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(table.presences(trained.logits), expected, rtol=0, atol=0.02)
    assert trained.floor == 0
    assert trained.value == pytest.approx(0, abs=0.02)


def test_softmax_of_cosines_stays_away_from_its_floor(table):
    # Let a be the mean cosine of the k right answers of m. By Jensen their exponentials add up to at least k·exp(a),
    # the wrong ones to at least (m − k)·exp(−1), and a ≤ 1, so the loss of a question is at least
    # log(k·exp(a) + (m − k)·exp(−1)) − a ≥ log k + log(1 + (m − k)/k · exp(−2)).
    gap = sum(math.log(1 + (3 - k) / k * math.exp(-2)) for k in (2, 1, 2)) / 3
    trained = table.literal_softmax()
    assert gap > 0.12
    assert trained.value - trained.floor >= gap


def test_sigmoid_of_cosines_stays_away_from_its_floor(table):
    # A pair costs at least softplus(−1) ≈ 0.313, right (cosine 1) or wrong (cosine −1); a question has three.
    trained = table.literal_sigmoid()
    assert trained.value >= 3 * math.log(1 + math.exp(-1))
    presences = table.presences(trained.logits)
    assert presences.min() >= 0.268
    assert presences.max() <= 0.732


def test_main(table, capsys):
    table.main()
    printed = capsys.readouterr().out
    assert printed.count("What's hot?") == 4
    assert "What's in the sky?           0.50   0.50   0.00" in printed
    assert "What's hot?                  0.00   1.00   1.00" in printed
    assert "loss 0.46" in printed
    assert "floor 0.462" in printed
