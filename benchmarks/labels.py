"""Labelled texts from scratch: what Sigmax solves over n-grams beside scikit-learn's linear models of tf-idf.

Usage: python benchmarks/labels.py DATA... [--encoders ngrams-linear,ngrams] [--losses …] [--only tfidf-svm,…]

DATA is labelled texts in any form that Sigmax reads. All are calibrated on dev by the same code, then measured on test.
Times are processor seconds of fitting, features included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import sigmax
from sigmax.comparison.baselines import tfidf_regression, tfidf_svm
from sigmax.evaluation import calibrate, evaluate

SHOWN = ("map", "precision@1", "log_loss", "brier", "micro_f1", "macro_f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--losses", default="softmax-decoupled,sigmoid")
    parser.add_argument("--encoders", default="ngrams-linear")
    parser.add_argument("--only", help="some of the rows, added to today's file")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    for source in given.data:
        data = sigmax.load_data(source)
        ways: dict[str, Any] = {"tfidf-svm": tfidf_svm, "tfidf-lr": tfidf_regression}
        for encoder in given.encoders.split(","):
            for loss in given.losses.split(","):
                settings = sigmax.Settings(loss=loss, encoder=encoder)
                ways[f"{encoder} {loss}"] = lambda data, s=settings: sigmax.train(data, s, calibrated=False, tell=False)
        file = given.o / f"{date.today()}-labels-{data.name}.json"
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
        record: dict[str, Any] = {"data": data.name, "machine": machine, "results": {}}
        if given.only and file.exists():
            record = json.loads(file.read_text(encoding="utf-8"))
        for name in given.only.split(",") if given.only else ways:
            fit = ways[name]
            began = time.process_time()
            model = fit(data)
            seconds = time.process_time() - began
            calibrate(model, data)
            evaluation = evaluate(model, data, split="test")
            metrics = {metric: evaluation[metric].as_dict() for metric in SHOWN}
            record["results"][name] = {"processor_seconds": seconds, "test": metrics}
            values = "  ".join(f"{metric} {one['value']:.4f}" for metric, one in metrics.items())
            print(f"{data.name} {name:32} {seconds:6.1f} s  {values}", flush=True)
            file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
