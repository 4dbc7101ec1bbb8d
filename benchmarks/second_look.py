"""A second look beside the first stage alone and BM25, on text pairs of which a part has no right answer.

    python benchmarks/second_look.py first DATA DIR
    python benchmarks/second_look.py train DATA DIR --rerank all-MiniLM-L6-v2 --loss sigmoid
    python benchmarks/second_look.py test DATA DIR --loss sigmoid

The right answers of a quarter of the queries are taken away; what stood beside them stays, so that these are near-miss
questions. `first` trains the first stage with default settings, `train` the second look on some of the training
queries, `test` calibrates it and looks at test. All is chosen and calibrated on dev; differences are paired by query.
Each stage takes minutes on one core, and leaves in DIR what the next one needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import sigmax
from sigmax.comparison.baselines import BM25
from sigmax.data import MatchDataset
from sigmax.evaluation import calibrate, evaluate
from sigmax.metrics.intervals import difference
from sigmax.model.reranker import Reranker
from sigmax.training.rerank import train_reranker

#: Part of the queries whose right answers are hidden.
HIDDEN = 0.25
SHOWN = ("map", "mrr", "precision@1", "recall@10", "log_loss", "brier", "none_auroc_any", "any_log_loss", "any_brier")


def hidden(source: str) -> MatchDataset:
    """The data set, without the right answers of a part of its queries."""
    data = sigmax.load_data(source)
    chosen = np.random.default_rng(0).random(len(data.queries)) < HIDDEN
    gone = np.asarray(data.graph[np.flatnonzero(chosen)].sum(0)).ravel() > 0
    return data.without_candidates(gone, f"{data.name}, answers hidden")


def some(data: MatchDataset, most: int | None) -> MatchDataset:
    """The data set with fewer training queries."""
    if most is None or most >= len(data.split("train")):
        return data
    kept = np.sort(np.random.default_rng(0).permutation(data.split("train"))[:most])
    return replace(data, splits={**data.splits, "train": kept})


def measured(model: Any, data: MatchDataset, keep: Path) -> dict[str, Any]:
    """Metrics on test, each with its interval, and what it took; their draws are kept."""
    began = time.process_time()
    found = evaluate(model, data, split="test")
    seconds = time.process_time() - began
    np.savez(keep, **{name: found.draws[name] for name in SHOWN if name in found.draws})
    values = {name: found[name].as_dict() for name in SHOWN if name in found.draws}
    print("  ".join(f"{name} {one['value']:.3f}" for name, one in values.items()), f"{seconds:.0f} s", flush=True)
    return {"test": values, "test_processor_seconds": seconds}


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def first(data: MatchDataset, given: argparse.Namespace) -> None:
    """Train the first stage; measure it and BM25."""
    began = time.process_time()
    model = sigmax.train(data)
    seconds = time.process_time() - began
    model.save(given.folder / "model")
    bm25 = BM25(data)
    calibrate(bm25, data)
    write(given.folder, "bm25", measured(bm25, data, given.folder / "bm25.npz"))
    write(
        given.folder, "first", {"train_processor_seconds": seconds, **measured(model, data, given.folder / "first.npz")}
    )


def train(data: MatchDataset, given: argparse.Namespace) -> None:
    """Train a second look, and calibrate both stages on dev."""
    model = sigmax.load(given.folder / "model")
    settings = sigmax.Settings(loss=given.loss).filled(data)
    began = time.process_time()
    train_reranker(
        model,
        some(data, given.queries),
        Reranker.load(given.rerank, depth=given.depth),
        settings,
        epochs=given.epochs,
        wrong=given.wrong,
    )
    seconds = time.process_time() - began
    model.save(given.folder / given.loss)
    about = {name: getattr(given, name) for name in ("rerank", "depth", "queries", "epochs", "wrong", "loss")}
    weights = model.reranker.config() if model.reranker else {}
    write(
        given.folder,
        f"train-{given.loss}",
        {**about, "train_processor_seconds": seconds, "weights": weights},
    )


def test(data: MatchDataset, given: argparse.Namespace) -> None:
    """Calibrate on dev, measure on test, and put all that was measured into one file."""
    model = sigmax.load(given.folder / given.loss)
    calibrate(model, data)
    dev = evaluate(model, data, split="dev")
    found: dict[str, Any] = {"dev": {name: dev[name].as_dict() for name in SHOWN if name in dev.draws}}
    found |= measured(model, data, given.folder / f"{given.loss}.npz")
    mine = np.load(given.folder / f"{given.loss}.npz")
    for other in ("first", "bm25"):
        theirs = np.load(given.folder / f"{other}.npz")
        found[f"less_{other}"] = {name: difference(mine[name], theirs[name]).as_dict() for name in mine.files}
    write(given.folder, f"test-{given.loss}", found)
    files = sorted(given.folder.glob("*.json"))
    result = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    about = {"date": str(date.today()), "data": data.name, "queries": {k: len(v) for k, v in data.splits.items()}}
    unanswered = {name: data.unanswered(name) for name in data.splits}
    name = f"{date.today()}-second-look-{Path(given.data).name}"
    write(given.o, name, {**about, "unanswered": unanswered, "results": result})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["first", "train", "test"])
    parser.add_argument("data")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rerank", default="all-MiniLM-L6-v2")
    parser.add_argument("--loss", default="softmax-decoupled")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--queries", type=int, help="training queries that the second look is trained on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--wrong", type=int, default=4)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given.folder.mkdir(parents=True, exist_ok=True)
    {"first": first, "train": train, "test": test}[given.stage](hidden(given.data), given)


if __name__ == "__main__":
    main()
