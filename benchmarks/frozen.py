"""Frozen encoders: what Sigmax solves beside scikit-learn's logistic regression on the same vectors.

Usage: SIGMAX_DATA=… python benchmarks/frozen.py {nlupp,clinc150} {potion,minilm}

Every classifier reads the same vectors, encoded once; its logits are calibrated on dev and measured on test alike.
Times are processor seconds of fitting, with Sigmax's choice of the penalty and without encoding.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import sigmax
from sigmax.data import MatchDataset
from sigmax.encoders.build import build_towers
from sigmax.encoders.plan import Plan
from sigmax.evaluation import calibrate_logits, evaluate_logits
from sigmax.scan import SplitLogits

RESULTS = Path(__file__).parent / "results"
SHOWN = ("map", "precision@1", "ndcg@10", "log_loss", "brier", "micro_f1", "macro_f1")


def ten_lines(data: MatchDataset, vectors: np.ndarray, *, standardise: bool) -> Any:
    """What one writes today: scikit-learn's logistic regression with its own settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = data.split("train")
    right = data.graph[train].toarray()
    model = LogisticRegression(max_iter=1000)
    if right.sum(1).max() == 1:  # multinomial, without the rows that have no label
        answered = right.any(1)
        train, right = train[answered], right[answered].argmax(1)
    else:
        model = OneVsRestClassifier(model)
    model = make_pipeline(StandardScaler(), model) if standardise else model
    return model.fit(vectors[train], right).decision_function


def ours(data: MatchDataset, loss: str, encoder: str) -> Any:
    """The same vectors through `sigmax.train`; they come from its cache."""
    settings = sigmax.Settings(loss=loss, encoder=encoder, frozen=True)
    model = sigmax.train(data, settings, calibrated=False, tell=False)
    weights = model.candidate_encoder.vectors.detach().numpy()
    frozen = model.query_encoder
    mean, deviation = frozen.mean.numpy(), frozen.deviation.numpy()
    return lambda vectors: ((vectors - mean) / deviation) @ weights[:, :-1].T + weights[:, -1]


def measured(data: MatchDataset, vectors: np.ndarray, logits: Any) -> dict[str, Any]:
    """Calibrated on dev, measured on test."""
    split = {
        name: SplitLogits(
            logits(vectors[data.split(name)]).astype(np.float32),
            data.graph[data.split(name)].toarray().astype(bool),
            data.candidate_ids,
            data=data.name,
            split=name,
        )
        for name in ("dev", "test")
    }
    evaluation = evaluate_logits(split["test"], calibrator=calibrate_logits(split["dev"]))
    return {name: evaluation[name].as_dict() for name in SHOWN if name in evaluation.draws}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["nlupp", "clinc150"])
    parser.add_argument("encoder", choices=["potion", "minilm"])
    given = parser.parse_args()
    root = os.environ.get("SIGMAX_DATA")
    if not root:
        sys.exit("Set SIGMAX_DATA to the folder that holds data/ and models/; see benchmarks/README.md.")
    encoder = str(Path(root, "models", "potion-base-4m-int8")) if given.encoder == "potion" else "all-MiniLM-L6-v2"
    data = sigmax.load_data(Path(root, "data", given.data))
    begin = time.process_time()
    frozen: Any = build_towers(encoder, data, Plan(frozen=True, head="linear")).query
    vectors = frozen.preprocess(data.queries)["vectors"].numpy()
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} in {time.process_time() - begin:.1f} s")
    ways = {
        "logistic regression": lambda: ten_lines(data, vectors, standardise=False),
        "standardised, logistic regression": lambda: ten_lines(data, vectors, standardise=True),
        "sigmax, softmax-average": lambda: ours(data, "softmax-average", encoder),
        "sigmax, softmax-decoupled": lambda: ours(data, "softmax-decoupled", encoder),
        "sigmax, sigmoid": lambda: ours(data, "sigmoid", encoder),
    }
    results: dict[str, Any] = {}
    for name, fit in ways.items():
        begin = time.process_time()
        logits = fit()
        seconds = time.process_time() - begin
        results[name] = {"fit_processor_seconds": seconds, "test": measured(data, vectors, logits)}
        values = "  ".join(f"{metric} {one['value']:.4f}" for metric, one in results[name]["test"].items())
        print(f"{name:34} {seconds:6.1f} s  {values}", flush=True)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
    record = {"date": date, "data": given.data, "encoder": given.encoder, "machine": machine, "results": results}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{date}-frozen-{given.data}-{given.encoder}.json"
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
