"""How often do promises hold? Dev splits are drawn from worlds whose truth is known, for every calibration and rule.

A promise of confidence 0.9 may be broken by one dev split in ten. Two ways to record what rules decide by are compared:
presences of queries that the calibration was not fitted on (*crossed*, the default), and of half of the split that
chose nothing (*held out*). Of P(any), what is counted is how far its average is from the truth.

Usage: python benchmarks/promises.py --file FILE [--draws 1000] [--queries 100 300] [--methods auto …] [--seconds S]

Each cell (world, calibration, number of queries) is added to FILE when it is done, or when S seconds are over, with the
draws that it got; cells that are in FILE are left out. Draws are numbered, so that a longer run repeats a shorter one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.worlds import LEVELS, WORLDS, World, kept
from sigmax.calibration import CALIBRATIONS, fit_calibrator

DELTA = 0.1
WAYS = {"crossed": 0.0, "held out": 0.5}


def simulate(
    world: World, method: str, queries: int, draws: int, ways: list[str], until: float, population: int = 10_000
) -> list[dict[str, object]]:
    """Rows of how many of the draws made each promise, and how many of these broke it."""
    logits, right = world.draw(population, 2**31)
    ids = [f"c{j}" for j in range(world.candidates)]
    made: Counter[tuple[str, str]] = Counter()
    broken: Counter[tuple[str, str]] = Counter()
    off: dict[str, list[float]] = {way: [] for way in ways}
    done = 0
    while done < draws and time.perf_counter() < until:
        dev, truth = world.draw(queries, [done, queries])
        for way in ways:
            calibrator = fit_calibrator(dev, truth, ids, method=method, held_out=WAYS[way], seed=done)
            presence, any_right = calibrator.read(logits, ids)
            off[way].append(float(any_right.mean() - right.any(1).mean()))
            for name, level in LEVELS.items():
                decision = calibrator.decide(f"{name}={level}", confidence=1 - DELTA)
                if decision.promised:
                    made[way, name] += 1
                    broken[way, name] += not kept(decision, presence, right)
        done += 1
    return [
        {
            "world": world.name,
            "method": method,
            "queries": queries,
            "way": way,
            "rule": f"{name}={LEVELS[name]}",
            "draws": done,
            "made": made[way, name],
            "broken": broken[way, name],
            "any_right_off": {"mean": float(np.mean(off[way])), "deviation": float(np.std(off[way]))},
        }
        for way in ways
        for name in LEVELS
    ]


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--methods", nargs="+", default=["auto", *CALIBRATIONS])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=np.inf)
    given = parser.parse_args()
    about = {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "delta": DELTA,
        "rows": [],
    }
    if given.file.exists():
        about = json.loads(given.file.read_text(encoding="utf-8"))
    have = {(row["world"], row["method"], row["queries"]) for row in about["rows"]}
    until = time.perf_counter() + given.seconds
    for world in given.worlds:
        for method in given.methods:
            for queries in given.queries:
                if (world, method, queries) in have or time.perf_counter() >= until:
                    continue
                rows = simulate(WORLDS[world], method, queries, given.draws, given.ways, until)
                about["rows"] += rows
                for row in rows:
                    print(*row.values(), sep="\t", flush=True)
                given.file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
