"""Dev splits that say little, or something odd: a stated fallback, never a NaN, never a probability outside [0, 1]."""

import numpy as np
import pytest

from sigmax.calibration.calibrator import fit_calibrator
from sigmax.calibration.rules import RULES

_RANDOM = np.random.default_rng(0)
X, Y = _RANDOM.normal(size=(60, 5)), _RANDOM.random((60, 5)) < 0.3
TWO = np.array([[True, False, False, False, False], [False, True, False, False, False]])
FIRST, FOURTH = np.arange(5) == 0, np.arange(5) == 3

CASES = {
    "one candidate, a share of 1 always": (X[:, :1], Y[:, :1]),
    "every query is answered": (X, Y | FIRST),
    "two queries": (X[:2], TWO),
    "one query": (X[:1], TWO[:1]),
    "two equal queries": (np.zeros((2, 5)), TWO),
    "ties everywhere": (np.zeros_like(X), Y),
    "ties within queries": (np.repeat(X[:, :1], 5, axis=1), Y),
    "huge": (X * 1e30, Y),
    "huge, of 32 bits": ((X * 5e37).astype(np.float32), Y),
    "tiny": (X * 1e-30, Y),
    "one that is huge": (np.where(np.arange(300).reshape(60, 5) == 7, 1e12, X), Y),
    "a label absent from dev": (X, Y & ~FOURTH),
    "a label that is always right": (X, Y | FOURTH),
    "logits that can be parted": (np.where(Y, 5.0, -5.0), Y),
}


@pytest.mark.parametrize("case", CASES)
def test_probabilities_and_decisions(case):
    logits, right = CASES[case]
    ids = [f"c{j}" for j in range(logits.shape[1])]
    held_out = 0.5 if len(logits) == 2 else 0.0
    fitted = fit_calibrator(logits, right, ids, held_out=held_out)
    assert fitted.about["reason"]
    for seen in (logits, *(np.full_like(logits, value) for value in (np.inf, -np.inf, 3e38))):
        for found in fitted.read(seen, ids):
            assert ((found >= 0) & (found <= 1)).all()
    for name, rule in RULES.items():
        decision = fitted.decide(f"{name}=0.9" if rule.takes_level else name)
        assert decision.threshold >= 0
        assert decision.promised or decision.reason or not rule.takes_level
