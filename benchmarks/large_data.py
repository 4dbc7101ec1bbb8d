"""Train on a table that is larger than the memory the process may use.

    SIGMAX_DATA=… python benchmarks/large_data.py --gib 4 --limit 2

Writes a CSV of labelled texts (random words, every tenth of which tells the label), then reads it, trains 200 steps on
static vectors and calibrates, in a process whose own memory the system limits (RLIMIT_DATA: a file's pages do not
count, the system drops them when it wants). Peaks are of anonymous memory, sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from process import status_bytes

RESULTS = Path(__file__).parent / "results"
LABELS = 50
HELD_OUT = 2_000  # texts of dev, and of test


def write_table(path: Path, size: int) -> int:
    """Write about `size` bytes; return the number of texts."""
    random = np.random.default_rng(0)
    words = np.array(["".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(20_000)])
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label,split\n")
        while file.tell() < size:
            drawn, labels = words[random.integers(len(words), size=(1000, 280))], random.integers(LABELS, size=1000)
            drawn[:, ::10] = words[labels][:, None]
            for text, label in zip(drawn, labels, strict=True):
                split = "dev" if count < HELD_OUT else "test" if count < 2 * HELD_OUT else "train"
                file.write(f"{' '.join(text)},label {label},{split}\n")
                count += 1
    return count


def measure(path: str, limit: float) -> dict[str, float]:
    import sigmax

    before, peaks, done = status_bytes("RssAnon") / 2**20, {}, threading.Event()
    stage = "read"

    def watch() -> None:
        while not done.wait(0.05):
            peaks[stage] = max(peaks.get(stage, 0.0), status_bytes("RssAnon") / 2**20 - before)

    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30),) * 2)
    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    data = sigmax.load_data(path)
    read, stage = time.perf_counter(), "train"
    encoder = str(Path(os.environ["SIGMAX_DATA"], "models", "potion-base-4m-int8"))
    model = sigmax.train(data, sigmax.Settings(loss="sigmoid", encoder=encoder, steps=200))
    trained, stage = time.perf_counter(), "evaluate"
    measured = sigmax.evaluate(model, data)
    done.set()
    return {
        "texts": len(data.queries),
        "mib_before": before,
        **{f"mib_{name}": peak for name, peak in peaks.items()},
        "seconds_read": read - begin,
        "seconds_train": trained - read,
        "map": measured["map"].value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4, help="size of the table")
    parser.add_argument("--limit", type=float, default=2, help="GiB that the process may use, PyTorch's included")
    parser.add_argument("--measure", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.limit)))
        return
    if "SIGMAX_DATA" not in os.environ:
        sys.exit("Set SIGMAX_DATA to the folder that holds models/; see benchmarks/README.md.")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "large.csv")
        write_table(path, int(given.gib * 2**30))
        size = path.stat().st_size / 2**20
        command = [sys.executable, __file__, "--measure", str(path), "--limit", str(given.limit)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    result = {
        "date": date,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "mib_table": size,
        "mib_limit": given.limit * 1024,
        **json.loads(done.stdout.splitlines()[-1]),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{date}-large-data.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
