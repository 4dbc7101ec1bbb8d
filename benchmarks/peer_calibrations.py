"""Do our calibrations agree with independent implementations? Same dev pairs, same test pairs, log loss of both.

Usage: pip install probmetrics betacal
       python benchmarks/peer_calibrations.py [--queries 300 3000]

Dev and test come from the worlds of `promises.py`. Peers see what ours see:

- platt: probmetrics' *affine-scaling* of the logit, without Platt's targets (its *platt-logits* refuses its own input
  in 1.3.0);
- platt, sigmoid: scikit-learn's sigmoid calibration of the logit, with Platt's targets;
- platt, logit and share: the same likelihood written out and left to SciPy's L-BFGS-B;
- beta: probmetrics' *beta* (betacal: a, b and m) of the presences that Platt's curve gives, which ours begins with;
- quadratic: probmetrics' *quadratic-scaling*, a plain quadratic of the logit; ours never falls and is straight at the
  ends, so that it may differ there;
- isotonic: probmetrics' *isotonic* (scikit-learn), steps that may be 0 or 1; ours keeps off both by one right and one
  wrong pair. To have a log loss at all, theirs is kept as far from 0 and 1 as ours.

Tolerances, as a part of the log loss: 1e-5 where the likelihood is the same, 2e-3 where it is but for Platt's targets,
and for quadratic, 1e-2 for isotonic, which are other curves. A miss ends the script with 1.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from helpers.worlds import WORLDS
from sigmax.calibration import CALIBRATIONS, Pairs, fit_platt

RESULTS = Path(__file__).parent / "results"
TOLERANCE = {
    "platt": 2e-3,
    "platt, sigmoid": 1e-5,
    "platt, logit and share": 1e-5,
    "beta": 2e-3,
    "quadratic": 2e-3,
    "isotonic": 1e-2,
}
EDGE = 1e-15

Probabilities = Callable[[np.ndarray, np.ndarray], np.ndarray]


def peer(method: str, probability: np.ndarray, right: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit probmetrics' calibrator of that name on presences."""
    from probmetrics.calibrators import get_calibrator

    found = get_calibrator(method)
    found.fit(np.stack([1 - probability, probability], axis=1), right.astype(int))
    return lambda p: found.predict_proba(np.stack([1 - p, p], axis=1))[:, 1]


def both_views(pairs: Pairs) -> Probabilities:
    """Platt's likelihood in logit and share, both slopes at least 0, by L-BFGS-B."""
    right = pairs.right
    positives, negatives = right.sum(), (~right).sum()
    target = np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.stack([pairs.logits, pairs.share_odds, np.ones(len(pairs))])

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        z = p @ x
        return float((np.logaddexp(0, z) - target * z).sum()), x @ (expit(z) - target)

    bounds, exactly = [(0, None), (0, None), (None, None)], {"ftol": 1e-14, "gtol": 1e-8, "maxiter": 10_000}
    found = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=bounds, options=exactly).x
    return lambda s, r: expit(found[0] * s + found[1] * r + found[2])


def log_loss(p: np.ndarray, right: np.ndarray, queries: int, edge: float = EDGE) -> float:
    """Nats per query."""
    p = np.clip(p, edge, 1 - edge)
    return float(-np.where(right, np.log(p), np.log1p(-p)).sum() / queries)


def compare(world: str, queries: int) -> list[dict[str, object]]:
    """Rows of both log losses, on dev and on test."""
    drawn = {"dev": WORLDS[world].draw(queries, 1), "test": WORLDS[world].draw(10_000, 2)}
    parts = {name: Pairs.of(*one, most=10**9) for name, one in drawn.items()}
    dev = parts["dev"]
    alone = {name: replace(one, share_odds=np.zeros(len(one))) for name, one in parts.items()}
    platt = fit_platt(dev.logits, dev.right)
    affine = peer("affine-scaling", expit(dev.logits), dev.right)
    sigmoid = _SigmoidCalibration().fit(dev.logits, dev.right)
    beta = peer("beta", expit(platt.log_odds(dev.logits)), dev.right)
    quadratic = peer("quadratic-scaling", expit(dev.logits), dev.right)
    steps = peer("isotonic", expit(dev.logits), dev.right)
    theirs: dict[str, Probabilities] = {
        "platt": lambda s, r: affine(expit(s)),
        "platt, sigmoid": lambda s, r: sigmoid.predict(s),
        "platt, logit and share": both_views(dev),
        "beta": lambda s, r: beta(expit(platt.log_odds(s))),
        "quadratic": lambda s, r: quadratic(expit(s)),
        "isotonic": lambda s, r: steps(expit(s)),
    }
    rows = []
    for method, other in theirs.items():
        seen = parts if "share" in method else alone
        entry = CALIBRATIONS["isotonic-logit" if method == "isotonic" else method.partition(",")[0]]
        ours = entry.fit(seen["dev"])
        row: dict[str, object] = {"world": world, "queries": queries, "method": method}
        for name, pairs in seen.items():
            p, q = expit(ours.curve(pairs.logits, pairs.share_odds, None)), other(pairs.logits, pairs.share_odds)
            edge = min(p.min(), 1 - p.max()) if method == "isotonic" else EDGE
            n = len(np.unique(pairs.queries))
            row |= {f"{name}_ours": log_loss(p, pairs.right, n), f"{name}_theirs": log_loss(q, pairs.right, n, edge)}
            row[f"{name}_furthest"] = float(np.abs(p - q).max())
        row["within"] = all(
            abs(row[f"{name}_ours"] / row[f"{name}_theirs"] - 1) <= TOLERANCE[method]  # type: ignore[operator]
            for name in seen
        )
        rows.append(row)
    return rows


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[300, 3000])
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = [row for world in WORLDS for queries in given.queries for row in compare(world, queries)]
    print(*rows[0], sep="\t")
    for row in rows:
        print(*(f"{value:.5f}" if isinstance(value, float) else value for value in row.values()), sep="\t")
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    packages = ("numpy", "scikit-learn", "probmetrics", "betacal")
    about = {"date": date, "machine": platform.machine(), "tolerance": TOLERANCE}
    about |= {name: importlib.metadata.version(name) for name in packages}
    text = json.dumps({**about, "rows": rows}, indent=1)
    (RESULTS / f"{date}-peer-calibrations.json").write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if all(row["within"] for row in rows) else 1)


if __name__ == "__main__":
    main()
