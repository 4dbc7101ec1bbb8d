"""Labelled texts: what Sigmax makes of them from scratch, or fine-tunes, beside scikit-learn's linear models of tf-idf.

    python benchmarks/labels.py DATA... [--encoders ngrams-linear,ngrams] [--losses …] [--only tfidf-svm,…]
    python benchmarks/labels.py DATA --encoders all-MiniLM-L6-v2 --losses sigmoid --ours --keep runs/labels

DATA is labelled texts in any form that Sigmax reads. All are calibrated on dev by the same code, then measured on test;
differences are paired query by query. Times are processor seconds of fitting, features included. A transformer is
fine-tuned, which takes minutes to hours: with --keep, a run that was cut off goes on from its last whole epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import sigmax
from sigmax.comparison.baselines import tfidf_regression, tfidf_svm
from sigmax.data import MatchDataset
from sigmax.evaluation import Evaluation, calibrate, evaluate
from sigmax.metrics.intervals import difference

SHOWN = ("map", "precision@1", "log_loss", "brier", "micro_f1", "macro_f1")
BASELINES = {"tfidf-svm": tfidf_svm, "tfidf-lr": tfidf_regression}


def ours(data: MatchDataset, settings: sigmax.Settings, keep: Path | None) -> Any:
    """Train, or read what was trained before."""
    if keep is None:
        return sigmax.train(data, settings, calibrated=False, tell=False)
    folder = keep / f"{data.name}-{settings.encoder}-{settings.loss}"
    if not folder.exists():
        checkpoints = folder.with_suffix(".checkpoints")
        model = sigmax.train(data, settings, calibrated=False, checkpoints=checkpoints, resume=True)
        model.save(folder)
    return sigmax.load(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--losses", default="softmax-decoupled,sigmoid")
    parser.add_argument("--encoders", default="ngrams-linear")
    parser.add_argument("--epochs", type=float, help="of what is trained step by step; default: that of the encoder")
    parser.add_argument("--only", help="some of the rows, added to today's file")
    parser.add_argument("--ours", action="store_true", help="no baselines; added to today's file")
    parser.add_argument("--keep", type=Path, help="folder for trained models and their checkpoints")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="    %(message)s")
    for source in given.data:
        data = sigmax.load_data(source)
        ways: dict[str, Any] = {} if given.ours else dict(BASELINES)
        for encoder in given.encoders.split(","):
            for loss in given.losses.split(","):
                settings = sigmax.Settings(loss=loss, encoder=encoder, epochs=given.epochs)
                ways[f"{encoder} {loss}"] = lambda data, s=settings: ours(data, s, given.keep)
        file = given.o / f"{date.today()}-labels-{data.name}.json"
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
        record: dict[str, Any] = {"data": data.name, "machine": machine, "results": {}, "differences": {}}
        if (given.only or given.ours) and file.exists():
            record |= json.loads(file.read_text(encoding="utf-8"))
        evaluations: dict[str, Evaluation] = {}
        for name in given.only.split(",") if given.only else ways:
            fit = ways[name]
            began = time.process_time()
            model = fit(data)
            seconds = time.process_time() - began
            calibrate(model, data)
            evaluations[name] = evaluation = evaluate(model, data, split="test")
            metrics = {metric: evaluation[metric].as_dict() for metric in SHOWN}
            record["results"][name] = {"processor_seconds": seconds, "epochs": given.epochs, "test": metrics}
            values = "  ".join(f"{metric} {one['value']:.4f}" for metric, one in metrics.items())
            print(f"{data.name} {name:32} {seconds:6.1f} s  {values}", flush=True)
            for other in () if name in BASELINES else BASELINES.keys() & evaluations.keys():
                record["differences"][f"{name} − {other}"] = {
                    metric: difference(evaluation.draws[metric], evaluations[other].draws[metric]).as_dict()
                    for metric in SHOWN
                }
            file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
