"""Measure what mined negatives change: train, mine, train anew, beside as many negatives drawn at random.

Usage: SIGMAX_DATA=… python benchmarks/mining.py {protoqa,webquestions,emoji} … [--seeds 3] [--loss softmax-decoupled]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sigmax
from sigmax.metrics.intervals import combine_seeds, difference, estimate

RESULTS = Path(__file__).parent / "results"
METRICS = ("map", "recall@10", "log_loss")
#: Against which each contender's difference is taken.
BASE = "in-batch"


def measure(data: sigmax.MatchDataset, settings: sigmax.Settings, negatives: int) -> dict[str, Any]:
    """One seed of every contender: metrics' draws, steps, mined pairs."""
    drawn = replace(settings, negatives=(settings.batch_size or 1) * min(negatives, settings.answers))
    base = sigmax.train(data, settings, tell=False)
    mined = sigmax.mine(base, data, negatives=negatives)
    found = {}
    for name, given, how in ((BASE, data, settings), ("random", data, drawn), ("mined", mined, settings)):
        model = base if name == BASE else sigmax.train(given, how, tell=False)
        evaluation = sigmax.evaluate(model, data)
        found[name] = {
            "draws": {metric: evaluation.draws[metric] for metric in METRICS},
            "steps": model.facts["steps"],
            "wrong_pairs": len(given.wrong) - len(data.wrong),
        }
        print(f"{data.name} {settings.seed} {name}: MAP {evaluation['map'].value:.4f}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", choices=["protoqa", "webquestions", "emoji"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--loss", default="softmax-decoupled")
    parser.add_argument("--negatives", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=6)
    given = parser.parse_args()
    root = os.environ.get("SIGMAX_DATA")
    if not root:
        sys.exit("Set SIGMAX_DATA to the folder that holds data/ and models/; see benchmarks/README.md.")
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    RESULTS.mkdir(exist_ok=True)
    for name in given.data:
        data = sigmax.load_data(name if name == "emoji" else Path(root, "data", name))
        encoder = str(Path(root, "models", "potion-base-4m-int8"))
        settings = sigmax.Settings(loss=given.loss, encoder=encoder, epochs=given.epochs).filled(data)
        runs = [measure(data, replace(settings, seed=seed), given.negatives) for seed in range(given.seeds)]
        together = {
            contender: {metric: combine_seeds([run[contender]["draws"][metric] for run in runs]) for metric in METRICS}
            for contender in runs[0]
        }
        result = {
            "date": date,
            "data": name,
            "queries": {split: len(data.split(split)) for split in ("train", "dev", "test")},
            "candidates": len(data.candidates),
            "encoder": "potion-base-4m-int8",
            "loss": given.loss,
            "epochs": given.epochs,
            "seeds": given.seeds,
            "negatives": given.negatives,
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
            "versions": {"sigmax": sigmax.__version__, "torch": torch.__version__, "numpy": np.__version__},
            "contenders": {
                contender: {
                    "metrics": {metric: estimate(draws).as_dict() for metric, draws in metrics.items()},
                    f"less_{BASE}": {
                        metric: difference(draws, together[BASE][metric]).as_dict() for metric, draws in metrics.items()
                    },
                    "runs": [{key: run[contender][key] for key in ("steps", "wrong_pairs")} for run in runs],
                }
                for contender, metrics in together.items()
            },
        }
        path = RESULTS / f"{date}-mining-{name}-{given.loss}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        for contender, entry in result["contenders"].items():
            less = entry[f"less_{BASE}"]["map"]
            print(
                f"{name:14} {contender:16} MAP {entry['metrics']['map']['value']:.4f}  "
                f"{less['value']:+.4f} [{less['low']:+.4f}, {less['high']:+.4f}]"
            )


if __name__ == "__main__":
    main()
