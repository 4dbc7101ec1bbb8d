"""How often do promises over top-k lists hold? Dev tables are drawn from a world whose truth is known.

Two scorers see parts of the truth; a query's list is the union of both top 8 of 20 candidates, so that candidates are
missing in a column, and some right answers are on no list. Each dev table is calibrated (`platt`, to save time), and
each promise is checked on 20,000 queries of the same world. A promise of confidence 0.9 may be broken by one draw in
ten.

Usage: python benchmarks/scores_promises.py [--draws 1000] [--queries 300] [--seconds 80]
Draws are kept as they come, so that a run of limited time is continued by the next.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np

from sigmax.scores import Scores, calibrate_scores
from sigmax.watch.verify import at_threshold

RESULTS = Path(__file__).parent / "results"
LEVELS = {"precision": 0.7, "recall": 0.6, "contains": 0.6, "false-claims": 0.3}
CANDIDATES, TOP = 20, 8


def draw(n: int, seed: object) -> Scores:
    """Lists of n queries."""
    random = np.random.default_rng(seed)
    right = random.random((n, CANDIDATES)) < 0.06
    level = 0.7 * random.normal(size=(n, 1))
    columns = {}
    for name in ("one", "two"):
        seen = 2.2 * right * random.gamma(2, 0.8, right.shape) + random.normal(size=right.shape) + level
        last = -np.partition(-seen, TOP - 1, axis=1)[:, TOP - 1 : TOP]
        columns[name] = np.where(seen >= last, seen, np.nan).ravel()
    queries = np.repeat([f"q{i}" for i in range(n)], CANDIDATES)
    candidates = np.tile([f"c{j}" for j in range(CANDIDATES)], n)
    keep = right.ravel() | ~np.isnan(np.stack(list(columns.values()))).all(0)
    return Scores.of(
        queries[keep], candidates[keep], {name: one[keep] for name, one in columns.items()}, right.ravel()[keep]
    )


def main() -> None:
    """Draw, count, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1e9)
    given = parser.parse_args()
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    path = RESULTS / f"{date}-scores-promises.json"
    kept = json.loads(path.read_text()) if path.exists() else {"queries": given.queries, "draws": 0, "rules": {}}
    made: Counter[str] = Counter({name: row["made"] for name, row in kept["rules"].items()})
    broken: Counter[str] = Counter({name: row["broken"] for name, row in kept["rules"].items()})
    population = draw(20_000, 2**31)
    end = time.monotonic() + given.seconds
    while kept["draws"] < given.draws and time.monotonic() < end:
        model = calibrate_scores(draw(given.queries, [kept["draws"], given.queries]), method="platt")
        curve = model.record(population).curve
        for name, level in LEVELS.items():
            decision = model.decide(f"{name}={level}")
            if not decision.promised:
                continue
            total, n = decision.choice.rule.loss(at_threshold(curve, decision.threshold))
            made[f"{name}={level}"] += 1
            broken[f"{name}={level}"] += bool(n[0] and total[0] / n[0] > decision.choice.rule.allowed(level))
        kept["draws"] += 1
        if kept["draws"] % 25 == 0 or kept["draws"] == given.draws:
            write(path, kept, made, broken)
    write(path, kept, made, broken)
    print(kept["draws"], kept["rules"])


def write(path: Path, kept: dict, made: Counter[str], broken: Counter[str]) -> None:
    """Keep what there is."""
    kept["rules"] = {f"{n}={v}": {"made": made[f"{n}={v}"], "broken": broken[f"{n}={v}"]} for n, v in LEVELS.items()}
    path.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
