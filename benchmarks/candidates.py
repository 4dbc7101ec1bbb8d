"""Where candidates live: time to the first answer, what is found, and how many requests `sigmax serve` answers.

    python benchmarks/candidates.py FOLDER --candidates 100000
    python benchmarks/candidates.py FOLDER --candidates 100000 --database postgresql://…

FOLDER is a model of the made data of benchmarks/scale.py, trained there if it is not there yet. It gets an index, or
the database its candidates; recall is measured on dev beside the scan of all, requests with wrk as benchmarks/serve.py
does.
"cold" is a process of its own: reading the model and answering one query, after the imports.
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
import time
from itertools import pairwise
from pathlib import Path

from scale import made
from serve import load_average, rates

RESULTS = Path(__file__).parent / "results"
ASKED = 2000


def cold(folder: Path, exact: bool) -> dict[str, float]:
    """Seconds from the imports to the first answer and from there to the second, and memory, in this process."""
    import torch

    from sigmax.encoders import NgramEmbedding
    from sigmax.losses import SoftmaxLoss
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.model.index import load_for_matching

    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        small = DualEncoder(NgramEmbedding.fit(["a b"]), None, SoftmaxLoss(), candidates=["a", "b"])
        small.save(Path(scratch, "model"))
        load_for_matching(Path(scratch, "model")).match("a")
        import pyarrow.parquet  # noqa: F401

        if not exact:
            import faiss  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clocks = [(time.perf_counter(), time.process_time())]

    def clock() -> None:
        clocks.append((time.perf_counter(), time.process_time()))

    model = load_for_matching(folder, exact=exact)
    clock()
    for query in ("bac cac dad", "cac dad bac"):
        model.match(query)
        clock()
    spent = zip(("load", "first_answer", "next_answer"), pairwise(clocks), strict=True)
    return {
        **{
            f"{name}_{kind}": b[i] - a[i] for name, (a, b) in spent for i, kind in enumerate(("seconds", "cpu_seconds"))
        },
        "memory_gb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20,
    }


def alone(*words: str) -> dict[str, float]:
    """What a stage says, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, and write the results beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--candidates", type=int, required=True)
    parser.add_argument("--kind", default="pq", help="of index")
    parser.add_argument("--database", help="push there, and measure this instead of the index")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", choices=("exact", "index"))
    parser.add_argument("--only", choices=("build", "cold", "serve"))
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    if given.cold:
        print(json.dumps(cold(given.folder, given.cold == "exact")))
        return
    from sigmax.model import database, index
    from sigmax.model.dual_encoder import load

    data = made(given.candidates)
    if not given.folder.exists():
        import sigmax
        from sigmax.training.settings import Settings
        from sigmax.training.train import train

        settings = Settings(steps=20, encoder="ngrams", lexical=False)
        model = train(data, settings, stop_early=False, calibrated=False)
        sigmax.calibrate(model, data)
        model.save(given.folder)
    found: dict[str, object] = {"candidates": given.candidates}
    begin = time.perf_counter()
    if given.database and given.only in (None, "build"):
        pushed = database.push_candidates(given.folder, given.database, data=data)
        found["push_seconds"] = time.perf_counter() - begin
        assert pushed.measured is not None
        found["measured"] = pushed.measured.as_dict()
    elif not given.database and not (given.folder / "index").exists():
        about, _ = index.build(given.folder, load(given.folder), data=data, kind=given.kind)
        found["build_seconds"] = time.perf_counter() - begin
        found["index"] = {key: value for key, value in about.items() if key != "calibrator"}
    elif not given.database:
        about = json.loads((given.folder / "index" / "index.json").read_text(encoding="utf-8"))
        found["index"] = {key: value for key, value in about.items() if key != "calibrator"}
    print(json.dumps(found), flush=True)
    if not given.database and given.only in (None, "cold"):
        for how in ("exact", "index"):
            words = (str(given.folder), "--candidates", str(given.candidates), "--cold", how)
            found[f"cold_{how}"] = [alone(*words) for _ in range(3)]
            print(json.dumps({how: found[f"cold_{how}"]}), flush=True)
    if given.only in (None, "serve"):
        with tempfile.TemporaryDirectory() as scratch:
            requests = Path(scratch, "requests.jsonl")
            asked = [data.queries[i] for i in data.split("test")][:ASKED]
            requests.write_text("".join(json.dumps({"query": text}) + "\n" for text in asked), encoding="utf-8")
            ways = (
                {"database": ("--candidates", given.database)}
                if given.database
                else {"exact": ("--exact",), "index": ()}
            )
            for way, options in ways.items():
                found[f"served_{way}"] = rates(given.folder, requests, given.seconds, given.rounds, *options)
                found[f"served_{way}"].pop("options")
                print(json.dumps({way: found[f"served_{way}"]}), flush=True)
    if given.output:
        about = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, beside other work: load {load_average()}",
            "threads": os.environ.get("OMP_NUM_THREADS", "as PyTorch chooses"),
            **found,
        }
        given.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
