"""What does the share add to the logit in a presence? Log loss and F1 on test, from the same logits, both ways.

Where test has another part of queries without a right answer than dev, presences are off for that alone: the share of a
query's best candidate is high whether it is right or not. Columns named *_at_dev_rate weigh these queries so that they
are as many as in dev.

Usage: SIGMAX_DATA=… python benchmarks/presence.py [--data clinc150 nlupp …] [--logits FOLDER]

Each model is trained once; FOLDER keeps logits, so that a second run only calibrates.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

import sigmax
from sigmax.calibration import Pairs, fit_calibration, fit_platt
from sigmax.calibration.pairs import row_totals

RESULTS = Path(__file__).parent / "results"
DATA = ("clinc150", "nlupp", "goemotions", "emoji", "emoji-hidden", "selqa", "truthfulqa", "digits")
LOSSES = ("sigmoid", "softmax-decoupled")
#: Queries of each split of goemotions, at most.
MOST = {"train": 12_000, "dev": 2_000, "test": 3_000}


def logits_of(name: str, encoder: str, loss: str, root: Path, folder: Path) -> dict[str, np.ndarray]:
    """Logits and right pairs of dev and test, of a model that was trained before, or is now."""
    file = folder / f"{name}-{encoder}-{loss}.npz"
    if not file.exists():
        data = sigmax.load_data(name if name in ("emoji", "emoji-hidden", "digits") else str(root / "data" / name))
        if name == "goemotions":
            random = np.random.default_rng(0)
            kept = {part: np.sort(random.permutation(rows)[: MOST[part]]) for part, rows in data.splits.items()}
            data = replace(data, splits=kept)
        path = str(root / "models" / "potion-base-4m-int8") if encoder == "static" else None
        model = sigmax.train(data, sigmax.Settings(loss=loss, encoder=path), calibrated=False, tell=False)
        arrays: dict[str, Any] = {"m": len(data.candidates)}
        for part in ("dev", "test"):
            rows = data.split(part)
            right = data.graph[rows].tocoo()
            arrays[f"{part}_logits"] = model.logits([data.queries[i] for i in rows], data.candidates).values
            arrays[f"{part}_r"], arrays[f"{part}_c"] = right.row, right.col
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)
    return dict(np.load(file))


def measure(odds: np.ndarray, right: np.ndarray, dev_odds: np.ndarray, dev_right: np.ndarray) -> dict[str, float]:
    """Log loss per query, micro-F1 at the threshold that is best on dev, slope, expected ratio."""
    none, dev_none = 1 - right.any(1).mean(), 1 - dev_right.any(1).mean()
    weights = np.where(right.any(1), (1 - dev_none) / (1 - none), dev_none / none if none else 0.0)
    losses = (np.logaddexp(0, odds) - right * odds).sum(1)
    order = np.argsort(-dev_odds.ravel())
    hits = np.cumsum(dev_right.ravel()[order])
    best = (2 * hits / (np.arange(1, len(hits) + 1) + dev_right.sum())).argmax()
    accepted = odds >= dev_odds.ravel()[order][best]
    presence, top = expit(odds), odds.argmax(1)
    rows = np.arange(len(odds))
    return {
        "log_loss": float(losses.mean()),
        "log_loss_at_dev_rate": float(losses @ weights / weights.sum()),
        "expected_ratio_at_dev_rate": float(expit(odds).sum(1) @ weights / (right.sum(1) @ weights)),
        "micro_f1": float(2 * (accepted & right).sum() / (accepted.sum() + right.sum())),
        "slope": fit_platt(np.clip(odds, -30, 30).ravel(), right.ravel()).scale,
        "expected_ratio": float(presence.sum() / right.sum()),
        "best_candidate_error": float(abs(presence[rows, top].mean() - right[rows, top].mean())),
    }


def main() -> None:
    """Train or read, calibrate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--losses", nargs="+", default=list(LOSSES))
    parser.add_argument("--logits", type=Path, default=Path("runs/presence"))
    given = parser.parse_args()
    root = os.environ.get("SIGMAX_DATA")
    if not root:
        sys.exit("Set SIGMAX_DATA to the folder that holds data/ and models/; see benchmarks/README.md.")
    rows = []
    for name in given.data:
        encoder = {"selqa": "static", "truthfulqa": "static", "digits": "images"}.get(name, "ngrams")
        for loss in given.losses:
            arrays = logits_of(name, encoder, loss, Path(root), given.logits)
            logits = {part: arrays[f"{part}_logits"].astype(np.float64) for part in ("dev", "test")}
            right = {part: np.zeros(logits[part].shape, bool) for part in logits}
            for part, truth in right.items():
                truth[arrays[f"{part}_r"], arrays[f"{part}_c"]] = True
            pairs = Pairs.of(logits["dev"], right["dev"], most=1_000_000)
            for views in ("logit", "logit and share"):
                seen = pairs if views != "logit" else replace(pairs, share_odds=np.zeros(len(pairs)))
                start = time.perf_counter()
                fitted = fit_calibration(seen)
                seconds = time.perf_counter() - start
                odds = {p: fitted.calibration.log_odds(s, None, row_totals(s)) for p, s in logits.items()}
                row = {"data": name, "encoder": encoder, "loss": loss, "views": views, "method": fitted.method}
                row |= {"competition": fitted.calibration.competition, "seconds": seconds}
                rows.append(row | measure(odds["test"], right["test"], odds["dev"], right["dev"]))
                print(*(f"{x:.4f}" if isinstance(x, float) else x for x in rows[-1].values()), sep="\t", flush=True)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    about = {"date": date, "machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**about, "shared_machine": True, "rows": rows}, indent=1)
    (RESULTS / f"{date}-presence.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
