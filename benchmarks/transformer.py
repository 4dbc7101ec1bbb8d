"""What a step of fine-tuning a transformer costs on a CPU: by precision, by instructions, with texts cut by length.

Usage: python benchmarks/transformer.py DATA [--encoder all-MiniLM-L6-v2] [--batch-sizes 16 128] [--rounds 3]
       python benchmarks/transformer.py DATA --train 150        what comes of so many steps on dev, each way

Processor seconds of forward and backward, without the optimizer, on the same batches, in turn; a process for each set
of instructions, which oneDNN is told by ONEDNN_MAX_CPU_ISA. "whole" encodes a batch at once, "parts" as training does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from train_time import processor, short_name

RESULTS = Path(__file__).parent / "results"
INSTRUCTIONS = ("AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_AMX")
WAYS = [(precision, parts) for precision in ("float32", "bfloat16") for parts in ("whole", "parts")]


def measured(source: str, encoder: str, size: int, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step by way, and the tokens of the batches."""
    import torch

    import sigmax
    from sigmax.data.batches import Batches
    from sigmax.encoders import lengths
    from sigmax.training.train import build_model
    from sigmax.training.trainer import _Steps

    data = sigmax.load_data(source)
    settings = sigmax.Settings(encoder=encoder, batch_size=size).filled(data)
    batches = Batches(data, batch_size=size, steps=steps)
    model = build_model(data, settings, batches).train()
    made = _Steps(model, batches, None)
    items = [made[number] for number in range(steps)]
    masks = [item["queries"]["attention_mask"] for item in items]
    cost = lengths.PASS["cpu"]
    seconds: dict[str, list[float]] = {", ".join(way): [] for way in WAYS}
    for number in range(rounds + 1):  # the first warms up
        for precision, parts in WAYS:
            lengths.PASS["cpu"] = cost if parts == "parts" else 2**62
            began = time.process_time()
            for item in items:
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    loss = model(**item)["loss"]
                loss.backward()
                model.zero_grad()
            if number:
                seconds[f"{precision}, {parts}"].append((time.process_time() - began) / steps)
    return {
        "batch_size": size,
        "tokens": sum(int(mask.sum()) for mask in masks),
        "padded": sum(mask.numel() for mask in masks),
        "seconds": {way: statistics.median(times) for way, times in seconds.items()},
        "all": seconds,
    }


def trained(source: str, encoder: str, steps: int, precision: str, parts: str) -> dict[str, Any]:
    """Train with seed 0, measure on dev; processor seconds of both."""
    import sigmax
    from sigmax.encoders import lengths
    from sigmax.evaluation import quick_metrics

    if parts == "whole":
        lengths.PASS["cpu"] = 2**62
    data = sigmax.load_data(source)
    settings = sigmax.Settings(encoder=encoder, precision=precision, steps=steps)
    began = time.process_time()
    model = sigmax.train(data, settings, stop_early=False, calibrated=False, tell=False)
    training, began = time.process_time() - began, time.process_time()
    found = quick_metrics(model, data)
    seconds = {"train": training, "dev": time.process_time() - began}
    about = {"data": short_name(source), "precision": precision, "parts": parts, "steps": steps, "seed": 0}
    return {**about, "seconds": seconds, "dev": {name: found[name] for name in ("map", "precision@1")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=int)
    parser.add_argument("--note", default="")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.data, given.encoder, given.one, given.steps, given.rounds)))
        return
    import torch

    rows = [trained(given.data, given.encoder, given.train, *way) for way in WAYS] if given.train else []
    for size in [] if given.train else given.batch_sizes:
        for instructions in INSTRUCTIONS:
            words = [sys.executable, __file__, *sys.argv[1:], "--one", str(size)]
            environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
            rows.append({"instructions": instructions, **json.loads(done.stdout.splitlines()[-1])})
            told = ", ".join(f"{way} {1e3 * seconds:.0f} ms" for way, seconds in rows[-1]["seconds"].items())
            print(f"{size}, {instructions}: {rows[-1]['tokens']} tokens in {rows[-1]['padded']}: {told}", flush=True)
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    record = {
        "date": date,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "note": given.note,
        "data": short_name(given.data),
        "encoder": short_name(given.encoder),
        "versions": {"torch": torch.__version__},
        "rows": rows,
    }
    about = "-dev" if given.train else ""
    (RESULTS / f"{date}-transformer{about}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
