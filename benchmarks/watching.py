"""Do verification and drift alarm as often as they say? Simulated in a world whose truth is known.

Dev tables are drawn and calibrated as in `scores_promises.py`; of each, 20,000 queries of the same world, read by the
calibrated model, are the truth. Fresh queries are drawn from these, again and again:

- whole: a verification of four promises, a bound of a metric and the calibration, on 400 fresh queries: how often is
  something called broken that holds among the 20,000? At most α = 5% of the verifications may.
- edge: each metric with a bound that is just what it is among the 20,000, and each promise with just the loss that it
  has there: how often is it broken at α = 5% and 0.5% (what each of ten checks gets)?
- power: each metric missing its bound by a tenth, each promise losing twice what is allowed, on as many queries as the
  check says it takes: broken in 80% of the cases, says the check.
- drift: streams of 1,000 queries of the same world, which alarm in at most α of the cases, at 5% and 1%; and streams
  that change after 200 queries (scores of one scorer fall by a half or a whole deviation, which lowers the signs by a
  fifth or two fifths of one; or a fifth of the queries lose all evidence): in how many streams the alarm comes, and
  after how many queries.

Usage: python benchmarks/watching.py [--models 40] [--repeats 25] [--seconds 200]
Models are kept as they come, so that a run of limited time is continued by the next.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import binom
from scores_promises import LEVELS, draw

from sigmax.metrics.registry import METRICS
from sigmax.scores import Scores, calibrate_scores
from sigmax.watch.checks import BROKEN, UNTOLD, Bound, check_bound, check_loss
from sigmax.watch.drift import evidence
from sigmax.watch.verify import at_threshold, verify

RESULTS = Path(__file__).parent / "results"
POPULATION, DEV, FRESH, STREAM, CHANGE = 20_000, 300, 400, 1000, 200
#: Streams that change: by how many deviations the scores of one scorer fall; None: a fifth of the queries lose all.
CHANGES = {"half a deviation lower": 0.5, "a deviation lower": 1.0, "a fifth without evidence": None}
EDGES = ("map", "ndcg@10", "precision@1", "recall@10", "log_loss", "any_log_loss", "micro_f1", "none_auroc_any")
BOTH = ("calibration_slope", "expected_ratio")
ALPHAS = (0.05, 0.005)
DRAWS = 300
#: Queries beyond which power is not simulated.
MOST = 4000


class Read:
    """A calibrated model and what it makes of the population: read once, drawn from often."""

    def __init__(self, seed: int) -> None:
        self.model = calibrate_scores(draw(DEV, [seed, DEV, 1]), method="platt")
        self.population = draw(POPULATION, [seed, 2**20])
        self.truth = self.model.evaluate(self.population, draws=0)
        self.curve = self.model.record(self.population).curve
        self.random = np.random.default_rng([seed, 3])

    def fresh(self, n: int) -> Scores:
        """N queries of the population, drawn without replacement."""
        return self.population.take(np.sort(self.random.choice(POPULATION, n, replace=False)))


def whole(one: Read, repeats: int, count: dict[str, int]) -> None:
    """Whole verifications."""
    least = float(np.floor(one.truth["map"].value * 100) / 100)
    promises = [f"{name}={level}" for name, level in LEVELS.items()]
    holds = {f"map>={least:g}"}
    for text, level in zip(promises, LEVELS.values(), strict=True):
        decision = one.model.decide(text)
        total, n = decision.choice.rule.loss(at_threshold(one.curve, decision.threshold))
        if not n[0] or total[0] / n[0] <= decision.choice.rule.allowed(level):
            holds.add(text)
    for metric in BOTH:
        value = one.truth[metric].value
        holds |= {f"{metric}>=0.8"} if value >= 0.8 else set()
        holds |= {f"{metric}<=1.25"} if value <= 1.25 else set()
    for _ in range(repeats):
        found = verify(one.model, one.fresh(FRESH), promises, [f"map>={least:g}"], draws=DRAWS)
        wrong = [check.name for check in found.broken if check.name in holds]
        count["verifications"] += 1
        count["false alarms"] += bool(wrong)
        for name in wrong:
            count[f"false alarm of {name.split('=')[0].rstrip('<>')}"] += 1


def edge(one: Read, repeats: int, count: dict[str, int]) -> None:
    """Bounds that just hold, and those that are missed by a tenth with as many queries as it is said to take."""
    sides = [(metric, METRICS[metric].better != "lower") for metric in EDGES]
    sides += [(metric, least) for metric in BOTH for least in (True, False)]
    losses = {name: one.model.decide(f"{name}={level}") for name, level in LEVELS.items()}
    for turn in range(repeats):
        found = one.model.evaluate(one.fresh(FRESH), draws=DRAWS)
        for metric, least in sides:
            truth = one.truth[metric].value
            name = f"{metric}{'>=' if least else '<='}"
            check = check_bound(Bound(metric, least, truth), found.draws[metric], FRESH, alpha=0.05)
            count[f"{name} n"] += 1
            for alpha in ALPHAS:
                count[f"{name} broken at {alpha:g}"] += check.p is not None and check.p <= alpha
            if turn:
                continue
            missed = Bound(metric, least, truth / 0.9 if least else truth / 1.1)
            needed = check_bound(missed, found.draws[metric], FRESH, alpha=0.05).needed
            if needed and 20 <= needed <= MOST:
                again = one.model.evaluate(one.fresh(needed), draws=DRAWS)
                verdict = check_bound(missed, again.draws[metric], needed, alpha=0.05).verdict
                count[f"{name} power n"] += 1
                count[f"{name} power broken"] += verdict == BROKEN
        for name, decision in losses.items():
            promise(one, name, decision, count, FRESH)


def promise(one: Read, name: str, decision, count: dict[str, int], n: int) -> None:
    """A promise that just holds, and one that loses twice what is allowed."""
    rule = decision.choice.rule
    total, of = rule.loss(at_threshold(one.curve, decision.threshold))
    truth = float(total[0] / of[0])
    record = one.model.record(one.fresh(n))
    lost, asked = (float(x[0]) for x in rule.loss(at_threshold(record.curve, decision.threshold)))
    count[f"{name} n"] += 1
    for alpha in ALPHAS:
        found = check_loss(name, lost, int(asked), truth, exact=rule.exact, alpha=alpha, words="")
        count[f"{name} broken at {alpha:g}"] += found.verdict == BROKEN
    needed = check_loss(name, 0.0, 1, truth / 2, exact=rule.exact, alpha=0.05, words="").needed
    queries = 0 if needed is None else round(needed * POPULATION / of[0])
    if 0 < queries <= MOST:
        record = one.model.record(one.fresh(queries))
        lost, asked = (float(x[0]) for x in rule.loss(at_threshold(record.curve, decision.threshold)))
        if asked:
            found = check_loss(name, lost, int(asked), truth / 2, exact=rule.exact, alpha=0.05, words="")
            count[f"{name} power n"] += 1
            count[f"{name} power broken"] += found.verdict == BROKEN
            count[f"{name} power too few"] += found.verdict == UNTOLD


def streams(one: Read, repeats: int, count: dict[str, int], delays: dict[str, list[int]]) -> None:
    """Streams that stay and streams that change."""
    dev = one.model.calibrator.record.signs
    before, width = one.model.signs(one.population), np.nanstd(one.population.values, 0)
    after = {}
    for name, shift in CHANGES.items():
        values = one.random.normal(size=one.population.values.shape)
        if shift is not None:
            values = one.population.values - shift * width * [1, 0]
        after[name] = one.model.signs(replace(one.population, values=values))
    for _ in range(repeats):
        places = one.random.choice(POPULATION, STREAM, replace=False)
        for name in ("unchanged", *CHANGES):
            now = before[places]
            if name != "unchanged":
                part = 1.0 if CHANGES[name] is not None else 0.2
                which = CHANGE + np.flatnonzero(one.random.random(STREAM - CHANGE) < part)
                now[which] = after[name][places][which]
            stakes = evidence(dev, now, one.random).max(1) / dev.shape[1]
            count[f"{name} n"] += 1
            for alpha in (0.05, 0.01):
                reached = np.flatnonzero(stakes >= 1 / alpha)
                count[f"{name} alarms at {alpha:g}"] += len(reached) > 0
                if name != "unchanged" and alpha == 0.01 and len(reached):
                    delays[name].append(int(reached[0]) + 1 - CHANGE)


def summed(kept: list[dict]) -> dict[str, dict[str, float]]:
    """Counts over all models."""
    found = {}
    for part in ("whole", "edge", "drift"):
        names = sorted({name for one in kept for name in one[part]})
        found[part] = {name: sum(one[part].get(name, 0) for one in kept) for name in names}
    return found


def main() -> None:
    """Simulate, count, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=1e9)
    given = parser.parse_args()
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    path = RESULTS / f"{date}-watching.json"
    kept = json.loads(path.read_text())["models"] if path.exists() else []
    end = time.monotonic() + given.seconds
    while len(kept) < given.models and time.monotonic() < end:
        seed = zlib.crc32(f"model {len(kept)}".encode())
        one = Read(seed)
        parts = {part: defaultdict(int) for part in ("whole", "edge", "drift")}
        delays: dict[str, list[int]] = defaultdict(list)
        whole(one, given.repeats, parts["whole"])
        edge(one, given.repeats, parts["edge"])
        streams(one, given.repeats, parts["drift"], delays)
        kept.append({**{name: {k: int(v) for k, v in part.items()} for name, part in parts.items()}, "delays": delays})
        total = summed(kept)
        whole_, n = total["whole"], total["whole"]["verifications"]
        total["at most this many false alarms by chance (99%), at 5%"] = int(binom.ppf(0.99, n, 0.05))
        spread = {
            name: np.quantile([d for one in kept for d in one["delays"].get(name, [])] or [np.nan], [0.25, 0.5, 0.75])
            for name in CHANGES
        }
        result = {
            "dev": DEV,
            "fresh": FRESH,
            "stream": STREAM,
            "change": CHANGE,
            "total": total,
            "delay quartiles at 0.01": {name: values.tolist() for name, values in spread.items()},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, beside other work",
            "models": kept,
        }
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(len(kept), whole_, flush=True)
    print(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "models"}, indent=1))


if __name__ == "__main__":
    main()
