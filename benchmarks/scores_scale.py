"""Ten million rows of scores: how long calibration and rating take, and how much memory.

A table of 100,000 queries with 100 candidates each and two columns of scores is written as Parquet and as CSV; then the
command line calibrates it and rates it. Seconds and the peak of resident memory are those of the whole process.

Usage: python benchmarks/scores_scale.py [--queries 100000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import csv, parquet

RESULTS = Path(__file__).parent / "results"
DEPTH = 100
BLOCK = 10_000


def write(folder: Path, queries: int) -> None:
    """Write scores.parquet and scores.csv, some queries at a time."""
    random = np.random.default_rng(0)
    with_parquet, with_csv = None, None
    for start in range(0, queries, BLOCK):
        n = min(BLOCK, queries - start)
        right = random.random((n, DEPTH)) < 0.015
        level = random.normal(size=(n, 1))
        columns = [np.round(random.normal(size=(n, DEPTH)) + level + 3 * right, 3) for _ in range(2)]
        table = pyarrow.table(
            {
                "query": np.repeat([f"query {i}" for i in range(start, start + n)], DEPTH),
                "candidate": [f"d{j}" for j in random.integers(0, 1_000_000, n * DEPTH)],
                "bm25": columns[0].ravel(),
                "dense": columns[1].ravel(),
                "right": right.ravel().astype(np.int8),
            }
        )
        with_parquet = with_parquet or parquet.ParquetWriter(folder / "scores.parquet", table.schema)
        with_csv = with_csv or csv.CSVWriter(
            folder / "scores.csv", table.schema, write_options=csv.WriteOptions(quoting_style="none")
        )
        with_parquet.write_table(table)
        with_csv.write_table(table)
    with_parquet.close()
    with_csv.close()


def run(*words: str) -> dict[str, float]:
    """Seconds and gigabytes of a command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sigmax", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"sigmax {' '.join(words)} failed")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Write, run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/scores-scale"))
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "scores.csv").exists():
        write(folder, given.queries)
    rows = given.queries * DEPTH
    result = {"rows": rows, "machine": f"{platform.machine()}, {os.cpu_count()} cores, beside other work"}
    for kind in ("parquet", "csv"):
        source, calibrated = str(folder / f"scores.{kind}"), str(folder / "calibrated")
        result[f"calibrate {kind}"] = run("calibrate", source, "--scores", "bm25,dense", "-o", calibrated)
        print(kind, "calibrate", result[f"calibrate {kind}"], flush=True)
        answers = folder / f"answers.{kind}"
        result[f"match {kind}"] = run("match", calibrated, source, "-o", str(answers), "--rule", "precision=0.8")
        result[f"match {kind}"]["rows_per_second"] = round(rows / result[f"match {kind}"]["seconds"])
        print(kind, "match", result[f"match {kind}"], flush=True)
        answers.unlink()
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    (RESULTS / f"{date}-scores-scale.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
