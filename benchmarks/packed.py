"""Candidates' vectors in fewer bits: what is lost, on data whose right answers are known.

    python benchmarks/packed.py MODEL DATA

MODEL is a folder with more than 10,000 candidates, trained and calibrated on DATA. Copies of it are packed; each is
evaluated on the test split. The differences to float32 have paired intervals.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

from sigmax import load, load_data
from sigmax.evaluation import evaluate
from sigmax.metrics.intervals import difference
from sigmax.model.packing import pack_candidates

RESULTS = Path(__file__).parent / "results"
METRICS = ("map", "recall@10", "log_loss", "calibration_slope")


def main() -> None:
    """Pack, evaluate, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--queries", type=int, default=1000, help="of dev, that packing itself asks")
    given = parser.parse_args()
    data = load_data(given.data)
    asked = [data.queries[i] for i in data.split("dev")][: given.queries]
    whole = evaluate(load(given.model), data)
    rows = {"float32": {name: whole[name].as_dict() for name in METRICS if name in whole.draws}}
    print("float32", {name: row["value"] for name, row in rows["float32"].items()}, flush=True)
    for kind in ("float16", "int8"):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            shutil.copytree(given.model, folder)
            told = pack_candidates(folder, kind, queries=asked).as_dict()
            found = evaluate(load(folder), data)
            minus = {
                name: difference(found.draws[name], whole.draws[name]).as_dict()
                for name in METRICS
                if name in whole.draws
            }
            rows[kind] = {"told": told, "minus float32": minus}
            print(kind, told, {name: row["value"] for name, row in minus.items()}, flush=True)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    result = {
        "data": data.name,
        "test_queries": whole.queries,
        "kinds": rows,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, beside other work",
    }
    (RESULTS / f"{date}-packed-{data.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
