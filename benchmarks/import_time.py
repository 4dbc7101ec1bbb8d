"""Measure how long importing Sigmax takes, and its commands until they are done, beside `import torch`.

Usage: python benchmarks/import_time.py [--rounds 9] [--model DIR] [--encoder ngrams] [--source OTHER/src]

`--model` is a model on n-grams or static vectors, for `sigmax match`; without it one is trained for a moment on the
built-in emoji set, with `--encoder`. Where ONNX is installed it is exported too: measured are the time from the start
of Python to the first answer of `sigmax.runtime`, and until `sigmax serve` listens, its model loaded and warm.
`--source` measures another checkout's code with the same interpreter and the same model.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import sigmax

RESULTS = Path(__file__).parent / "results"
BASE = "import torch"
#: What is measured: Python, or a command line (MODEL stands for the folder of a model).
MEASURED = {
    BASE: ["-c", BASE],
    "import sigmax": ["-c", "import sigmax"],
    "sigmax --help": ["-m", "sigmax", "--help"],
    "sigmax train --help": ["-m", "sigmax", "train", "--help"],
    "a usage error": ["-m", "sigmax", "train", "--epoch", "3"],
    "sigmax match": ["-m", "sigmax", "match", "MODEL", "what's in the sky?"],
}
RUNTIME = 'import sys; from sigmax.runtime import load; load(sys.argv[1]).match("what\'s in the sky?")'
#: All that `sigmax serve` does before it waits for requests.
SERVE = """
import sys, uvicorn
from sigmax.cli.main import main
uvicorn.Server.run = lambda *_, **__: None
sys.argv[1:] = ["serve", sys.argv[1], "--port", "0"]
main()
"""
EXPORTED = {"an exported model's answer": ["-c", RUNTIME, "FILE"], "sigmax serve FILE.onnx": ["-c", SERVE, "FILE"]}


def measure(words: list[str], source: Path | None) -> tuple[float, float]:
    """Return the seconds that a fresh interpreter takes, on the clock and of the processor."""
    path = {} if source is None else {"PYTHONPATH": str(source)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], env=os.environ | path, capture_output=True, check=False)
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--encoder", default="ngrams")
    parser.add_argument("--source", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = given.model or Path(scratch, "model")
        if given.model is None:
            settings = sigmax.Settings(encoder=given.encoder, steps=5)
            sigmax.train(sigmax.load_data("emoji"), settings, stop_early=False).save(model)
        measured, file = dict(MEASURED), Path(scratch, "model.onnx")
        if all(importlib.util.find_spec(package) for package in ("onnx", "onnxruntime")):
            from sigmax.runtime import export

            export(sigmax.load(model), file)
            measured |= EXPORTED
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
        for name in list(measured) * (given.rounds + 1):  # the first round writes bytecode and fills the disk's cache
            words = [{"MODEL": str(model), "FILE": str(file)}.get(word, word) for word in measured[name]]
            seconds[name].append(measure(words, given.source))
    kept = {name: values[1:] for name, values in seconds.items()}
    median = {name: [statistics.median(times) for times in zip(*values, strict=True)] for name, values in kept.items()}
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    result = {
        "date": date,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "sigmax": sigmax.__version__, "torch": torch.__version__},
        "rounds": given.rounds,
        "encoder": None if given.model else Path(given.encoder).name,
        "seconds": {name: {"clock": clock, "processor": processor} for name, (clock, processor) in median.items()},
        "times_torch": {name: processor / median[BASE][1] for name, (_, processor) in median.items()},
        "all": kept,
    }
    if given.source is None:
        RESULTS.mkdir(exist_ok=True)
        about = "" if given.encoder == "ngrams" else f"-{Path(given.encoder).name}"
        (RESULTS / f"{date}-import-time{about}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{'':28} {'clock':>8} {'processor':>10} {'× torch':>8}")
    for name, (clock, processor) in median.items():
        print(f"{name:28} {clock:6.2f} s {processor:8.2f} s {processor / median[BASE][1]:8.2f}")


if __name__ == "__main__":
    main()
