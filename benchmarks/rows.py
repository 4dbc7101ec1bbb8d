"""Gradients of the rows read against dense ones: the same model, and in how much less time?

    python benchmarks/rows.py emoji FOLDER… --epochs 2
    python benchmarks/rows.py FOLDER --steps 150

Trains on each data set with dense gradients and dense AdamW, and with those of `sigmax.training.row_adamw`, which must
go the same way up to rounding; prints dev metrics and processor time of both. The texts' features are there before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import torch

from sigmax.data.sources import load_data
from sigmax.encoders import rows
from sigmax.evaluation import quick_metrics
from sigmax.training.settings import Settings
from sigmax.training.train import train


def main() -> None:
    """Train, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--encoder", default="ngrams")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("-o", "--output", type=Path, help="write the results here, as JSON; those there are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    few = rows.MANY
    found = json.loads(given.output.read_text())["rows"] if given.output and given.output.exists() else []
    for name in given.data:
        data = load_data(name)
        settings = Settings(encoder=given.encoder, epochs=given.epochs, steps=given.steps)
        train(data, Settings(encoder=given.encoder, steps=1), stop_early=False, calibrated=False, tell=False)
        row: dict[str, object] = {"data": data.name, "encoder": Path(given.encoder).name}
        for way, many in (("dense", 0.0), ("rows", few)):
            rows.MANY = many
            begin = time.process_time()
            model = train(data, settings, stop_early=False, calibrated=False, tell=False)
            row[f"{way}_seconds"] = time.process_time() - begin
            metrics = quick_metrics(model, data)
            row |= {f"{way}_{metric}": metrics[metric] for metric in ("map", "precision@1")}
        row |= {"steps": model.facts["steps"], "table": max(len(p) for p in model.parameters() if p.ndim == 2)}
        found.append(row)
        print(json.dumps(row), flush=True)
        if given.output:
            about = {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
            given.output.write_text(json.dumps(about | {"rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
