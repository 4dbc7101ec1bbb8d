"""How often do promises hold? Dev splits are drawn from worlds whose truth is known, for every calibration and rule.

A promise of confidence 0.9 may be broken by one dev split in ten. Two ways to record what rules decide by are compared:
presences of queries that the calibration was not fitted on (*crossed*, the default), and of half of the split that
chose nothing (*held out*). Of P(any), what is counted is how far its average is from the truth.

Usage: python benchmarks/promises.py --file FILE [--draws 1000] [--queries 100 300] [--methods auto …] [--seconds S]
       python benchmarks/promises.py --merge FILE FILE … --file FILE

Draws are numbered, and a cell (world, calibration, number of queries) that is in FILE goes on at the draw where it
stopped: a run that is cut off by its S seconds, or by anything else, loses a few draws. What `--merge` joins are files
of other cells, so that several runs can share the work.

The truth of a promise is taken over 20,000 queries of the world, drawn anew for every 25 dev splits: its own error adds
a little to the rates at 1,000 dev queries. To be quick, a draw calls the parts of `fit_calibrator` that promises depend
on; every 50th calls it whole, for P(any), and is checked to decide the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from helpers.worlds import LEVELS, WORLDS, World, kept
from sigmax.calibration import CALIBRATIONS, Calibrator, Pairs, fit_calibration, fit_calibrator, share_odds
from sigmax.calibration.calibrator import unseen_presences
from sigmax.calibration.pairs import row_totals
from sigmax.calibration.record import Record

DELTA = 0.1
WAYS = {"crossed": 0.0, "held out": 0.5}
#: Queries that the truth is taken over, and dev splits after which they are drawn anew.
POPULATION, RENEWED = 20_000, 25
#: Every so many draws, `fit_calibrator` is called whole.
WHOLE = 50
#: Seconds between writes.
OFTEN = 20.0


def calibrated(
    logits: np.ndarray, right: np.ndarray, ids: Sequence[str], method: str, held_out: float, seed: int
) -> Calibrator:
    """What `fit_calibrator` gives, but for P(any)."""
    n, out = len(right), np.zeros(len(right), bool)
    if held_out:
        out = np.asarray(np.random.default_rng(seed).permutation(n) < round(held_out * n))
    pairs = Pairs.of(logits[~out], right[~out], most=1_000_000, seed=seed)
    fitted = fit_calibration(pairs, method, seed=seed)
    if held_out:
        record = Record.of(fitted.calibration.presence(logits[out]), right[out])
    else:
        totals = row_totals(logits)
        own = fitted.calibration.presence(logits, None, totals)
        record = Record.of(unseen_presences(logits, totals, pairs, fitted.method, own, seed), right)
    return Calibrator(fitted.calibration, tuple(ids), None, record, about={"crossed": not held_out})


@dataclass(frozen=True)
class Population:
    """Queries of a world that a promise is about."""

    logits: np.ndarray
    right: np.ndarray
    odds: np.ndarray  #: log odds of shares

    @classmethod
    def of(cls, world: World, seed: object) -> Population:
        """Draw them."""
        logits, right = world.draw(POPULATION, seed)
        odds = share_odds(logits, row_totals(logits)[:, None])
        return cls(*(np.asfortranarray(part) for part in (logits, right, odds)))  # sums over few columns are quicker


def draw_once(world: World, method: str, queries: int, way: str, draw: int, population: Population) -> dict[str, Any]:
    """Whether each promise was made and broken by one dev split; how far P(any) is off, of every 50th."""
    ids = [f"c{j}" for j in range(world.candidates)]
    dev, truth = world.draw(queries, [draw, queries])
    found = calibrated(dev, truth, ids, method, WAYS[way], draw)
    presence = expit(found.calibration.curve(population.logits, population.odds, None))
    row: dict[str, Any] = {}
    decisions = {name: found.decide(f"{name}={level}", confidence=1 - DELTA) for name, level in LEVELS.items()}
    for name, decision in decisions.items():
        if decision.promised:
            row[name] = not kept(decision, presence, population.right)
    if draw % WHOLE == 0:
        whole = fit_calibrator(dev, truth, ids, method=method, held_out=WAYS[way], seed=draw)
        again = {name: whole.decide(f"{name}={level}", confidence=1 - DELTA) for name, level in LEVELS.items()}
        assert again == decisions, "the quick way decides otherwise than fit_calibrator"
        row["off"] = float(whole.any(population.logits, ids).mean() - population.right.any(1).mean())
    return row


def simulate(
    world: World, method: str, queries: int, way: str, cell: dict[str, Any], draws: int, until: float, write: Any
) -> None:
    """Add draws to a cell, up to so many."""
    population, of, last = None, -1, time.perf_counter()
    while cell["draws"] < draws and time.perf_counter() < until:
        draw = cell["draws"]
        if of != draw // RENEWED:
            of = draw // RENEWED
            population = Population.of(world, [2**31, of])
        assert population is not None
        row = draw_once(world, method, queries, way, draw, population)
        if "off" in row:
            cell["any_right_off"].append(row.pop("off"))
        for name, broken in row.items():
            cell["made"][name] += 1
            cell["broken"][name] += broken
        cell["draws"] += 1
        if time.perf_counter() - last > OFTEN:
            write()
            last = time.perf_counter()
    write()


def save(file: Path, about: dict[str, Any]) -> None:
    """Write in one go, so that a run that is killed leaves what was there."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Broken / made of so many draws, a line per calibration and a column per rule, of each world, size and way."""
    lines = ["| world | dev queries | way | calibration | draws | " + " | ".join(LEVELS) + " | P(any) − truth |"]
    lines.append("|" + "---|" * (6 + len(LEVELS)))
    for cell in cells:
        counts = [f"{cell['broken'][name]} / {cell['made'][name]}" for name in LEVELS]
        off = cell["any_right_off"]
        told = f"{np.mean(off):+.3f}" if off else ""
        names = [str(cell[key]) for key in ("world", "queries", "way", "method", "draws")]
        lines.append("| " + " | ".join([*names, *counts, told]) + " |")
    return "\n".join(lines)


def summary(cells: Sequence[dict[str, Any]]) -> str:
    """How many of 100 dev splits broke a promise with the worst calibration, and made it with the most cautious one."""
    lines = ["| world | dev queries | way | draws | " + " | ".join(LEVELS) + " |", "|" + "---|" * (4 + len(LEVELS))]
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["world"], cell["queries"], cell["way"]), []).append(cell)
    for (world, queries, way), of in groups.items():
        draws = sorted({cell["draws"] for cell in of})
        told = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]}–{draws[-1]}"
        columns = []
        for name in LEVELS:
            worst = max(100 * cell["broken"][name] / cell["draws"] for cell in of)
            fewest = min(100 * cell["made"][name] / cell["draws"] for cell in of)
            columns.append(f"{worst:.1f} of {fewest:.0f}")
        lines.append("| " + " | ".join([world, str(queries), way, told, *columns]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--merge", type=Path, nargs="+", default=[])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--methods", nargs="+", default=["auto", *CALIBRATIONS])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=np.inf)
    given = parser.parse_args()
    until = time.perf_counter() + given.seconds
    about: dict[str, Any] = {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "delta": DELTA,
        "levels": LEVELS,
        "candidates": given.candidates,
        "population": POPULATION,
        "cells": [],
    }
    for file in given.merge or [given.file]:
        if file.exists():
            about["cells"] += json.loads(file.read_text(encoding="utf-8"))["cells"]
    cells = {(one["world"], one["queries"], one["way"], one["method"]): one for one in about["cells"]}
    if given.merge:
        about["cells"] = [cells[key] for key in sorted(cells, key=lambda key: (key[0], key[1], key[2]))]
        save(given.file, about)
        print(table(about["cells"]), summary(about["cells"]), sep="\n\n")
        return
    for world in given.worlds:
        for method in given.methods:
            for queries in given.queries:
                for way in given.ways:
                    key = (world, queries, way, method)
                    if key not in cells:
                        nothing = dict.fromkeys(LEVELS, 0)
                        cells[key] = {"world": world, "queries": queries, "way": way, "method": method, "draws": 0}
                        cells[key] |= {"made": dict(nothing), "broken": dict(nothing), "any_right_off": []}
                        about["cells"].append(cells[key])
                    if time.perf_counter() < until:
                        of = replace(WORLDS[world], candidates=given.candidates)
                        simulate(
                            of, method, queries, way, cells[key], given.draws, until, lambda: save(given.file, about)
                        )
                        print(table([cells[key]]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
