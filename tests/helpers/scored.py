"""Score tables whose truth is known: lists of the best k of a world, by scorers that see parts of it."""

import csv

import numpy as np

from sigmax.scores import Scores


def lists(n=300, m=12, seed=0, *, missing=0.0, several=3):
    """Scores of n queries, m candidates each, by up to three scorers: a logit, a distance, a probability.

    Some queries have no right answer; `missing` of them have one that no scorer returned.
    """
    random = np.random.default_rng(seed)
    level = 0.7 * random.normal(size=(n, 1))
    right = random.random((n, m)) < 0.08
    seen = [2.0 * right * random.gamma(2, 1, (n, m)) + random.normal(size=(n, m)) + level for _ in range(3)]
    scores = {
        "logit": seen[0],
        "distance": np.where(random.random((n, m)) < 0.25, np.nan, 10 - 2 * seen[1]),
        "chance": 1 / (1 + np.exp(3 - seen[2])),
    }
    queries = np.repeat([f"q{i}" for i in range(n)], m)
    candidates = np.tile([f"c{j}" for j in range(m)], n)
    truth = right.astype(float)
    gone = np.flatnonzero(random.random(n) < missing)
    queries = np.concatenate([queries, [f"q{i}" for i in gone]])
    candidates = np.concatenate([candidates, ["elsewhere"] * len(gone)])
    named = {
        name: np.concatenate([value.ravel(), np.full(len(gone), np.nan)])
        for name, value in list(scores.items())[:several]
    }
    return Scores.of(queries, candidates, named, np.concatenate([truth.ravel(), np.ones(len(gone))]))


def write_table(path, scores, right=True):
    """Write scores as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidates = scores.candidates.to_pylist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "candidate", *scores.columns, *(["right"] if right else [])])
        for place, query in enumerate(scores.queries.to_pylist()):
            for row in range(scores.starts[place], scores.starts[place + 1]):
                values = ["" if np.isnan(value) else repr(float(value)) for value in scores.values[row]]
                writer.writerow([query, candidates[row], *values, *([int(scores.right[row])] if right else [])])
            for number in range(0 if scores.missing is None or not right else scores.missing[place]):
                writer.writerow([query, f"gone{number}", *[""] * len(scores.columns), 1])
    return path
