"""How often do promises hold? Dev splits are drawn from worlds whose truth is known, for every calibration and rule.

A promise of confidence 0.9 may be broken by one dev split in ten. Three ways to record what rules decide by are
compared: presences of the queries that the calibration was fitted on (*fitted*), of queries that it was not (*crossed*,
the default), and of half of the split that chose nothing (*held out*).

Usage: python benchmarks/promises.py [--draws 1000] [--queries 100 300 1000] [--methods …]
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.worlds import LEVELS, WORLDS, World, kept
from sigmax.calibration import CALIBRATIONS, Record, fit_calibrator

RESULTS = Path(__file__).parent / "results"
DELTA = 0.1


def simulate(world: World, method: str, queries: int, draws: int, population: int = 10_000) -> list[dict[str, object]]:
    """Rows of how many of the draws made each promise, and how many of these broke it."""
    logits, right = world.draw(population, 2**31)
    ids = [f"c{j}" for j in range(world.candidates)]
    made: Counter[tuple[str, str]] = Counter()
    broken: Counter[tuple[str, str]] = Counter()
    for draw in range(draws):
        dev, truth = world.draw(queries, [draw, queries])
        crossed = fit_calibrator(dev, truth, ids, method=method, seed=draw)
        held = fit_calibrator(dev, truth, ids, method=method, held_out=0.5, seed=draw)
        fitted = replace(crossed, record=Record.of(crossed.presence(dev, ids), truth))
        presences = {"crossed": crossed.presence(logits, ids), "held out": held.presence(logits, ids)}
        presences["fitted"] = presences["crossed"]
        for way, calibrator in (("fitted", fitted), ("crossed", crossed), ("held out", held)):
            for name, level in LEVELS.items():
                decision = calibrator.decide(f"{name}={level}", confidence=1 - DELTA)
                if decision.promised:
                    made[way, name] += 1
                    broken[way, name] += not kept(decision, presences[way], right)
    return [
        {
            "world": world.name,
            "method": method,
            "queries": queries,
            "way": way,
            "rule": f"{name}={LEVELS[name]}",
            "draws": draws,
            "made": made[way, name],
            "broken": broken[way, name],
        }
        for way in ("fitted", "crossed", "held out")
        for name in LEVELS
    ]


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--methods", nargs="+", default=list(CALIBRATIONS))
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    RESULTS.mkdir(exist_ok=True)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    for world in given.worlds:
        for method in given.methods:
            for queries in given.queries:
                rows += simulate(WORLDS[world], method, queries, given.draws)
                for row in rows[-12:]:
                    print(*row.values(), sep="\t", flush=True)
                about = {"date": date, "machine": platform.machine(), "numpy": np.__version__, "delta": DELTA}
                text = json.dumps({**about, "rows": rows}, indent=1)
                (RESULTS / f"{date}-promises.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
