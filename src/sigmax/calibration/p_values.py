"""P-values of an average loss, and how many queries the smallest of them takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy

from sigmax.arrays import Floats

__all__ = ["fewest", "kl", "p_values", "queries_needed"]


def p_values(total: Floats, n: Floats, allowed: float, *, exact: bool) -> Floats:
    """P-values of E ℓ ≥ allowed, from Σ ℓ over n queries; see the module's head. 1 where n is 0."""
    least = np.ceil(total - 1e-9)  # sums of shares are rounded
    binomial: Floats = scipy.special.bdtr(np.minimum(least, n), n.astype(np.int64), allowed)
    if exact:
        return np.where(n > 0, binomial, 1.0)
    mean = np.minimum(total / np.maximum(n, 1), allowed)
    hoeffding = np.exp(-n * kl(mean, allowed))
    return np.where(n > 0, np.minimum(hoeffding, np.minimum(np.e * binomial, 1.0)), 1.0)


def kl(mean: Any, allowed: float) -> Any:
    """Mean · log(mean / allowed) + (1 − mean) · log((1 − mean) / (1 − allowed))."""
    return scipy.special.rel_entr(mean, allowed) + scipy.special.rel_entr(1 - mean, 1 - allowed)


def fewest(delta: float, rate: float) -> int:
    """Return the least n with exp(−n · rate) ≤ δ."""
    return max(1, math.ceil(-math.log(delta) / rate - 1e-9))


def queries_needed(total: Floats, n: Floats, allowed: float, delta: float, available: int) -> int | None:
    """About how many queries are enough if errors stay as frequent as now, at the threshold that suits best."""
    mean = (total + 0.5) / (n + 1)  # few queries without an error prove little
    hopeful = mean < allowed - 1e-9
    if not hopeful.any():
        return None
    enough = -np.log(delta / np.e) / kl(mean[hopeful], allowed)
    return max(math.ceil(float((enough / n[hopeful]).min() * available)), available + 1)
