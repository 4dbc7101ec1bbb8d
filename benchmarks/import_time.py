"""Measure how long `import sigmax` and its command line take, beside torch alone.

Usage: python benchmarks/import_time.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch

import sigmax

RESULTS = Path(__file__).parent / "results"
BASE = "import torch"
STATEMENTS = (BASE, "import sigmax", "import sigmax.cli")
#: Prints the seconds of the processor that a statement takes in a fresh interpreter, so that neighbours do not count.
TIMED = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for statement in STATEMENTS * (given.rounds + 1):  # the first round writes bytecode and fills the disk's cache
        command = [sys.executable, "-c", TIMED.format(statement)]
        seconds[statement].append(float(subprocess.run(command, capture_output=True, check=True).stdout))
    medians = {statement: statistics.median(values[1:]) for statement, values in seconds.items()}
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    result = {
        "date": date,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), "sigmax": sigmax.__version__, "torch": torch.__version__},
        "rounds": given.rounds,
        "seconds_of_the_processor": {statement: values[1:] for statement, values in seconds.items()},
        "median": medians,
        "times_torch": {statement: median / medians[BASE] for statement, median in medians.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date}-import-time.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for statement, median in medians.items():
        print(f"{statement:20} {median:.2f} s, {median / medians[BASE]:.2f} × torch")


if __name__ == "__main__":
    main()
