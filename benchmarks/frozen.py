"""Frozen encoders: what Sigmax solves beside scikit-learn's logistic regression on the same vectors.

Usage: SIGMAX_DATA=… python benchmarks/frozen.py {nlupp,clinc150,goemotions} {potion,minilm}
       SIGMAX_DATA=… python benchmarks/frozen.py nlupp minilm --heads linear,ngrams
       SIGMAX_DATA=… python benchmarks/frozen.py nlupp runs/labels/…/query_encoder    # one that was fine-tuned before
       SIGMAX_DATA=… python benchmarks/frozen.py {emoji_images,playing_cards} efficientnet

Every classifier reads the same vectors, encoded once and kept on disk; its logits are calibrated on dev and measured on
test alike. Differences are paired query by query. Logistic regression has its own settings, on the vectors as they are
and standardised; *chosen* is the best of both and of four penalties by the calibrated log loss on dev.
Times are processor seconds of fitting, with Sigmax's choice of the penalty and without encoding.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sigmax
from sigmax.data import MatchDataset
from sigmax.encoders.build import build_towers
from sigmax.encoders.plan import Plan
from sigmax.evaluation import Evaluation, calibrate_logits, evaluate_logits
from sigmax.metrics.intervals import difference
from sigmax.scan import SplitLogits

RESULTS = Path(__file__).parent / "results"
SHOWN = ("map", "precision@1", "ndcg@10", "log_loss", "brier", "micro_f1", "macro_f1")
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
PICTURES = ("emoji_images", "playing_cards")

Logits = Callable[[np.ndarray], np.ndarray]  #: places of queries -> (n, m)


def ten_lines(data: MatchDataset, vectors: np.ndarray, *, standardise: bool, strength: float = 1.0) -> Logits:
    """What one writes today: scikit-learn's logistic regression with its own settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = data.split("train")
    right = data.graph[train].toarray()
    model: Any = LogisticRegression(C=strength, max_iter=1000)
    if right.sum(1).max() == 1:  # multinomial, without the rows that have no label
        answered = right.any(1)
        train, right = train[answered], right[answered].argmax(1)
    else:
        model = OneVsRestClassifier(model)
    model = make_pipeline(StandardScaler(), model) if standardise else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that no training query has
        model.fit(vectors[train], right)
    return lambda rows: model.decision_function(vectors[rows])


def chosen(data: MatchDataset, vectors: np.ndarray) -> Logits:
    """The best of them on dev."""
    made = [
        ten_lines(data, vectors, standardise=standardise, strength=strength)
        for standardise in (False, True)
        for strength in STRENGTHS
    ]
    return min(made, key=lambda logits: measured(data, logits, "dev")["log_loss"].value)


def ours(data: MatchDataset, loss: str, encoder: str, head: str) -> Logits:
    """The same vectors through `sigmax.train`; they come from its cache."""
    settings = sigmax.Settings(loss=loss, encoder=encoder, frozen=True, head=head)
    model = sigmax.train(data, settings, calibrated=False)
    return lambda rows: model.logits([data.queries[i] for i in rows], data.candidates).values


def measured(data: MatchDataset, logits: Logits, on: str = "test") -> Evaluation:
    """Calibrated on dev, measured on test."""
    split = {
        name: SplitLogits(
            logits(data.split(name)).astype(np.float32),
            data.graph[data.split(name)].toarray().astype(bool),
            data.candidate_ids,
            data=data.name,
            split=name,
        )
        for name in {"dev", on}
    }
    return evaluate_logits(split[on], calibrator=calibrate_logits(split["dev"]))


def loaded(name: str, root: Path) -> MatchDataset:
    if name == "emoji_images":
        from pictures import emoji_pictures

        return emoji_pictures(root)
    return sigmax.load_data(root / "data" / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["nlupp", "clinc150", "goemotions", *PICTURES])
    parser.add_argument("encoder", help="potion, minilm, efficientnet, or the folder of another one")
    parser.add_argument("--losses", default="softmax-average,softmax-decoupled,sigmoid")
    parser.add_argument(
        "--heads", default="linear", help="linear, and for texts also ngrams: n-grams beside the vectors"
    )
    parser.add_argument("--quick", action="store_true", help="without the choice of scikit-learn's penalty")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="    %(message)s")
    root = os.environ.get("SIGMAX_DATA")
    if not root:
        sys.exit("Set SIGMAX_DATA to the folder that holds data/ and models/; see benchmarks/README.md.")
    encoder = {
        "potion": str(Path(root, "models", "potion-base-4m-int8")),
        "minilm": "all-MiniLM-L6-v2",
        "efficientnet": "efficientnet-lite0",
    }.get(given.encoder, given.encoder)
    data = loaded(given.data, Path(root))
    begin = time.process_time()
    frozen: Any = build_towers(encoder, data, Plan(frozen=True, head="linear")).query
    vectors = frozen.preprocess(data.queries)["vectors"].numpy()
    encoding = time.process_time() - begin
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} in {encoding:.1f} s", flush=True)
    ways: dict[str, Callable[[], Logits]] = {
        "logistic regression": lambda: ten_lines(data, vectors, standardise=False),
        "standardised, logistic regression": lambda: ten_lines(data, vectors, standardise=True),
    }
    if not given.quick:
        ways["chosen, logistic regression"] = lambda: chosen(data, vectors)
    baselines = list(ways)
    for head in given.heads.split(","):
        for loss in given.losses.split(","):
            ways[f"sigmax, {head}, {loss}"] = lambda loss=loss, head=head: ours(data, loss, encoder, head)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
    record: dict[str, Any] = {"date": date, "data": given.data, "encoder": Path(given.encoder).name, "machine": machine}
    record |= {"queries": {name: len(rows) for name, rows in data.splits.items()}, "labels": len(data.candidates)}
    record |= {"encoding_processor_seconds": encoding, "results": {}, "differences": {}}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{date}-frozen-{given.data}-{Path(given.encoder).name}.json"
    evaluations: dict[str, Evaluation] = {}
    for name, fit in ways.items():
        begin = time.process_time()
        logits = fit()
        seconds = time.process_time() - begin
        evaluations[name] = evaluation = measured(data, logits)
        metrics = {metric: evaluation[metric].as_dict() for metric in SHOWN if metric in evaluation.draws}
        record["results"][name] = {"fit_processor_seconds": seconds, "test": metrics}
        values = "  ".join(f"{metric} {one['value']:.4f}" for metric, one in metrics.items())
        print(f"{name:36} {seconds:6.1f} s  {values}", flush=True)
        if name not in baselines:
            for other in baselines:
                less = {
                    metric: difference(evaluation.draws[metric], evaluations[other].draws[metric]) for metric in metrics
                }
                record["differences"][f"{name} − {other}"] = {key: one.as_dict() for key, one in less.items()}
                told = "  ".join(f"{key} {v.value:+.4f}{'*' if v.significant else ''}" for key, v in less.items())
                print(f"    − {other:32}          {told}", flush=True)
        file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
